# SPDX-License-Identifier: Apache-2.0
"""Sentence pairs from files: one pair a line, optional domain labels line by line.

Whatever a file holds that a run cannot use ends in a DataError naming file and line; whatever is dropped or
merely odd is counted and told in one sentence.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from trustformer.data.lines import MAX_LINE_BYTES as MAX_LINE_BYTES
from trustformer.data.lines import count, numbered_lines
from trustformer.errors import DataError

DATA_VARIABLE = "TRUSTFORMER_DATA"
LABELS = (
    "data.train_domains of tsv and lines, 'domain' of jsonl and hf, a domain <prop> of tmx, prepare --domain of folder"
)
"""Where a format has its labels, for hints; `text` has none."""

_Reader = Callable[[Path, "Path | None"], "tuple[list[Pair], list[str]]"]


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
    the user; `digest` is the hex SHA-256 of `corpus_digest`. `owners` has the numbers of train, valid and test pairs
    of each client where every client brought its own; the splits are then theirs in order.
    """

    train: tuple[Pair, ...]
    valid: tuple[Pair, ...]
    test: tuple[Pair, ...]
    name: str
    synthetic: bool
    warnings: tuple[str, ...]
    digest: str
    owners: tuple[tuple[int, int, int], ...] = ()

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
    files = ((train, train_domains), (valid, valid_domains), (test, test_domains))
    return _load(read_pairs, files)


def load_lines(
    train: Path,
    valid: Path,
    test: Path,
    *,
    train_domains: Path | None = None,
    valid_domains: Path | None = None,
    test_domains: Path | None = None,
) -> Corpus:
    """Read the three splits of a corpus of single texts (see `read_lines`); raises as `load_tsv`."""
    return _load(read_lines, ((train, train_domains), (valid, valid_domains), (test, test_domains)))


def _load(read: _Reader, files: Sequence[tuple[Path, Path | None]]) -> Corpus:
    splits: list[list[Pair]] = []
    warnings: list[str] = []
    for path, domains in files:
        pairs, found = read(path, domains)
        splits.append(pairs)
        warnings += found
    return make_corpus(*splits, name=files[0][0].name, warnings=warnings)


def make_corpus(
    train: Sequence[Pair],
    valid: Sequence[Pair],
    test: Sequence[Pair],
    *,
    name: str,
    warnings: Sequence[str],
    owners: tuple[tuple[int, int, int], ...] = (),
) -> Corpus:
    """Put three splits together and add warnings about repeated pairs and about sources that train has too."""
    found = []
    if repeated := _repeated(train, owners):
        why = "another folder holds the same" if owners else "equal to an earlier one"
        found.append(f"{count(repeated, 'training pair')} kept though {why} ({name})")
    train_sources = {pair.source for pair in train}
    for split, pairs in (("valid", valid), ("test", test)):
        seen = sum(pair.source in train_sources for pair in pairs)
        if seen:
            verb = "occurs" if seen == 1 else "occur"
            found.append(f"{seen:,} of {count(len(pairs), f'{split} source')} also {verb} in train")
    return Corpus(
        train=tuple(train),
        valid=tuple(valid),
        test=tuple(test),
        name=name,
        synthetic=False,
        warnings=(*warnings, *found),
        digest=corpus_digest(train, valid, test),
        owners=owners,
    )


def _repeated(train: Sequence[Pair], owners: Sequence[tuple[int, int, int]]) -> int:
    """Count pairs equal to an earlier one; of owners those that another had before, since each one's own are told."""
    texts = [(pair.source, pair.target) for pair in train]
    if not owners:
        return len(texts) - len(set(texts))
    ends = list(accumulate(owner[0] for owner in owners))
    return sum(len(set(texts[start:end])) for start, end in zip([0, *ends], ends, strict=False)) - len(set(texts))


def read_pairs(path: Path, domains: Path | None = None) -> tuple[list[Pair], list[str]]:
    """Read `source<TAB>target` lines (UTF-8, plain or `.gz`) and, optionally, one label a line.

    White space around a side is stripped; a byte order mark and CRLF are accepted. A pair with an empty side
    is dropped together with its label.

    Returns:
        The pairs in file order, and the warnings as sentences.

    Raises:
        DataError: missing or damaged file, not UTF-8, a row without exactly one TAB, a line
            beyond 1 MiB, an empty label, labels and pairs of different number, no pair left.
    """
    rows = [_split_row(path, number, line) for number, line in numbered_lines(path)]
    return _labelled(path, rows, domains)


def read_lines(path: Path, domains: Path | None = None) -> tuple[list[Pair], list[str]]:
    """Read one text a line (UTF-8, plain or `.gz`) and, optionally, one label a line.

    The text stands on both sides of a pair. Empty lines are dropped together with their label.

    Raises:
        DataError: as `read_pairs`.
    """
    texts = [line.strip() for _, line in numbered_lines(path)]
    return _labelled(path, [(text, text) for text in texts], domains)


def _labelled(path: Path, rows: Sequence[tuple[str, str]], domains: Path | None) -> tuple[list[Pair], list[str]]:
    labels = _read_labels(domains, path, len(rows)) if domains is not None else [""] * len(rows)
    pairs: list[Pair] = []
    dropped: list[int] = []
    for number, ((source, target), label) in enumerate(zip(rows, labels, strict=True), start=1):
        if source and target:
            pairs.append(Pair(source, target, label))
        else:
            dropped.append(number)
    if not pairs:
        detail = f"all {count(len(rows), 'row')} have an empty side" if rows else "it is empty"
        raise DataError(
            f"{path}, line {max(1, len(rows))}: the file ends without a pair ({detail})",
            "give a file with at least one source<TAB>target line",
        )
    warnings = []
    if dropped:
        what = count(len(dropped), "pair")
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


def _split_row(path: Path, number: int, line: str) -> tuple[str, str]:
    fields = line.split("\t")
    if len(fields) != 2:
        found = count(len(fields), "field") if line.strip() else "an empty line"
        raise DataError(
            f"{path}, line {number}: {found} where source<TAB>target has 2",
            "write one pair a line with exactly one TAB between the sides",
        )
    return fields[0].strip(), fields[1].strip()


def _read_labels(path: Path, pairs_path: Path, expected: int) -> list[str]:
    labels = []
    for number, line in numbered_lines(path):
        labels.append(line.strip())
        if not labels[-1]:
            raise DataError(f"{path}, line {number}: the domain label is empty", "give every pair a label")
    if len(labels) != expected:
        longer, shorter = (path, pairs_path) if len(labels) > expected else (pairs_path, path)
        number = min(len(labels), expected)
        raise DataError(
            f"{longer}, line {number + 1}: {shorter} has only {count(number, 'line')}",
            "line N of the domain file labels line N of the pairs; give both the same number of lines",
        )
    return labels
