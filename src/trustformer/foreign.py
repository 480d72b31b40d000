# SPDX-License-Identifier: Apache-2.0
"""Text that others wrote, in messages: nothing in it can steer a terminal."""

from __future__ import annotations


def shown(text: str, limit: int | None = 40) -> str:
    """Return foreign text on one line: its first `limit` characters, or all of it."""
    return "".join(character if character.isprintable() else "?" for character in text[:limit])


def printable(text: str) -> str:
    """Return foreign text, line breaks and all, as a terminal only shows it: escape sequences could overwrite lines."""
    return "".join(mark if mark.isprintable() or mark == "\n" else "\N{REPLACEMENT CHARACTER}" for mark in text)
