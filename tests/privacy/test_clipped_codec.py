# SPDX-License-Identifier: Apache-2.0
"""Clipped messages: the decoded norm is what is bounded; noise of a client; what stays with it."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustformer.aggregation import PrivateMean
from trustformer.codec.clipped import ClippedCodec, clipped, norm
from trustformer.codec.drift import DriftCodec
from trustformer.codec.rates import rated_layout
from trustformer.codec.weights import Weights, dense_layout
from trustformer.message import Codebook, Layout, TensorSpec
from trustformer.vq import decode

SPECS = (TensorSpec("w", (24, 16)), TensorSpec("v", (16, 12)), TensorSpec("b", (33,)))
LAYOUTS = {
    "fp32": dense_layout(SPECS),
    "fp16": dense_layout(SPECS, "float16"),
    "codebook": rated_layout(SPECS, Codebook(4, 16)),
    "every block its own": rated_layout(SPECS, Codebook(4, 256)),
}
COMMON = {spec.name: np.full(spec.shape, 0.25, np.float32) for spec in SPECS}


def weights(seed: int, size: float, only: str = "") -> Weights:
    rng = np.random.default_rng(seed)
    drift = {s.name: rng.standard_normal(s.shape).astype(np.float32) * (s.name == only or not only) for s in SPECS}
    scale = np.float32(size / norm(drift))
    return {name: COMMON[name] + values * scale for name, values in drift.items()}


def sent(layout: Layout, limit: float, client: Weights) -> Weights:
    codec = ClippedCodec(layout, layout, limit)
    return decode(layout, codec.encode(client, COMMON, np.random.default_rng(3)))


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(sorted(LAYOUTS)),
    size=st.floats(1e-3, 500),
    limit=st.sampled_from([0.001, 0.3, 1.0, 7.0]),
)
def test_no_decoded_message_exceeds_the_norm(seed: int, kind: str, size: float, limit: float) -> None:
    assert norm(sent(LAYOUTS[kind], limit, weights(seed, size))) <= limit


@pytest.mark.parametrize("kind", ["fp32", "fp16", "every block its own"])
def test_a_large_drift_comes_out_at_the_norm_in_its_own_direction(kind: str) -> None:
    client = weights(1, 40.0)
    message = sent(LAYOUTS[kind], 0.5, client)
    assert 0.5 * (1 - 2**-8) < norm(message) <= 0.5
    for name, values in message.items():
        np.testing.assert_allclose(values, (client[name] - COMMON[name]) / 80, atol=2e-4)


def test_a_small_drift_is_coded_as_without_clipping() -> None:
    client = weights(1, 0.4)
    for layout in LAYOUTS.values():
        bodies = [
            codec.encode(client, COMMON, np.random.default_rng(3))
            for codec in (DriftCodec(layout, layout), ClippedCodec(layout, layout, 0.5))
        ]
        assert bodies[0] == bodies[1]


@pytest.mark.parametrize("only", ["w", "b"])
def test_every_tensor_counts(only: str) -> None:
    message = sent(LAYOUTS["every block its own"], 1.0, weights(2, 9.0, only))
    assert norm({only: message[only]}) == pytest.approx(norm(message), rel=1e-6)
    assert norm(message) <= 1.0


@given(
    seed=st.integers(0, 2**31),
    limit=st.floats(1e-3, 1e6),
    times=st.floats(1, 1e6),
    size=st.sampled_from([1, 7, 5000]),
)
def test_what_is_clipped_never_exceeds_the_norm(seed: int, limit: float, times: float, size: int) -> None:
    """Not by a rounding either: noise is measured by it."""
    values = np.random.default_rng(seed).standard_normal(size).astype(np.float32)
    values *= np.float32(limit * times / norm({"w": values}))
    assert norm(clipped({"w": values}, limit)) <= limit


def test_clipping_is_exact() -> None:
    drift = {name: values - COMMON[name] for name, values in weights(5, 3.0).items()}
    small = clipped(drift, 1.5)
    assert norm(small) == pytest.approx(1.5, rel=1e-6)
    np.testing.assert_allclose(small["w"], drift["w"] / 2, rtol=1e-5)
    assert clipped(drift, 3.1) is drift


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), kind=st.sampled_from(sorted(LAYOUTS)), size=st.floats(0.01, 300))
def test_neighbouring_cohorts_differ_by_at_most_the_norm(seed: int, kind: str, size: float) -> None:
    """From weights to the sum in the enclave: one client more, however large its drift, moves it by at most 0.7."""
    layout = LAYOUTS[kind]
    codec = ClippedCodec(layout, layout, 0.7)
    bodies = [codec.encode(weights(seed + k, size * (1 + k)), COMMON, np.random.default_rng(3)) for k in range(4)]
    sums = []
    for cohort in (bodies, bodies[:-1]):
        mean = PrivateMean(layout, 1.0, 0.0, 0.7)
        for body in cohort:
            mean.add(5, body)
        sums.append(mean.result())
    entries = layout.entries
    assert norm({name: sums[0][name] - sums[1][name] for name in sums[0]}) <= 0.7 + np.sqrt(entries) * 2.0**-22


# ---- noise of a client ----

WIDE = (TensorSpec("w", (400, 300)),)


def noises(std: float) -> np.ndarray:
    layout = dense_layout(WIDE)
    zero = {"w": np.zeros((400, 300), np.float32)}
    codec = ClippedCodec(layout, layout, 1.0, std)
    return decode(layout, codec.encode(zero, zero, np.random.default_rng(3)))["w"].reshape(-1)


def test_the_noise_of_a_client_has_the_scale_asked_for_and_is_drawn_anew() -> None:
    first, second = noises(0.8), noises(0.8)
    for values in (first, second, (first - second) / np.sqrt(2)):
        z = values / 0.8
        assert abs(z.std() - 1) < 6 / np.sqrt(2 * z.size)  # half the noise would be 240 of these away
        assert abs(z.mean()) < 6 / np.sqrt(z.size)
        for share, at in ((0.158655, -1), (0.841345, 1), (0.97725, 2)):
            assert abs((z < at).mean() - share) < 6 * np.sqrt(share * (1 - share) / z.size)


def test_the_noise_of_every_entry_comes_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, system = [], os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or system(count))
    assert sum(asked) == 0
    assert len(noises(0.8)) * 8 <= sum(asked)


def test_what_is_noised_is_the_clipped_drift() -> None:
    layout = dense_layout(SPECS)
    client = weights(4, 1e5)
    codec = ClippedCodec(layout, layout, 2.0, 1e-6)
    message = decode(layout, codec.encode(client, COMMON, np.random.default_rng(3)))
    assert norm(message) == pytest.approx(2.0, rel=1e-3)


# ---- what stays ----


def test_what_a_message_did_not_express_stays_or_is_dropped() -> None:
    layout = LAYOUTS["codebook"]
    client = weights(6, 3.0)
    own = ClippedCodec(layout, layout, 0.5).encode(client, COMMON, np.random.default_rng(3))
    keeping = ClippedCodec(layout, layout, 0.5).adopt(client, COMMON, own, own)
    dropping = ClippedCodec(layout, layout, 0.5, keeps_residual=False).adopt(client, COMMON, own, own)
    plain = DriftCodec(layout, layout).adopt(client, COMMON, own, own)
    for name in COMMON:
        np.testing.assert_array_equal(keeping[0][name], plain[0][name])
        np.testing.assert_array_equal(dropping[0][name], dropping[1][name])
        np.testing.assert_array_equal(dropping[1][name], plain[1][name])
