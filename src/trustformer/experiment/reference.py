# SPDX-License-Identifier: Apache-2.0
"""The reference of all config keys, made from the config's own types and docstrings."""

from __future__ import annotations

import inspect
import re
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from trustformer.experiment.config import Config


def config_reference() -> str:
    """Return the reference as Markdown."""
    lines = [
        "# Config keys",
        "",
        "A config is a TOML file; every key has a default. `--set SECTION.KEY=VALUE` overrides one. Without a config",
        "and without `data.source`, `trustformer run` takes the values of the quick start",
        "(`src/trustformer/experiment/quickstart.toml`).",
        "This page is generated from the code by `make docs`.",
    ]
    lines += ["", "## Top level", "", *_section(Config, "")]
    for field in msgspec.structs.fields(Config):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            lines += ["", f"## [{field.name}]", "", *_section(field.type, f"{field.name}.")]
    return "\n".join(lines) + "\n"


def _section(struct: type[msgspec.Struct], prefix: str) -> list[str]:
    texts = attribute_texts(struct)
    default_values = struct()
    rows = ["| key | default | values | meaning |", "| --- | --- | --- | --- |"]
    for field in msgspec.structs.fields(struct):
        value = getattr(default_values, field.name)
        if isinstance(value, msgspec.Struct):
            continue
        default = msgspec.json.encode(value).decode()
        rows.append(f"| `{prefix}{field.name}` | `{default}` | {_values(field.type)} | {texts[field.name]} |")
    return rows


def attribute_texts(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the text of each attribute in a Struct's docstring; several names may share one."""
    _, _, attributes = inspect.cleandoc(struct.__doc__ or "").partition("Attributes:\n")
    texts: dict[str, str] = {}
    for block in re.split(r"\n(?=    \w)", "\n" + attributes.rstrip()):
        names, _, text = block.strip().partition(": ")
        for name in names.split(", "):
            texts[name] = " ".join(text.split())
    return texts


def _values(kind: Any) -> str:
    """Describe a field's type: its choices, or its bounds."""
    if get_origin(kind) is not None and hasattr(kind, "__metadata__"):
        base, meta = kind.__origin__, kind.__metadata__[0]
        if meta.pattern:
            return "text"
        bounds = [f"{sign} {value:g}" for sign, value in _bounds(meta)]
        return f"{base.__name__} {', '.join(bounds)}"
    if get_origin(kind) is UnionType or get_origin(kind) is Union:
        return ", or ".join(_values(part) for part in get_args(kind))
    if get_origin(kind) is tuple:
        return "list of text"
    choices = get_args(kind)
    return ", ".join(f"`{choice}`" for choice in choices) if choices else "text" if kind is str else kind.__name__


def _bounds(meta: msgspec.Meta) -> list[tuple[str, float]]:
    limits = (("≥", meta.ge), (">", meta.gt), ("≤", meta.le), ("<", meta.lt))
    return [(sign, value) for sign, value in limits if value is not None]
