# SPDX-License-Identifier: Apache-2.0
"""TOML of a tree of plain values; the standard library only reads it."""

from __future__ import annotations

from typing import Any

import msgspec


def write_toml(tree: dict[str, Any], prefix: str = "") -> str:
    """Return a tree of tables as TOML."""
    plain = [f"{key} = {_value(value)}\n" for key, value in tree.items() if not isinstance(value, dict)]
    tables = [
        f"\n[{prefix}{key}]\n" + write_toml(value, f"{prefix}{key}.")
        for key, value in tree.items()
        if isinstance(value, dict)
    ]
    return "".join(plain + tables)


def _value(value: object) -> str:
    return msgspec.json.encode(value).decode()
