# SPDX-License-Identifier: Apache-2.0
"""Which tokens a text has, from how the rows of the embedding moved.

With embeddings tied to the output layer every row moves: those of absent tokens by the softmax alone, all much alike.
So a token scores by what is left of its row's movement without the few directions that all rows share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from trustformer.attacks.scores import Floats, auc
from trustformer.codec.weights import Weights
from trustformer.errors import ConfigError
from trustformer.vq import Array

NOT_SENT = "what is frozen, or has an adapter in its place, is never sent"
_SHARED = 4
"""Directions taken away. With 0, 1, 2 and 4 of them 49, 93, 99.9 and 100 % of a gradient's tokens come first: random
sentences, up to four (`benchmarks/screening/tolerances.py`)."""


def embedding_of(drift: Weights, vocab_size: int) -> Array:
    """Return the drift of the matrix with a row a token, (V, D); of several the one that moved most.

    Raises:
        ConfigError: there is none.
    """
    found = [values for values in drift.values() if values.ndim == 2 and len(values) == vocab_size]
    if found:
        return max(found, key=np.linalg.norm)
    raise ConfigError(f"the messages hold no matrix with a row for each of {vocab_size:,} tokens", NOT_SENT)


def token_scores(drift_VD: Array, shared: int = _SHARED) -> Floats:
    """Return a score a token, higher where the text more likely has it, float64 (V,).

    Args:
        drift_VD: of the embedding.
        shared: directions that are taken away.
    """
    D_VD = drift_VD.astype("f8")
    _, _, directions = np.linalg.svd(D_VD, full_matrices=False)
    common = directions[:shared]
    scores_V: Floats = np.linalg.norm(D_VD - (D_VD @ common.T) @ common, axis=1)
    return scores_V


def silent(drift_VD: Array) -> set[int]:
    """Return the tokens a message says nothing about, as `partition` does of rows that wait: their rows do not move."""
    return set(np.flatnonzero(~drift_VD.any(1)).tolist())


def whose(scores: Mapping[str, Floats], texts: Mapping[str, set[int]]) -> tuple[int, float]:
    """Tell whose the tokens are that occur in one client's text only.

    Args:
        scores: by client.
        texts: by client: the truth.

    Returns:
        Number of such tokens, and how often the owner's message ranks one higher than another's (chance: 0.5).
    """
    ranks = {client: np.argsort(np.argsort(score)).astype("f8") for client, score in scores.items()}
    mine: list[float] = []
    theirs: list[float] = []
    for client, text in texts.items():
        only = sorted(text - _union(other for name, other in texts.items() if name != client))
        for name in texts:
            (mine if name == client else theirs).extend(ranks[name][only].tolist())
    return len(mine), auc(np.array(mine), np.array(theirs)) if mine else 0.5


def _union(texts: Iterable[set[int]]) -> set[int]:
    return {token for text in texts for token in text}
