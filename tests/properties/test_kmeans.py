# SPDX-License-Identifier: Apache-2.0
"""k-means on degenerate points, and coding of matrices from other number formats; threads do not change a byte."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from enclave_kit import codebook_layout

from trustformer.errors import MessageError
from trustformer.message import TensorSpec
from trustformer.vq import Array, assign, cluster_means, decode, encode, kmeans


def gaussian(points: int, width: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal((points, width)).astype(np.float32)


def inertia(X_ND: Array, C_KD: Array) -> float:
    return float(np.square(X_ND.astype(np.float64) - C_KD[assign(X_ND, C_KD)]).sum())


@pytest.mark.parametrize("points", [1, 2, 7])
def test_more_clusters_than_points_returns_the_points(points: int) -> None:
    X_ND = gaussian(points, 3)
    C_KD = kmeans(X_ND, 50, np.random.default_rng(0))
    assert sorted(C_KD.tolist()) == sorted(X_ND.tolist())


@pytest.mark.parametrize("value", [0.0, -0.0, 3.5, 1e-30, 1e-44, 1e30])
def test_constant_points_return_themselves(value: float) -> None:
    C_KD = kmeans(np.full((1000, 4), value, np.float32), 8, np.random.default_rng(0))
    np.testing.assert_array_equal(C_KD, np.full((8, 4), value, np.float32))


def test_rare_points_among_duplicates_get_centroids() -> None:
    """All but one point in 25 are zero, as drifts of an embedding are; the rest must not share one centroid."""
    X_ND = gaussian(40_000, 4) * (np.arange(40_000) % 25 == 0)[:, None].astype(np.float32)
    C_KD = kmeans(X_ND, 64, np.random.default_rng(0))
    assert len(np.unique(C_KD, axis=0)) == 64
    assert inertia(X_ND, C_KD) < 0.25 * float(np.square(X_ND, dtype=np.float64).sum())


def test_a_cluster_without_points_has_the_mean_zero_and_keeps_its_centroid_in_kmeans() -> None:
    means_KD, counts_K = cluster_means(np.ones((3, 2), np.float32), np.array([0, 2, 2]), 4)
    assert counts_K.tolist() == [1, 0, 2, 0]
    assert means_KD.tolist() == [[1, 1], [0, 0], [1, 1], [0, 0]]
    X_ND = np.repeat(gaussian(20, 2), [400] + [1] * 19, 0)  # nearly all points are one
    C_KD = kmeans(X_ND, 16, np.random.default_rng(0))
    assert np.isfinite(C_KD).all()
    assert np.abs(C_KD).max() <= np.abs(X_ND).max()


@pytest.mark.parametrize("width", [1, 8, 200])
def test_a_huge_range_neither_overflows_nor_loses_the_largest(width: int) -> None:
    rng = np.random.default_rng(width)
    X_ND = (rng.standard_normal((3000, width)) * 10.0 ** rng.integers(-30, 31, (3000, 1))).astype(np.float32)
    C_KD = kmeans(X_ND, 32, np.random.default_rng(0))
    codes = assign(X_ND, C_KD)
    assert np.isfinite(C_KD).all()
    assert ((codes >= 0) & (codes < 32)).all()
    assert inertia(X_ND, C_KD) < float(np.square(X_ND, dtype=np.float64).sum())


@pytest.mark.parametrize("shift", [-100, -60, 60, 100])
def test_a_power_of_two_moves_through_untouched(shift: int) -> None:
    X_ND = gaussian(2000, 5)
    plain, moved = (kmeans(points, 16, np.random.default_rng(0)) for points in (X_ND, np.ldexp(X_ND, shift)))
    np.testing.assert_array_equal(moved, np.ldexp(plain, shift))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_sources_are_coded_as_their_float32(dtype: torch.dtype) -> None:
    source = torch.from_numpy(gaussian(64, 32)).to(dtype)
    layout = codebook_layout([TensorSpec("w", (64, 32))], 8, 256)
    expressed = decode(layout, encode(layout, {"w": source.float().numpy()}, np.random.default_rng(0)))["w"]
    np.testing.assert_allclose(expressed, source.float().numpy(), rtol=2**-9, atol=1e-6)


def test_float16_arrays_give_the_bytes_of_their_float32() -> None:
    half = gaussian(200, 16).astype(np.float16)
    layout = codebook_layout([TensorSpec("w", half.shape)], 8, 32)
    bodies = {encode(layout, {"w": values}, np.random.default_rng(0)) for values in (half, half.astype(np.float32))}
    assert len(bodies) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_what_may_not_travel_is_refused_by_name_among_good_tensors(bad: float) -> None:
    tensors = {"first": gaussian(16, 16), "second.weight": gaussian(16, 16), "third": gaussian(16, 16)}
    tensors["second.weight"][-1, -1] = bad
    layout = codebook_layout([TensorSpec(name, (16, 16)) for name in tensors], 8, 16)
    with pytest.raises(MessageError, match=r"second\.weight"):
        encode(layout, tensors, np.random.default_rng(0))


_CODES = """
import hashlib, numpy as np
from trustformer.message import Codebook, Group, Layout, TensorSpec
from trustformer.vq import assign, encode, kmeans
digest, rng = hashlib.sha256(), np.random.default_rng(0)
for rows, width, clusters in [(70001, 8, 256), (4099, 16, 1024), (1501, 128, 400), (9000, 3, 5)]:
    points = rng.standard_normal((rows, width)).astype(np.float32)
    centroids = kmeans(points, clusters, np.random.default_rng(1))
    digest.update(centroids.tobytes() + assign(points, centroids).tobytes())
    layout = Layout((Group(Codebook(width, clusters), (TensorSpec("w", points.shape),)),))
    digest.update(encode(layout, {"w": points}, np.random.default_rng(2)))
print(digest.hexdigest())
"""


def test_points_of_any_width_give_the_same_bytes_with_one_and_two_threads() -> None:
    digests = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        run = subprocess.run(
            [sys.executable, "-c", _CODES], env=environment, check=True, capture_output=True, text=True
        )
        digests.add(run.stdout)
    assert len(digests) == 1
