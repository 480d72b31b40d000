# SPDX-License-Identifier: Apache-2.0
"""Which reader a corpus file needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from trustformer.data.aligned import aligned_files, read_aligned
from trustformer.data.corpus import Pair, read_pairs, resolve_path
from trustformer.data.jsonl import read_jsonl
from trustformer.data.lines import unpacked_name
from trustformer.data.tmx import read_tmx
from trustformer.errors import DataError

FileFormat = Literal["tsv", "tmx", "jsonl", "text"]

SUFFIXES: dict[str, FileFormat] = {".tsv": "tsv", ".tmx": "tmx", ".jsonl": "jsonl", ".ndjson": "jsonl"}

Reader = Callable[[Path, str, str], tuple[list[Pair], list[str]]]

_READERS: dict[str, Reader] = {
    "tsv": lambda path, source, target: read_pairs(path),
    "tmx": read_tmx,
    "jsonl": read_jsonl,
    "text": lambda path, source, target: read_aligned(*aligned_files(path, source, target)),
}


def read_file(kind: FileFormat, path: Path, source: str, target: str) -> tuple[list[Pair], list[str]]:
    """Read the pairs of one file, for `text` of the two files that `path` stands for.

    Args:
        kind: the format.
        path: the file.
        source, target: language codes.

    Returns:
        The pairs in file order, and the warnings as sentences.

    Raises:
        DataError: naming file and line.
    """
    return _READERS[kind](path, source, target)


def detect(path: Path, source: str, target: str) -> FileFormat:
    """Tell a file's format by its name; raises `DataError` if the name does not say."""
    kind = SUFFIXES.get(Path(unpacked_name(path.name)).suffix.lower())
    if kind is not None:
        return kind
    try:
        aligned_files(path, source, target)
    except DataError:
        named = path.name.removesuffix(".gz").endswith((f".{source}", f".{target}"))
        if named and not path.is_dir():
            raise  # it says which of the two files is missing
        if not path.exists():
            raise DataError(f"{path} does not exist", "check the path") from None
        raise DataError(
            f"the format of {path} cannot be told from its name",
            f"it may end in {', '.join(SUFFIXES)} (also .gz), or in .{source} and .{target} for two aligned files; "
            "else give --format",
        ) from None
    return "text"


def find(kind: FileFormat, text: str, base: Path, source: str, target: str) -> Path:
    """Find the file a config names, as `resolve_path` does; for `text` the prefix of two files.

    Raises:
        DataError: it is in none of the places looked at.
    """
    if kind != "text":
        return resolve_path(text, base)
    for suffix in (f".{source}", f".{source}.gz"):
        try:
            return resolve_path(text + suffix, base)
        except DataError:
            continue
    return resolve_path(text, base)
