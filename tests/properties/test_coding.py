# SPDX-License-Identifier: Apache-2.0
"""What coding to a body and back keeps, for any tensors; and that threads do not change a byte."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from enclave_kit import codebook_layout
from hypothesis import given, settings
from hypothesis import strategies as st

from trustformer.codec.weights import dense_layout
from trustformer.errors import MessageError
from trustformer.message import TensorSpec
from trustformer.vq import Array, assign, body_size, cluster_means, decode, encode, kmeans

HALF = 2.0**-11
"""Half a unit in the last place of fp16, relative."""
TINY_HALF = 2.0**-25
"""Half the smallest step of fp16, absolute."""


def coded(layout_tensors: dict[str, Array], block: int, clusters: int, seed: int = 0) -> dict[str, Array]:
    specs = [TensorSpec(name, values.shape) for name, values in layout_tensors.items()]
    layout = codebook_layout(specs, block, clusters)
    body = encode(layout, layout_tensors, np.random.default_rng(seed))
    assert len(body) == body_size(layout)
    return decode(layout, body)


def assert_same_to_fp16(left: dict[str, Array], right: dict[str, Array]) -> None:
    entries = np.concatenate([values.reshape(-1) for values in left.values()])
    scale = np.sqrt(np.mean(np.square(entries, dtype=np.float64)))
    for name, values in left.items():
        error = np.abs(values.astype(np.float64) - right[name])
        assert (error <= 2 * HALF * np.abs(values) + scale * TINY_HALF).all(), name


@st.composite
def few_blocks(draw: st.DrawFn) -> tuple[dict[str, Array], int, int]:
    """Tensors that consist of at most K distinct blocks together, of any size and one scale."""
    block = draw(st.integers(1, 9))
    clusters = draw(st.integers(1, 20))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, min(3, clusters)))
    scale = np.float32(10.0 ** draw(st.integers(-12, 0)))
    tensors = {}
    for index in range(count):
        distinct = rng.standard_normal((clusters // count, block)).astype(np.float32)
        size = draw(st.integers(1, 300))
        if size % block:  # the block cut short at the end is one more distinct block
            distinct = distinct[: max(1, clusters // count - 1)]
        if size % block and clusters // count < 2:
            size += block - size % block
        codes = rng.integers(0, len(distinct), -(-size // block))
        tensors[f"t{index}"] = distinct[codes].reshape(-1)[:size] * scale
    return tensors, block, clusters


@given(few_blocks())
@settings(max_examples=120, deadline=None)
def test_at_most_k_distinct_blocks_come_back_exactly(case: tuple[dict[str, Array], int, int]) -> None:
    tensors, block, clusters = case
    assert_same_to_fp16(tensors, coded(tensors, block, clusters))


@pytest.mark.parametrize("clusters", [1, 2, 3, 5, 255, 256, 257])
def test_distinct_blocks_come_back_exactly_from_far_more_points_than_the_sample(clusters: int) -> None:
    rng = np.random.default_rng(clusters)
    distinct = rng.standard_normal((clusters, 2)).astype(np.float32)
    codes = np.concatenate([np.zeros(80 * clusters, np.int64), rng.permutation(clusters)])  # most occur once
    tensors = {"t": distinct[codes]}
    assert_same_to_fp16(tensors, coded(tensors, 2, clusters))


def test_equal_blocks_of_tensors_with_equal_scale_share_centroids() -> None:
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((8, 4)).astype(np.float32)
    tensors = {"a": distinct[rng.permutation(8)], "b": distinct[rng.permutation(8)]}
    assert_same_to_fp16(tensors, coded(tensors, 4, 8))


@pytest.mark.parametrize("value", [0.0, 1.0, -32.0, 32.0, 1e-30, 1e-38, 0.1])
@pytest.mark.parametrize(("block", "clusters"), [(4, 8), (1, 1), (64, 300), (1000, 3)])
def test_constant_tensors_come_back(value: float, block: int, clusters: int) -> None:
    tensors = {"t": np.full((8, 16), value, np.float32)}
    assert_same_to_fp16(tensors, coded(tensors, block, clusters))


@pytest.mark.parametrize("scale", [1e-18, 1e-21, 1e-24, 1e-30, 1e-36])
def test_tiny_drifts_are_not_lost_to_underflow(scale: float) -> None:
    rng = np.random.default_rng(1)
    tensors = {"t": (rng.standard_normal((6, 4)) * scale).astype(np.float32)}
    assert_same_to_fp16(tensors, coded(tensors, 4, 6))


def test_scale_does_not_change_what_is_expressed() -> None:
    """A power of two moves through coding untouched, down to where squares of fp32 underflow."""
    rng = np.random.default_rng(2)
    values = {
        name: rng.standard_normal((30, 8)).astype(np.float32) * np.float32(size)
        for name, size in zip("ab", (1, 0.3), strict=True)
    }
    plain = coded(values, 4, 5)
    for shift in (-20, -60, -90, -110):
        moved = coded({name: np.ldexp(tensor, shift) for name, tensor in values.items()}, 4, 5)
        for name, tensor in plain.items():
            np.testing.assert_array_equal(moved[name], np.ldexp(tensor, shift))


def test_a_block_larger_than_its_tensor_comes_back() -> None:
    rng = np.random.default_rng(3)
    tensors = {name: rng.standard_normal(size).astype(np.float32) for name, size in zip("abc", (1, 3, 7), strict=True)}
    assert_same_to_fp16(tensors, coded(tensors, 16, 3))


def test_zero_beside_a_huge_range_comes_back() -> None:
    values = np.zeros((64, 4), np.float32)
    values[7] = [32.0, 1e-30, -1e-3, 0.0]
    tensors = {"t": values, "zero": np.zeros(9, np.float32)}
    result = coded(tensors, 4, 3)
    assert_same_to_fp16(tensors, result)
    assert not result["zero"].any()


@st.composite
def any_tensors(draw: st.DrawFn) -> tuple[dict[str, Array], int, int]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    tensors = {}
    for index in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(st.integers(1, 12), min_size=1, max_size=3)))
        values = rng.standard_normal(shape) * 10.0 ** draw(st.integers(-9, 0))
        if draw(st.booleans()):  # a few entries far larger than the rest
            values *= np.where(rng.random(shape) < 0.05, 6.0, 1e-3)
        tensors[f"t{index}"] = values.astype(np.float32)
    return tensors, draw(st.integers(1, 13)), draw(st.integers(1, 40))


@given(any_tensors())
@settings(max_examples=120, deadline=None)
def test_what_is_expressed_never_leaves_more_than_there_was(case: tuple[dict[str, Array], int, int]) -> None:
    tensors, block, clusters = case
    result = coded(tensors, block, clusters)
    whole = sum(np.square(values, dtype=np.float64).sum() for values in tensors.values())
    left = sum(np.square(values.astype(np.float64) - result[name]).sum() for name, values in tensors.items())
    assert np.sqrt(left) <= np.sqrt(whole) * (1 + 2 * HALF)


@given(any_tensors(), st.sampled_from(["float16", "float32"]))
@settings(max_examples=60, deadline=None)
def test_dense_bodies_round_once(case: tuple[dict[str, Array], int, int], dtype: str) -> None:
    tensors = case[0]
    layout = dense_layout([TensorSpec(name, values.shape) for name, values in tensors.items()], dtype)
    result = decode(layout, encode(layout, tensors, np.random.default_rng(0)))
    for name, values in tensors.items():
        np.testing.assert_array_equal(result[name], values.astype(dtype).astype(np.float32))


@given(st.integers(1, 300), st.integers(1, 600), st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_length_of_a_body_depends_on_the_layout_alone(rows: int, clusters: int, block: int, seed: int) -> None:
    layout = codebook_layout([TensorSpec("t", (rows, 3))], block, clusters)
    zero, drawn = np.zeros((rows, 3), np.float32), np.random.default_rng(seed).random((rows, 3), np.float32)
    for values in (zero, drawn):
        assert len(encode(layout, {"t": values}, np.random.default_rng(0))) == body_size(layout)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 32.1, -1e38])
@pytest.mark.parametrize("block", [0, 4])
def test_entries_that_may_not_travel_are_refused_by_name(bad: float, block: int) -> None:
    values = np.ones((4, 5), np.float32)
    values[2, 3] = bad
    spec = [TensorSpec("encoder.w", (4, 5))]
    with pytest.raises(MessageError, match=r"encoder\.w"):
        encode(
            codebook_layout(spec, block, 2) if block else dense_layout(spec),
            {"encoder.w": values},
            np.random.default_rng(0),
        )


def test_a_tensor_of_another_shape_is_refused_by_name() -> None:
    with pytest.raises(MessageError, match="'t' has the shape"):
        encode(dense_layout([TensorSpec("t", (2, 3))]), {"t": np.zeros((3, 2), np.float32)}, np.random.default_rng(0))


# ---- k-means ----


def inertia(X_ND: Array, C_KD: Array) -> float:
    distances_NK = np.square(X_ND[:, None, :].astype(np.float64) - C_KD[None]).sum(2)
    return float(distances_NK.min(1).sum())


def reference_lloyd(X_ND: Array, C_KD: Array, steps: int) -> Array:
    """Lloyd's algorithm in the plainest form, in double precision."""
    C_KD = C_KD.astype(np.float64)
    for _ in range(steps):
        codes = np.square(X_ND[:, None, :] - C_KD[None]).sum(2).argmin(1)
        for k in range(len(C_KD)):
            mine = codes == k
            if mine.any():
                C_KD[k] = X_ND[mine].mean(0)
    return C_KD


