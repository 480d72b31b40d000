# SPDX-License-Identifier: Apache-2.0
"""Lloyd's k-means with k-means++ seeding (Arthur and Vassilvitskii, 2007), bit-reproducible.

Shapes: N points, D entries a point, K clusters. All arithmetic runs over fixed blocks of points and sums
in float64 in point order, so that the number of threads does not change a byte of the result.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int64]

_BLOCK = 4096
"""Points per matrix product: 4096 x 256 distances are 4 MiB and stay in the cache."""
_SAMPLE_PER_CLUSTER = 64
"""Lloyd steps run on at most so many points a cluster, so that their cost does not grow with the model. It costs
inertia: the tests allow 5 % on Gaussian points; on long tails it is more."""


def assign(X_ND: Array, C_KD: Array) -> Codes:
    """Return the index of the nearest centroid of each point, int64 of shape (N,); ties go to the lowest."""
    half_K = 0.5 * np.einsum("kd,kd->k", C_KD, C_KD)
    C_DK = np.ascontiguousarray(C_KD.T)
    codes = np.empty(len(X_ND), np.int64)
    for start in range(0, len(X_ND), _BLOCK):
        scores_BK = X_ND[start : start + _BLOCK] @ C_DK
        scores_BK -= half_K
        codes[start : start + _BLOCK] = scores_BK.argmax(1)
    return codes


def cluster_means(X_ND: Array, codes: Codes, n_clusters: int) -> tuple[Array, Codes]:
    """Return the mean of each cluster, float32 (K, D), and the number of points in each, (K,); empty ones are zero."""
    counts_K = np.bincount(codes, minlength=n_clusters)
    means_KD: npt.NDArray[np.float64] = np.empty((n_clusters, X_ND.shape[1]))
    for column in range(X_ND.shape[1]):
        means_KD[:, column] = np.bincount(codes, X_ND[:, column], n_clusters)
    means_KD /= np.maximum(counts_K, 1)[:, None]
    return means_KD.astype(np.float32), counts_K


def _plus_plus(X_ND: Array, n_clusters: int, rng: np.random.Generator) -> Array:
    """Pick initial centroids: each next one with probability proportional to squared distance."""
    C_KD = np.empty((n_clusters, X_ND.shape[1]), np.float32)
    nearest_N = np.full(len(X_ND), np.inf, np.float32)
    mass_N: npt.NDArray[np.float64] = np.ones(len(X_ND))
    for k in range(n_clusters):
        cumulative_N = np.cumsum(mass_N)
        if cumulative_N[-1] <= 0:  # fewer distinct points than clusters: repeat any
            C_KD[k:] = X_ND[0]
            break
        draw = rng.random() * cumulative_N[-1]
        C_KD[k] = X_ND[min(int(np.searchsorted(cumulative_N, draw, side="right")), len(X_ND) - 1)]
        difference_ND = X_ND - C_KD[k]
        np.minimum(nearest_N, np.einsum("nd,nd->n", difference_ND, difference_ND), out=nearest_N)
        mass_N = nearest_N.astype(np.float64)
    return C_KD


def _distinct(X_ND: Array, n_clusters: int) -> Array | None:
    """Return the distinct points if there are at most K of them, else None.

    Points are compared by a 64-bit hash of their bits first, since sorting N numbers is far cheaper than
    sorting N rows; the result is then checked exactly.
    """
    odd_D = np.random.default_rng(0).integers(0, 2**63, X_ND.shape[1], dtype=np.uint64) * 2 + 1
    hashes_N = np.empty(len(X_ND), np.uint64)
    for start in range(0, len(X_ND), _BLOCK):
        bits = (X_ND[start : start + _BLOCK] + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0
        hashes_N[start : start + _BLOCK] = bits.astype(np.uint64) @ odd_D
    if len(np.unique(hashes_N)) > n_clusters:
        return None
    _, first, inverse = np.unique(hashes_N, return_index=True, return_inverse=True)
    points = X_ND[first]
    return points if np.array_equal(points[inverse], X_ND) else None


def kmeans(X_ND: Array, n_clusters: int, rng: np.random.Generator, *, max_iter: int = 12) -> Array:
    """Return centroids, float32 of shape (min(K, N), D).

    At most K distinct points are returned exactly. Lloyd steps stop after `max_iter` or when no assignment
    changes; a cluster that became empty keeps its centroid.

    Args:
        X_ND: finite float32 points, N >= 1.
        n_clusters: K >= 1; more clusters than points are cut to N.
        rng: the only source of randomness.
        max_iter: upper bound of Lloyd steps.
    """
    n_clusters = min(n_clusters, len(X_ND))
    distinct = _distinct(X_ND, n_clusters)
    if distinct is not None:
        filler = np.repeat(distinct[:1], n_clusters - len(distinct), 0)
        return np.concatenate([distinct, filler])
    if len(X_ND) > _SAMPLE_PER_CLUSTER * n_clusters:
        chosen = np.sort(rng.choice(len(X_ND), _SAMPLE_PER_CLUSTER * n_clusters, replace=False))
        X_ND = X_ND[chosen]
    C_KD = _plus_plus(X_ND, n_clusters, rng)
    codes = None
    for _ in range(max_iter):
        previous, codes = codes, assign(X_ND, C_KD)
        if previous is not None and np.array_equal(previous, codes):
            break
        means_KD, counts_K = cluster_means(X_ND, codes, n_clusters)
        C_KD[counts_K > 0] = means_KD[counts_K > 0]
    return C_KD
