# SPDX-License-Identifier: Apache-2.0
"""Train, valid and test by a hash of the source: whoever holds a sentence puts it in the same split."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trustformer.data.corpus import Pair
from trustformer.data.lines import count, one_line
from trustformer.data.progress import tracked
from trustformer.errors import ConfigError, DataError

MAX_CHARACTERS = 10_000
"""Of a side; a longer one is no sentence."""


@dataclass(frozen=True)
class Division:
    """A divided corpus and what was found on the way.

    Attributes:
        splits: pairs of train, valid and test in the order they were read.
        read: pairs before anything was dropped.
        too_long: dropped pairs with a side beyond `MAX_CHARACTERS`.
        empty: dropped pairs with a side of invisible marks only, of which `one_line` leaves nothing.
        repeated: pairs equal to an earlier one; dropped unless they were to be kept.
        shared: of those, pairs whose earlier one came from another input.
        variants: pairs whose source occurred before, but not with this translation; they are in the split of the first.
        leaked: test pairs whose source would stand in train too had the kept lines been divided at random (expected).
    """

    splits: dict[str, list[Pair]]
    read: int
    too_long: int
    empty: int
    repeated: int
    shared: int
    variants: int
    leaked: float


def normalise(text: str) -> str:
    """Return a sentence without what copies of it differ in: width and composition of characters, case, spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def split_of(source: str, valid: float, test: float) -> str:
    """Return `train`, `valid` or `test` for a source sentence.

    The first 8 bytes of the SHA-256 of the normalised sentence, as a fraction of 2^64, are compared with the
    shares: below `test` it is a test sentence, below `test + valid` one of validation. It depends on nothing else.
    """
    digest = hashlib.sha256(normalise(source).encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    if place < test:
        return "test"
    return "valid" if place < test + valid else "train"


def divide(inputs: Sequence[Sequence[Pair]], *, valid: float, test: float, keep_repeated: bool = False) -> Division:
    """Divide the pairs of several inputs.

    Args:
        inputs: pairs of each input.
        valid, test: shares, positive and together below a half.
        keep_repeated: keep pairs equal to an earlier one.

    Raises:
        ConfigError: a share out of range.
        DataError: a split without a pair.
    """
    _check_shares(valid, test)
    splits: dict[str, list[Pair]] = {name: [] for name in ("train", "valid", "test")}
    seen: dict[tuple[str, str], int] = {}
    sources: Counter[str] = Counter()
    translations: set[tuple[str, str]] = set()
    read = too_long = empty = repeated = shared = variants = 0
    for number, pairs in enumerate(inputs):
        for raw in tracked(pairs, "dividing"):
            read += 1
            pair = Pair(one_line(raw.source), one_line(raw.target), one_line(raw.domain))
            key = (pair.source, pair.target)
            if max(map(len, key)) > MAX_CHARACTERS:
                too_long += 1
                continue
            if not all(key):
                empty += 1
                continue
            normal = normalise(pair.source)  # not of longer ones: it takes the square of a run of accents
            if key in seen:
                repeated += 1
                shared += seen[key] != number
            else:
                variants += sources[normal] > 0 and (normal, pair.target) not in translations
                translations.add((normal, pair.target))
            if key not in seen or keep_repeated:
                sources[normal] += 1
                splits[split_of(pair.source, valid, test)].append(pair)
            seen.setdefault(key, number)
    _check(splits, len(sources), valid, test)
    leaked = sum(rows * test * (1 - (valid + test) ** (rows - 1)) for rows in sources.values())
    return Division(splits, read, too_long, empty, repeated, shared, variants, leaked)


def _check_shares(valid: float, test: float) -> None:
    if not (valid > 0 and test > 0 and valid + test < 0.5):
        raise ConfigError(
            f"the shares of valid and test are {valid:g} and {test:g}",
            "give positive ones that add up to less than 0.5",
        )


def _check(splits: dict[str, list[Pair]], sources: int, valid: float, test: float) -> None:
    for name, share in (("train", 1 - valid - test), ("valid", valid), ("test", test)):
        if not splits[name]:
            raise DataError(
                f"no pair falls into {name}: {count(sources, 'different source')} at a share of {share:g}",
                "give more data, or larger --valid and --test",
            )