@pytest.mark.parametrize(
    ("points", "clusters", "tail", "worse"),
    [(700, 12, 1.0, 1.02), (3000, 8, 0.0, 1.05), (3000, 8, 0.5, 1.15)],
    ids=["all points", "a sample", "a sample, long tails"],
)
def test_inertia_is_near_that_of_a_reference_lloyd(points: int, clusters: int, tail: float, worse: float) -> None:
    """Mean over five seeds against 40 plain steps from random points; 3000 points are more than the sample."""
    rng = np.random.default_rng(5)
    X_ND = (rng.standard_normal((points, 4)) * rng.lognormal(sigma=tail, size=(points, 1))).astype(np.float32)
    ours, theirs = [], []
    for seed in range(5):
        C_KD = kmeans(X_ND, clusters, np.random.default_rng(seed))
        C_KD, _ = cluster_means(X_ND, assign(X_ND, C_KD), clusters)
        ours.append(inertia(X_ND, C_KD))
        first = X_ND[np.random.default_rng(seed).choice(points, clusters, replace=False)]
        theirs.append(inertia(X_ND, reference_lloyd(X_ND, first, 40)))
    assert np.mean(ours) <= worse * np.mean(theirs)


def test_points_go_to_the_nearest_centroid_and_ties_to_the_lowest() -> None:
    rng = np.random.default_rng(0)
    X_ND, C_KD = rng.integers(-4, 5, (9000, 3)).astype(np.float32), rng.integers(-4, 5, (20, 3)).astype(np.float32)
    expected = np.square(X_ND[:, None] - C_KD[None]).sum(2).argmin(1)
    np.testing.assert_array_equal(assign(X_ND, C_KD), expected)


