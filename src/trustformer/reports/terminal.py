# SPDX-License-Identifier: Apache-2.0
"""Tables in a terminal: columns fold, digits stay."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

_WORD = 14
"""Characters of a word that stay together; of longer ones, names, the rest goes to the next line."""
_GAP, _EDGES = 2, 2
"""Characters between two columns, and at both edges of a table together."""


def plain(texts: Iterable[str]) -> list[Text]:
    """Return texts for a terminal as they are: rich reads brackets and colons of a `str` as its markup."""
    return [Text(text) for text in texts]


def fill(table: Table, headings: Sequence[str], rows: Sequence[Sequence[str]], width: int, texts: int = 1) -> None:
    """Add all columns and rows, for a terminal of `width` characters.

    The widest columns fold first, between words, and none below its longest word. A table that needs more than the
    terminal has stays wider: print it with `crop=False`.

    Args:
        table: an empty one.
        headings: of its columns.
        rows: a cell a column; may have lines.
        width: of the terminal, in characters.
        texts: columns that are text, on the left; the others are numbers.
    """
    columns = [[heading, *cells] for heading, *cells in zip(headings, *rows, strict=True)]
    least = [min(_WORD, max(cell_len(word) for cell in column for word in cell.split() or [""])) for column in columns]
    widths = [max(cell_len(line) for cell in column for line in cell.split("\n")) for column in columns]
    room = width - _GAP * (len(columns) - 1)
    table.collapse_padding, table.show_edge = True, sum(least) + _EDGES <= room
    while sum(widths) + _EDGES * table.show_edge > room:
        spare = [chars if chars > least[index] else 0 for index, chars in enumerate(widths)]
        if not any(spare):
            break
        widths[spare.index(max(spare))] -= 1
    for index, (heading, chars) in enumerate(zip(headings, widths, strict=True)):
        side: Literal["left", "right"] = "left" if index < texts else "right"
        table.add_column(Text(heading), justify=side, overflow="fold", min_width=chars, max_width=chars)
    for row in rows:
        table.add_row(*plain(row))
