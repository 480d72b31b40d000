# SPDX-License-Identifier: Apache-2.0
"""Aligned text: two files, line N of one is the translation of line N of the other."""

from __future__ import annotations

from collections.abc import Collection
from itertools import zip_longest
from pathlib import Path

from trustformer.data.corpus import Pair
from trustformer.data.lines import count, numbered_lines, one_line
from trustformer.errors import DataError


def read_aligned(source: Path, target: Path) -> tuple[list[Pair], list[str]]:
    """Read two text files (UTF-8, also `.gz`) of the same number of lines.

    Returns:
        The pairs in file order, and the warnings as sentences.

    Raises:
        DataError: not UTF-8, different numbers of lines (names the first line without a partner), no pair left.
    """
    pairs: list[Pair] = []
    dropped: list[int] = []
    for one, other in zip_longest(numbered_lines(source), numbered_lines(target)):
        if one is None or other is None:
            longer, shorter, number = (target, source, other[0]) if one is None else (source, target, one[0])
            raise DataError(
                f"{longer}, line {number}: {shorter} has only {count(number - 1, 'line')}",
                "line N of one file must translate line N of the other",
            )
        pair = Pair(one_line(one[1]), one_line(other[1]))
        if pair.source and pair.target:
            pairs.append(pair)
        else:
            dropped.append(one[0])
    if not pairs:
        raise DataError(
            f"{source}, line {len(dropped)}: the file ends without a pair", "give two files of aligned sentences"
        )
    warnings = []
    if dropped:
        what = count(len(dropped), "pair")
        warnings.append(f"{source.name}: {what} with an empty side dropped (first at line {dropped[0]})")
    return pairs, warnings


def aligned_files(prefix: Path, source: str, target: str, named: Collection[Path] = ()) -> tuple[Path, Path]:
    """Return the two files of a corpus named the usual way: `corpus` stands for `corpus.ru` and `corpus.en`.

    Either file, plain or `.gz`, may be named instead of the prefix. Of a file that is there in both forms the one in
    `named` is taken, else the one of the form that `prefix` has.

    Raises:
        DataError: one of them does not exist.
    """
    if prefix.is_dir():
        raise DataError(f"{prefix} is a folder; aligned text is two files", "name them, without the language's ending")
    name = without_language(prefix.name, (source, target))
    forms = (".gz", "") if prefix.name.endswith(".gz") else ("", ".gz")
    found = []
    for language in (source, target):
        places = [prefix.with_name(f"{name}.{language}{form}") for form in forms]
        existing = sorted((place for place in places if place.is_file()), key=lambda place: place not in named)
        if not existing:
            raise DataError(
                f"{prefix.with_name(name)}.{language} does not exist, nor with .gz; "
                f"{prefix.name!r} of aligned text stands for two files",
                f"name them {name}.{source} and {name}.{target}, or set the languages",
            )
        found.append(existing[0])
    return found[0], found[1]


def without_language(name: str, languages: tuple[str, str]) -> str:
    """Return a name without `.gz` and the ending of one language: `news.en` of `news.en.ru.gz`."""
    name = name.removesuffix(".gz")
    return next((name.removesuffix(f".{code}") for code in languages if name.endswith(f".{code}")), name)
