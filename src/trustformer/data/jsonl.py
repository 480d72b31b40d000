# SPDX-License-Identifier: Apache-2.0
"""JSON Lines: one object a line, with `source` and `target` or with a `translation` by language."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trustformer.data.corpus import Pair
from trustformer.data.lines import count, numbered_lines, one_line
from trustformer.errors import DataError
from trustformer.foreign import shown

_HINT = 'write {"source": "...", "target": "..."} or {"translation": {"ru": "...", "en": "..."}}, one object a line'


def read_jsonl(path: Path, source: str, target: str) -> tuple[list[Pair], list[str]]:
    """Read the pairs of a `.jsonl` or `.jsonl.gz` file (UTF-8); empty lines are skipped.

    Args:
        path: the file.
        source, target: keys of the two sides within `translation`.

    Returns:
        The pairs in file order, and the warnings as sentences.

    Raises:
        DataError: not UTF-8, not JSON, a missing or non-text field, no pair left; names the line.
    """
    pairs: list[Pair] = []
    dropped: list[int] = []
    number = 0
    for number, line in numbered_lines(path):
        if not line.strip():
            continue
        pair = to_pair(_parse(path, number, line), f"{path}, line {number}", source, target)
        if pair is None:
            dropped.append(number)
        else:
            pairs.append(pair)
    if not pairs:
        detail = f"{count(len(dropped), 'object')} with an empty side" if dropped else "no object"
        raise DataError(f"{path}, line {number}: the file ends without a pair ({detail})", _HINT)
    warnings = []
    if dropped:
        what = count(len(dropped), "pair")
        warnings.append(f"{path.name}: {what} with an empty side dropped (first at line {dropped[0]})")
    return pairs, warnings


def to_pair(row: dict[str, Any], where: str, source: str, target: str) -> Pair | None:
    """Return the pair of a row, None when a side is empty.

    Args:
        row: has `source` and `target`, or `translation` with both languages, or the languages themselves as keys;
            `domain` is the label.
        where: file and line, or data set and row, for errors.
        source, target: language codes.

    Raises:
        DataError: a field is missing or not text.
    """
    sides: Any = row
    keys = ("source", "target")
    if isinstance(row.get("translation"), dict):
        sides, keys = row["translation"], (source, target)
    elif "source" not in row and source in row:
        keys = (source, target)
    texts = []
    for key, holder in ((keys[0], sides), (keys[1], sides), ("domain", row)):
        value = holder.get(key, "" if key == "domain" else None)
        if key == "domain" and value is None:  # a column that this row does not fill
            value = ""
        if not isinstance(value, str):
            what = "is missing" if key not in holder else "is not text"
            known = ", ".join(sorted(shown(str(name)) for name in holder)[:8]) or "nothing"
            raise DataError(f"{where}: {key!r} {what} (it has {known})", _HINT)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(f"{where}: {key!r} holds half of a surrogate pair", "repair the text's encoding") from None
        texts.append(one_line(value))
    return Pair(*texts) if texts[0] and texts[1] else None


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply or a number too long"
        raise DataError(f"{path}, line {number}: not JSON: {reason}", _HINT) from None
    if not isinstance(row, dict):
        raise DataError(f"{path}, line {number}: a JSON {type(row).__name__} where an object is needed", _HINT)
    return row
