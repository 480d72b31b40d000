# SPDX-License-Identifier: Apache-2.0
"""Which rows of a matrix go together in one exchange: partitions that follow from public state alone.

Public are the run's seed, the number of the exchange, and the history of ē: the sum of all past answers, which is
G - G_0. Whoever holds G can form the same partition, however it came by G.

    random     every row falls into one of K clusters of equal size, drawn anew
    rotating   the next K rows of a fixed shuffle, each alone; ceil(1 / ratio) exchanges in a row name every row
    history    every second exchange: k-means of the rows of G - G_0, so that rows which moved alike share a centroid;
               the others are `rotating`, for what two rows of a cluster do differently would never travel otherwise
    drift      as `rotating`, but rows take turns the more often the more they have moved

`drift`: a row r of D_r entries that gains the energy E_r an exchange and is sent in a share π_r of them has E_r / π_r
outstanding, up to a constant. With Σ π_r D_r fixed, the total is least for π_r in proportion to sqrt(E_r / D_r), the
row's root mean square. About half of the budget is shared out alike, so that rows which have not moved get their turn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trustformer.codec.weights import Weights
from trustformer.message import TensorSpec
from trustformer.vq import assign, kmeans
from trustformer.vq.kmeans import Codes

_UNIT = 2**20
"""Weight of a row that moved not at all. Whole numbers: their sums are the same on every machine."""
_GOLDEN = 0.6180339887498949
_HALVINGS = 64
"""Bisections of the rows a unit of weight gets."""

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Partition:
    """Clusters of the rows of every matrix.

    Attributes:
        labels: cluster of each row, int64 (R,), by matrix; K for rows that wait: they are in no cluster.
        clusters: K by matrix.
    """

    labels: dict[str, Codes]
    clusters: dict[str, int]


def random(matrices: Sequence[TensorSpec], clusters: Mapping[str, int], seed: int, number: int) -> Partition:
    """Clusters of equal size, drawn anew in every exchange."""
    labels = {spec.name: _rng(seed, spec, number).permutation(spec.shape[0]) % clusters[spec.name] for spec in matrices}
    return Partition(labels, dict(clusters))


def rotating(matrices: Sequence[TensorSpec], clusters: Mapping[str, int], seed: int, number: int) -> Partition:
    """K rows alone, the others wait."""
    labels = {}
    for spec in matrices:
        rows, count = spec.shape[0], clusters[spec.name]
        turn = (np.arange(count) + (number - 1) * count) % rows
        labels[spec.name] = _alone(_shuffle(seed, spec)[turn], rows)
    return Partition(labels, dict(clusters))


def history(
    matrices: Sequence[TensorSpec], clusters: Mapping[str, int], seed: int, number: int, past: Weights
) -> Partition:
    """Clusters of rows that moved alike, in every second exchange; `past` is G - G_0."""
    if number % 2:
        return rotating(matrices, clusters, seed, (number + 1) // 2)
    labels = {}
    for spec in matrices:
        rows_RD = past[spec.name].reshape(spec.shape[0], -1)
        labels[spec.name] = assign(rows_RD, kmeans(rows_RD, clusters[spec.name], _rng(seed, spec, number)))
    return Partition(labels, dict(clusters))


def by_drift(
    matrices: Sequence[TensorSpec], clusters: Mapping[str, int], seed: int, number: int, past: Weights
) -> Partition:
    """Rows alone, in turns that come the sooner the more a row moved; `past` is G - G_0.

    All matrices share one budget of entries, that of `clusters`. The first turn is `rotating`: it shows what moves.
    """
    turn = max((-(-spec.shape[0] // clusters[spec.name]) for spec in matrices), default=1)
    if number <= turn:
        return rotating(matrices, clusters, seed, number)
    weights = _row_weights(matrices, past)
    budget = sum(clusters[spec.name] * width(spec) for spec in matrices)
    counts = _shared_out(matrices, {name: int(values.sum()) for name, values in weights.items()}, budget)
    place = ((number - 1) % turn + math.fmod((number - 1) // turn * _GOLDEN, 1.0)) / turn
    labels = {}
    for spec in matrices:
        order_R = _shuffle(seed, spec)
        chosen = order_R[_systematic(weights[spec.name][order_R], counts[spec.name], place)]
        labels[spec.name] = _alone(chosen, spec.shape[0])
    return Partition(labels, counts)


def width(spec: TensorSpec) -> int:
    """Entries of a row."""
    return spec.size // spec.shape[0]


def _row_weights(matrices: Sequence[TensorSpec], past: Weights) -> dict[str, Ints]:
    """How often rows are due, up to a factor: a unit for all, and as much again, on average, by what they moved."""
    moved = {
        spec.name: np.sqrt(np.square(past[spec.name].reshape(spec.shape[0], -1), dtype=np.float64).mean(1))
        for spec in matrices
    }
    entries = sum(spec.size for spec in matrices)
    mean = sum(float(moved[spec.name].sum()) * width(spec) for spec in matrices) / max(1, entries)
    scale = _UNIT / mean if mean > 0 else 0.0
    return {name: _UNIT + np.rint(values * scale).astype(np.int64) for name, values in moved.items()}


def _shared_out(matrices: Sequence[TensorSpec], shares: Mapping[str, int], budget: int) -> dict[str, int]:
    """Divide a budget of entries over matrices by shares: each has from one row to all of its rows."""

    def counts(rate: float) -> dict[str, int]:
        return {spec.name: min(spec.shape[0], max(1, int(rate * shares[spec.name]))) for spec in matrices}

    def cost(rows: Mapping[str, int]) -> int:
        return sum(rows[spec.name] * width(spec) for spec in matrices)

    low, high = 0.0, 1.0  # at a rate of one every matrix has all its rows: no weight is below a unit
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(counts(middle)) <= budget else (low, middle)
    rows = counts(low)
    for spec in matrices:
        left = budget - cost(rows)
        rows[spec.name] += min(spec.shape[0] - rows[spec.name], left // width(spec))
    return rows


def _systematic(weights_R: Ints, count: int, place: float) -> Ints:
    """Choose exactly `count` rows, each with a chance by its weight, at most one.

    Rows lie on a line, each as long as its weight; those are chosen that hold one of `count` marks at equal distances.
    `place`, from 0 to 1, is where between two marks the first one stands.
    """
    chosen: list[int] = []
    rest = np.arange(len(weights_R))
    while True:  # rows longer than the distance of two marks are always due
        left = count - len(chosen)
        long = weights_R[rest] * left >= weights_R[rest].sum()
        if not long.any() or left == 0:
            break
        chosen += rest[long][:left].tolist()
        rest = rest[~long]
    if left:
        ends = np.cumsum(weights_R[rest])
        marks = (np.arange(left) + place) * (int(ends[-1]) / left)
        chosen += rest[np.searchsorted(ends, marks.astype(np.int64), side="right")].tolist()
    return np.array(chosen, np.int64)


def _alone(chosen: Ints, rows: int) -> Codes:
    labels_R = np.full(rows, len(chosen))
    labels_R[chosen] = np.arange(len(chosen))
    return labels_R


def _shuffle(seed: int, spec: TensorSpec) -> Ints:
    return _rng(seed, spec).permutation(spec.shape[0])


def _rng(seed: int, spec: TensorSpec, number: int = 0) -> np.random.Generator:
    return np.random.default_rng([seed, number, *spec.name.encode()])
