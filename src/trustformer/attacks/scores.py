# SPDX-License-Identifier: Apache-2.0
"""How well a score tells positives from negatives, with bootstrap intervals, and beside chance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FALSE_POSITIVES = 0.01
_SAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Separation:
    """Area under the ROC curve (chance: 0.5) and true positives at 1 % false ones (chance: 0.01)."""

    auc: Interval
    tpr: Interval


def auc(positives: Floats, negatives: Floats) -> float:
    """Return the chance that a positive scores higher than a negative; ties count one half."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, "left") + np.searchsorted(ordered, positives, "right")
    return float(below.mean() / (2 * len(negatives)))


def true_positives(positives: Floats, negatives: Floats) -> float:
    """Return the share of positives above a threshold that at most 1 % of the negatives exceed."""
    allowed = int(FALSE_POSITIVES * len(negatives))
    threshold = np.sort(negatives)[len(negatives) - 1 - allowed]
    return float((positives > threshold).mean())


def separation(positives: Floats, negatives: Floats, rng: np.random.Generator) -> Separation:
    """Return both figures with intervals from resampling positives and negatives apart."""
    samples = [(rng.choice(positives, len(positives)), rng.choice(negatives, len(negatives))) for _ in range(_SAMPLES)]
    figures = []
    for figure in (auc, true_positives):
        low, high = np.quantile([figure(*sample) for sample in samples], [0.025, 0.975])
        figures.append(Interval(figure(positives, negatives), float(low), float(high)))
    return Separation(*figures)


@dataclass(frozen=True)
class Ranking:
    """How a ranking of the vocabulary finds the tokens of a text.

    Attributes:
        tokens: distinct tokens of the text.
        found: share of them among as many first of the ranking.
        auc: over the vocabulary.
    """

    tokens: int
    found: float
    auc: float


def ranking(score_V: Floats, present: set[int], ignored: set[int]) -> Ranking:
    """Compare a score, higher for tokens more likely in the text, with the truth; `ignored` ids count nowhere.

    Some of the other tokens must be in the text, and some not. Of tokens that tie for the last places among the first
    of the ranking, `found` counts the expected share.
    """
    considered = np.array([i for i in range(len(score_V)) if i not in ignored])
    truth = np.isin(considered, list(present))
    scores = score_V[considered]
    count = int(truth.sum())
    threshold = np.sort(scores)[-count]
    above, tied = scores > threshold, scores == threshold
    found = truth[above].sum() + (count - above.sum()) * truth[tied].sum() / tied.sum()
    return Ranking(count, float(found / count), auc(scores[truth], scores[~truth]))
