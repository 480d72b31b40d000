# SPDX-License-Identifier: Apache-2.0
"""A synthetic Russian-English corpus of three domains, generated from a small grammar of our own.

It needs no download, has real Russian inflection and differs between domains in nouns, verbs and the
translation of shared words. Scores on it say that a method works, not how well it translates.
"""

from __future__ import annotations

import random

from trustformer.data.corpus import Corpus, Pair, corpus_digest
from trustformer.data.toy.grammar import Speaker
from trustformer.data.toy.templates import say
from trustformer.data.toy.words import DOMAINS
from trustformer.errors import ConfigError

NAME = "toy (synthetic)"
_DOUBTFUL_DRAWS = 20  # draws a pair: after that a held-out pair may have a word that train does not have


def toy_corpus(
    seed: int = 0, *, train: int = 20000, valid: int = 500, test: int = 500, public: int = 2000
) -> tuple[Corpus, tuple[Pair, ...]]:
    """Generate the toy corpus and a disjoint public share; the same seed and sizes give the same pairs.

    No Russian and no English sentence of one split occurs in another. Domains follow each other pair by pair,
    so any stretch of a split has them in equal numbers. Words of valid, test and public occur in train, unless
    train is too small (some hundred pairs) to find enough such sentences.

    Args:
        seed: of every draw.
        train, valid, test: number of pairs of each split, at least 1.
        public: number of pairs in the public share, at least 0.

    Returns:
        The corpus (digest over its three splits) and the public pairs.

    Raises:
        ConfigError: a size out of range.
    """
    for name, size, least in (("train", train, 1), ("valid", valid, 1), ("test", test, 1), ("public", public, 0)):
        if size < least:
            raise ConfigError(f"the toy corpus cannot have {size} {name} pairs", f"give at least {least}")
    generator = _Generator(seed)
    train_pairs = generator.draw(train)
    generator.close_vocabulary()
    valid_pairs, test_pairs, public_pairs = (generator.draw(size) for size in (valid, test, public))
    corpus = Corpus(
        train=train_pairs,
        valid=valid_pairs,
        test=test_pairs,
        name=NAME,
        synthetic=True,
        warnings=(),
        digest=corpus_digest(train_pairs, valid_pairs, test_pairs),
    )
    return corpus, public_pairs


class _Generator:
    """Draws splits one after the other; remembers every sentence of earlier ones."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self._speakers = [Speaker(domain, rng) for domain in DOMAINS]
        self._sources: set[str] = set()
        self._targets: set[str] = set()
        self._vocabulary: set[str] | None = None

    def draw(self, size: int) -> tuple[Pair, ...]:
        """The next split: distinct sources, and no sentence of an earlier split."""
        pairs: list[Pair] = []
        targets: set[str] = set()
        patience = _DOUBTFUL_DRAWS * size
        while len(pairs) < size:
            speaker = self._speakers[len(pairs) % len(self._speakers)]
            source, target = say(speaker)
            if source in self._sources or target in self._targets:
                continue
            if self._vocabulary is not None and patience and not _words(source, target) <= self._vocabulary:
                patience -= 1
                continue
            self._sources.add(source)
            targets.add(target)
            pairs.append(Pair(source, target, speaker.domain))
        self._targets |= targets
        return tuple(pairs)

    def close_vocabulary(self) -> None:
        """From here on, prefer sentences of words that occurred so far."""
        self._vocabulary = set()
        for text in (*self._sources, *self._targets):
            self._vocabulary |= _words(text)


def _words(*texts: str) -> set[str]:
    return {word.strip(".,?").lower() for text in texts for word in text.split()}
