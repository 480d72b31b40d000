# SPDX-License-Identifier: Apache-2.0
"""Sentence pairs from files: one pair a line, optional domain labels line by line.

Whatever a file holds that a run cannot use ends in a DataError naming file and line; whatever is dropped or
merely odd is counted and told in one sentence.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from trustformer.errors import DataError

DATA_VARIABLE = "TRUSTFORMER_DATA"
MAX_LINE_BYTES = 1 << 20  # a line is held in memory whole; a longer one is no sentence
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Pair:
    """One sentence and its translation; `domain` is empty where the corpus has no labels."""

    source: str
    target: str
    domain: str = ""


@dataclass(frozen=True)
class Corpus:
    """What a run reads.

    `name` is the train file's name or says that the corpus is synthetic; `warnings` are counted sentences for
    the user; `digest` is the hex SHA-256 of `corpus_digest`.
    """

    train: tuple[Pair, ...]
    valid: tuple[Pair, ...]
    test: tuple[Pair, ...]
    name: str
    synthetic: bool
    warnings: tuple[str, ...]
    digest: str

    def domains(self) -> tuple[str, ...]:
        """Sorted names of the domains present in train; empty where there are no labels."""
        return tuple(sorted({pair.domain for pair in self.train} - {""}))


def corpus_digest(train: Sequence[Pair], valid: Sequence[Pair], test: Sequence[Pair]) -> str:
    """Hex SHA-256 over every pair of every split in order, domain labels included.

    Each split is preceded by its number of pairs and each string by its length in bytes (8 bytes, big
    endian), so two different corpora never hash the same bytes.
    """
    digest = hashlib.sha256(b"trustformer corpus 1\n")
    for split in (train, valid, test):
        digest.update(len(split).to_bytes(8, "big"))
        for pair in split:
            for text in (pair.source, pair.target, pair.domain):
                data = text.encode()
                digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()


def load_tsv(
    train: Path,
    valid: Path,
    test: Path,
    *,
    train_domains: Path | None = None,
    valid_domains: Path | None = None,
    test_domains: Path | None = None,
) -> Corpus:
    """Read the three splits of a corpus of `.tsv` or `.tsv.gz` files (see `read_pairs`).

    Raises:
        DataError: a file cannot be read, or a split is empty after pairs with an empty side were dropped.
    """
    train_pairs, warnings = read_pairs(train, train_domains)
    valid_pairs, valid_warnings = read_pairs(valid, valid_domains)
    test_pairs, test_warnings = read_pairs(test, test_domains)
    repeated = len(train_pairs) - len({(pair.source, pair.target) for pair in train_pairs})
    if repeated:
        warnings.append(f"{train.name}: {_count(repeated, 'pair')} equal to an earlier one kept")
    warnings += valid_warnings + test_warnings
    train_sources = {pair.source for pair in train_pairs}
    for name, pairs in (("valid", valid_pairs), ("test", test_pairs)):
        seen = sum(pair.source in train_sources for pair in pairs)
        if seen:
            verb = "occurs" if seen == 1 else "occur"
            warnings.append(f"{seen:,} of {_count(len(pairs), f'{name} source')} also {verb} in train")
    return Corpus(
        train=tuple(train_pairs),
        valid=tuple(valid_pairs),
        test=tuple(test_pairs),
        name=train.name,
        synthetic=False,
        warnings=tuple(warnings),
        digest=corpus_digest(train_pairs, valid_pairs, test_pairs),
    )


def read_pairs(path: Path, domains: Path | None = None) -> tuple[list[Pair], list[str]]:
    """Read `source<TAB>target` lines (UTF-8, `.tsv` or `.tsv.gz`) and, optionally, one label a line.

    White space around a side is stripped; a byte order mark and CRLF are accepted. A pair with an empty side
    is dropped together with its label.

    Returns:
        The pairs in file order, and the warnings as sentences.

    Raises:
        DataError: missing or damaged file, unknown suffix, not UTF-8, a row without exactly one TAB, a line
            beyond 1 MiB, an empty label, labels and pairs of different number, no pair left.
    """
    if not path.name.endswith((".tsv", ".tsv.gz")):
        raise DataError(
            f"{path} has a suffix that is neither .tsv nor .tsv.gz",
            "give a file of source<TAB>target lines, plain or gzip-compressed",
        )
    rows = [_split_row(path, number, line) for number, line in _lines(path)]
    labels = _read_labels(domains, path, len(rows)) if domains is not None else [""] * len(rows)
    pairs: list[Pair] = []
    dropped: list[int] = []
    for number, ((source, target), label) in enumerate(zip(rows, labels, strict=True), start=1):
        if source and target:
            pairs.append(Pair(source, target, label))
        else:
            dropped.append(number)
    if not pairs:
        detail = f"all {_count(len(rows), 'row')} have an empty side" if rows else "the file is empty"
        raise DataError(f"{path} has no pair ({detail})", "give a file with at least one source<TAB>target line")
    warnings = []
    if dropped:
        what = _count(len(dropped), "pair")
        warnings.append(f"{path.name}: {what} with an empty side dropped (first at line {dropped[0]})")
    return pairs, warnings


def resolve_path(text: str, base: Path) -> Path:
    """Find a data file: under the folder TRUSTFORMER_DATA names if it is there, else relative to `base`.

    An absolute path is taken as it is.

    Raises:
        DataError: the file is in none of these places; the message names each.
    """
    given = Path(text).expanduser() if text.startswith("~/") else Path(text)
    folder = os.environ.get(DATA_VARIABLE, "")
    places = [given] if given.is_absolute() else [base / given]
    if folder and not given.is_absolute():
        places.insert(0, Path(folder) / given)
    for place in places:
        if place.exists():
            return place
    looked = " and ".join(str(place) for place in places)
    state = f"{DATA_VARIABLE} is {folder}" if folder else f"{DATA_VARIABLE} is not set"
    raise DataError(
        f"the data file {text!r} does not exist; looked at {looked}",
        f"correct the path, or set {DATA_VARIABLE} to the folder it is relative to ({state})",
    )


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _split_row(path: Path, number: int, line: str) -> tuple[str, str]:
    fields = line.split("\t")
    if len(fields) != 2:
        raise DataError(
            f"{path}, line {number}: {_count(len(fields), 'field')} where source<TAB>target has 2",
            "write one pair a line with exactly one TAB between the sides",
        )
    return fields[0].strip(), fields[1].strip()


def _read_labels(path: Path, pairs_path: Path, expected: int) -> list[str]:
    labels = []
    for number, line in _lines(path):
        labels.append(line.strip())
        if not labels[-1]:
            raise DataError(f"{path}, line {number}: the domain label is empty", "give every pair a label")
    if len(labels) != expected:
        raise DataError(
            f"{path} has {_count(len(labels), 'label')} for {_count(expected, 'row')} of {pairs_path}",
            "line N of the domain file labels line N of the pairs; give both the same number of lines",
        )
    return labels


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Line numbers from 1 and decoded lines without their line ends."""
    offset = 0
    for number, raw in enumerate(_raw_lines(path), start=1):
        if len(raw) > MAX_LINE_BYTES:
            raise DataError(f"{path}, line {number}: longer than 1 MiB", "split it: one sentence pair a line")
        start = len(_BOM) if number == 1 and raw.startswith(_BOM) else 0
        try:
            line = raw[start:].decode("utf-8")
        except UnicodeDecodeError as error:
            at = offset + start + error.start
            raise DataError(
                f"{path}, line {number}: not UTF-8 at byte offset {at:,} of the text",
                "convert the file to UTF-8",
            ) from error
        offset += len(raw)
        yield number, line.rstrip("\r\n")


def _raw_lines(path: Path) -> Iterable[bytes]:
    """Lines as bytes, each cut one byte past the limit; every failure to read is a DataError."""
    try:
        with _open(path) as stream:
            while raw := stream.readline(MAX_LINE_BYTES + 1):
                yield raw
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "check the path") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        what = "truncated" if isinstance(error, EOFError) else "not valid gzip"
        raise DataError(
            f"{path} is {what} although its name ends in .gz",
            "fetch it again, or rename it if it is not gzip",
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}", "check that it is a readable file") from error


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        # BufferedReader makes readline of gzip several times faster.
        return cast(BinaryIO, io.BufferedReader(gzip.open(path, "rb")))
    return path.open("rb")