def test_kmeans_repeats_itself_bit_for_bit_and_cuts_clusters_to_points() -> None:
    X_ND = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    one, two = (kmeans(X_ND, 16, np.random.default_rng(9)) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    assert kmeans(X_ND[:5], 16, np.random.default_rng(0)).shape == (5, 4)


# ---- threads ----

_ANSWER = """
import hashlib, sys
import numpy as np
from trustformer.aggregation import WeightedMean
from trustformer.message import Codebook, Dense, Group, Layout, TensorSpec
from trustformer.vq import encode
specs = (TensorSpec("w", (512, 300)), TensorSpec("v", (300, 512)))
layout = Layout((Group(Codebook(8, 256), specs), Group(Dense("float16"), (TensorSpec("b", (999,)),))))
mean = WeightedMean(layout, 0.6, clients=3)
for client in range(2):
    rng = np.random.default_rng(client)
    drift = {spec.name: (rng.standard_normal(spec.shape) * 0.01).astype(np.float32) for spec in layout.tensors}
    mean.add(10 + client, encode(layout, drift, rng))
print(hashlib.sha256(encode(layout, mean.result(), np.random.default_rng(0))).hexdigest())
"""


def test_number_of_threads_does_not_change_a_byte() -> None:
    answers = set()
    for threads in ("1", "2"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-c", _ANSWER]
        answers.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(answers) == 1


def test_what_was_decoded_is_coded_again_exactly() -> None:
    """An answer to one client, or to equal ones, expresses their update as it is, whatever the tensors' scales."""
    rng = np.random.default_rng(4)
    tensors = {
        name: (rng.standard_normal((40, 16)) * scale).astype(np.float32)
        for name, scale in zip("abc", (1.0, 0.01, 3.0), strict=True)
    }
    once = coded(tensors, 8, 16)
    assert_same_to_fp16(once, coded(once, 8, 16, seed=1))


# ---- a message is as long as what it describes ----


@given(seed=st.integers(0, 2**32), block=st.sampled_from([2, 4, 16]), clusters=st.sampled_from([2, 16, 64]))
@settings(max_examples=30, deadline=None)
def test_a_message_is_as_long_as_what_it_describes_or_half_as_long_again_as_its_means(
    seed: int, block: int, clusters: int
) -> None:
    x = {"w": np.random.default_rng(seed).standard_normal((64, 32)).astype(np.float32)}
    y = coded(x, block, clusters, seed)
    energy, sent = (float(np.square(t["w"], dtype=np.float64).sum()) for t in (x, y))
    along = float(np.dot(x["w"].ravel().astype(np.float64), y["w"].ravel())) / energy  # g f, of a message with gain g
    share = max(along**2 * energy / sent, 1e-12)  # f, since |y|² = g² f |x|²
    gain = min(share**-0.5, 1.5)
    assert along == pytest.approx(gain * share, rel=2e-3)
    left = float(np.square(x["w"] - y["w"], dtype=np.float64).sum()) / energy
    assert left == pytest.approx(1 - share * (2 * gain - gain**2), rel=5e-3, abs=1e-3)
    assert left < 1


def test_the_gain_never_lifts_an_entry_over_what_may_travel() -> None:
    x = {"w": np.full((64, 32), 20.0, np.float32)}
    x["w"][::2] = 31.9
    x["w"][::4, ::3] = -31.9
    assert np.abs(coded(x, 16, 2)["w"]).max() <= 32.0 * (1 + 2**-9)


def test_entries_too_small_for_a_scale_are_as_zero() -> None:
    values = np.zeros((100, 100), np.float32)
    values[3, 4] = 1.5e-45
    assert not coded({"t": values}, 4, 16)["t"].any()
