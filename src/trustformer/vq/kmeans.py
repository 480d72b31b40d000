# SPDX-License-Identifier: Apache-2.0
"""Lloyd's k-means on a growing sample, bit-reproducible.

Shapes: N points, D entries a point, K clusters. All arithmetic runs over fixed blocks of points and sums
in float64 in point order, so that the number of threads does not change a byte of the result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]
Nearest = Callable[[Array, Array], Codes]
"""Gives the index of the nearest centroid of each point, as `assign` does: most of the work of k-means."""

_SCORES = 2**20
"""Scores worked on at a time: 4 MiB. A core's own cache holds an eighth of it, but then threads wait for Python's
lock: a fifth slower on two, no faster on one. Wide points, in one product of many, go faster in fewer."""
_SERIAL = 2**18
"""Multiplications up to which OpenBLAS uses one thread. Threads gain little on products so thin, and where cores are
shared they cost up to ten times the time, waiting for each other. Wider points go in one product of many."""
_WIDE_SCORES = 2**18
_POINTS = 2**14
"""Points in one block of sums and of hashes."""
_STEPS = 12
"""Lloyd steps, at most: those on one sample end early when no assignment changes."""
_STAGES = (16, 64, 256)
"""Points a cluster in the samples of the Lloyd steps, each a third of them. On drifts of real training this takes half
of the time of all steps on the largest sample and captures 0.003 less energy, but 0.006 more than 64 points alone.
Initial centroids come from the second: a sixteenth misses the rare points of sparse drifts."""


def assign(X_ND: Array, C_KD: Array) -> Codes:
    """Return the index of the nearest centroid of each point, int64 of shape (N,); ties go to the lowest.

    Nearest is the largest x.c - |c|²/2, one matrix product for a point with a one appended. Dividing all by a
    power of two near the largest entry keeps squares from overflowing and changes no bit that matters beside it.
    """
    n_points, width = X_ND.shape
    largest = max(X_ND.max(), -X_ND.min(), np.abs(C_KD).max())
    scale = np.float32(2.0 ** -np.clip(np.frexp(largest)[1], -126, 126))
    weights_DK = np.empty((width + 1, len(C_KD)), np.float32)
    np.multiply(C_KD.T, scale, out=weights_DK[:-1])
    weights_DK[-1] = -0.5 * np.einsum("dk,dk->k", weights_DK[:-1], weights_DK[:-1])
    rows = _SERIAL // weights_DK.size
    if rows >= 8:
        rows -= rows % 8
        stack = max(1, min(-(-n_points // rows), _SCORES // (rows * max(weights_DK.shape))))
    else:
        rows, stack = max(1, min(n_points, _WIDE_SCORES // len(C_KD))), 1
    points_SRD = np.ones((stack, rows, width + 1), np.float32)
    scores_SRK = np.empty((stack, rows, len(C_KD)), np.float32)
    points_BD, scores_BK = points_SRD.reshape(-1, width + 1), scores_SRK.reshape(-1, len(C_KD))
    codes = np.empty(n_points, np.int64)
    for start in range(0, n_points, len(points_BD)):
        count = min(len(points_BD), n_points - start)
        used = -(-count // rows)
        np.multiply(X_ND[start : start + count], scale, out=points_BD[:count, :-1])
        np.matmul(points_SRD[:used], weights_DK, out=scores_SRK[:used])
        scores_BK[:count].argmax(1, out=codes[start : start + count])
    return codes


def cluster_means(X_ND: Array, codes: Codes, n_clusters: int) -> tuple[Array, Codes]:
    """Return the mean of each cluster, float32 (K, D), and the number of points in each, (K,); empty ones are zero."""
    sums_DK: npt.NDArray[np.float64] = np.zeros((X_ND.shape[1], n_clusters))
    for start in range(0, len(X_ND), _POINTS):
        mine = codes[start : start + _POINTS]
        for sums_K, column in zip(sums_DK, X_ND[start : start + _POINTS].T, strict=True):
            sums_K += np.bincount(mine, column, n_clusters)
    counts_K = np.bincount(codes, minlength=n_clusters)
    return (sums_DK / np.maximum(counts_K, 1)).T.astype(np.float32, order="C"), counts_K


def _seeds(X_ND: Array, n_clusters: int, rng: np.random.Generator, nearest: Nearest) -> Array:
    """Pick initial centroids as k-means++ (Arthur and Vassilvitskii, 2007), but in rounds.

    Each round draws as many points as there are centroids, systematically and with probability proportional to the
    squared distance: log2(K) passes in place of K, as in k-means|| (Bahmani et al., 2012) without oversampling.
    """
    C_KD = X_ND[rng.integers(len(X_ND), size=1)]
    fresh_KD, closest_N = C_KD, np.full(len(X_ND), np.inf)
    while len(C_KD) < n_clusters:
        difference_ND = X_ND - fresh_KD[nearest(X_ND, fresh_KD)]
        squares_N = np.einsum("nd,nd->n", difference_ND, difference_ND, dtype=np.float64)
        np.minimum(closest_N, squares_N, out=closest_N)
        mass_N = np.cumsum(closest_N)
        missing = n_clusters - len(C_KD)
        if mass_N[-1] <= 0:  # fewer distinct points than clusters: repeat any
            return np.concatenate([C_KD, np.repeat(C_KD[:1], missing, 0)])
        count = min(len(C_KD), missing)
        draws = (np.arange(count) + rng.random(count)) * (mass_N[-1] / count)
        fresh_KD = X_ND[np.unique(np.searchsorted(mass_N, draws, side="right").clip(max=len(X_ND) - 1))]
        C_KD = np.concatenate([C_KD, fresh_KD])
    return C_KD


def _hashes(X_ND: Array) -> npt.NDArray[np.uint64]:
    """64 bits of each point; equal for equal points, -0.0 being 0.0."""
    odd_D = np.random.default_rng(0).integers(0, 2**63, X_ND.shape[1], dtype=np.uint64) * 2 + 1
    return (X_ND + np.float32(0)).view(np.uint32).astype(np.uint64) @ odd_D


def _distinct(X_ND: Array, n_clusters: int) -> Array | None:
    """Return the distinct points if there are at most K of them, else None, mostly after the first block.

    Points are found by their hash; the result is then checked exactly.
    """
    blocks = [X_ND[start : start + _POINTS] for start in range(0, len(X_ND), _POINTS)]
    found: dict[int, Array] = {}
    for block in blocks:
        hashes, first = np.unique(_hashes(block), return_index=True)
        found = dict(zip(hashes.tolist(), block[first], strict=True)) | found
        if len(found) > n_clusters:
            return None
    keys, points = np.array(sorted(found), np.uint64), np.array([found[key] for key in sorted(found)])
    exact = all(np.array_equal(points[np.searchsorted(keys, _hashes(block))], block) for block in blocks)
    return points if exact else None


def kmeans(X_ND: Array, n_clusters: int, rng: np.random.Generator, nearest: Nearest = assign) -> Array:
    """Return centroids, float32 of shape (min(K, N), D).

    At most K distinct points are returned exactly. A cluster that became empty keeps its centroid.

    Args:
        X_ND: finite float32 points, N >= 1.
        n_clusters: K >= 1; more clusters than points are cut to N.
        rng: the only source of randomness.
        nearest: the search for the nearest centroid; another one may run on another device.
    """
    n_clusters = min(n_clusters, len(X_ND))
    distinct = _distinct(X_ND, n_clusters)
    if distinct is not None:
        return np.concatenate([distinct, np.repeat(distinct[:1], n_clusters - len(distinct), 0)])
    X_ND = X_ND[rng.choice(len(X_ND), min(len(X_ND), _STAGES[-1] * n_clusters), replace=False)]
    sizes = sorted({min(len(X_ND), points * n_clusters) for points in _STAGES})
    C_KD = _seeds(X_ND[: _STAGES[1] * n_clusters], n_clusters, rng, nearest)
    for stage, size in enumerate(sizes):
        codes: Codes | None = None
        for _ in range(stage, _STEPS, len(sizes)):
            previous, codes = codes, nearest(X_ND[:size], C_KD)
            if previous is not None and np.array_equal(previous, codes):
                break
            means_KD, counts_K = cluster_means(X_ND[:size], codes, n_clusters)
            C_KD[counts_K > 0] = means_KD[counts_K > 0]
    return C_KD
