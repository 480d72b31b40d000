# SPDX-License-Identifier: Apache-2.0
"""What of a corpus a task can use: taken away before the corpus is divided, so that indexes mean the same to all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate

import numpy as np

from trustformer.data.corpus import Corpus, Pair, corpus_digest
from trustformer.data.lines import count
from trustformer.errors import DataError
from trustformer.evaluation.tasks import Task


def usable_corpus(corpus: Corpus, task: Task, max_length: int, unknown: int | None) -> Corpus:
    """Return a corpus without what a task cannot use: an example for each pair, in the same order.

    What was dropped, and what of the training text is as long as `max_length` tokens or has characters that the
    vocabulary lacks (the token `unknown`), is told in its warnings.

    Raises:
        DataError: nothing is left of a split, or of what a client trains on.
    """
    corpus = _without_unusable(corpus, task, max_length)
    examples = task.examples(corpus.train, max_length)
    full = sum(max(len(one.source), len(one.target)) >= max_length for one in examples)
    lacking = sum(unknown in one.source or unknown in one.target for one in examples)
    told = {
        f"{max_length} tokens (model.max_length) or more: what is beyond is cut": full,
        "characters that the vocabulary lacks: models read them all as one unknown token and write none of them "
        "(tokenizer.train_on and tokenizer.public_share choose its text)": lacking,
    }
    warnings = [
        f"{number:,} of {count(len(examples), 'training pair')} {'has' if number == 1 else 'have'} {what}"
        for what, number in told.items()
        if number
    ]
    return replace(corpus, warnings=(*corpus.warnings, *warnings))


def _without_unusable(corpus: Corpus, task: Task, max_length: int) -> Corpus:
    splits: dict[str, tuple[Pair, ...]] = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
    kept = {name: task.usable(pairs, max_length) for name, pairs in splits.items()}
    dropped = {name: len(pairs) - len(kept[name]) for name, pairs in splits.items()}
    if not any(dropped.values()):
        return corpus
    owned = [_shares(kept[name], [owner[at] for owner in corpus.owners]) for at, name in enumerate(splits)]
    emptied = [name for name, pairs in splits.items() if pairs and not kept[name]]
    if emptied or 0 in owned[0]:
        where = f"the {emptied[0]} split" if emptied else f"the training texts of client {owned[0].index(0)}"
        raise DataError(f"{corpus.name}: the tokenizer finds no token in {where}", "give other text or data.side")
    told = ", ".join(f"{number:,} of {name}" for name, number in dropped.items() if number)
    train, valid, test = (tuple(pairs[i] for i in kept[name]) for name, pairs in splits.items())
    return replace(
        corpus,
        train=train,
        valid=valid,
        test=test,
        digest=corpus_digest(train, valid, test),
        warnings=(*corpus.warnings, f"{corpus.name}: texts without a token dropped: {told}"),
        owners=tuple(zip(*owned, strict=True)),
    )


def _shares(kept: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """How many of the kept indexes lie in each of the consecutive parts of these sizes."""
    ends = np.searchsorted(kept, [0, *accumulate(sizes)])
    return [int(number) for number in np.diff(ends)]
