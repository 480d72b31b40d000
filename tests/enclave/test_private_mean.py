# SPDX-License-Identifier: Apache-2.0
"""The noised sum over a fixed denominator: scale and shape of the noise, sensitivity, and what a release holds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from process_kit import LAYOUT, Party, drift

from trustformer.aggregation import PrivateMean, gaussian
from trustformer.attestation.simulated import SimulatedAttester
from trustformer.enclave.config import RunConfig
from trustformer.enclave.session import Enclave
from trustformer.enclave.state import StateStore
from trustformer.errors import MessageError, ProtocolError
from trustformer.message import MAX_EXAMPLES, Codebook, Dense, Group, Layout, TensorSpec
from trustformer.vq import decode, encode

WIDE = Layout((Group(Dense("float32"), (TensorSpec("w", (400, 500)), TensorSpec("b", (70_001,)))),))
SMALL = Layout((Group(Dense("float32"), (TensorSpec("w", (4, 3)), TensorSpec("b", (5,)))),))


def body(layout: Layout, tensors: dict[str, np.ndarray]) -> bytes:
    return encode(layout, tensors, np.random.default_rng(0))


def zeros(layout: Layout) -> dict[str, np.ndarray]:
    return {spec.name: np.zeros(spec.shape, np.float32) for spec in layout.tensors}


def flat(tensors: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([values.reshape(-1) for values in tensors.values()])


def noise_of(std: float, expected: float = 8.0) -> np.ndarray:
    """What 270,001 entries of nothing come out as, times the denominator."""
    mean = PrivateMean(WIDE, expected, std, 1.0)
    mean.add(1, body(WIDE, zeros(WIDE)))
    return flat(mean.result()) * expected


def is_noise_of(values: np.ndarray, std: float) -> bool:
    """Whether values look like independent N(0, std²): mean, spread, quantiles, neighbours; false alarms under 1e-8."""
    z, count = values / std, len(values)
    quantiles = [(0.158655, -1.0), (0.5, 0.0), (0.841345, 1.0), (0.977250, 2.0), (0.998650, 3.0)]
    return bool(
        abs(z.mean()) < 6 / np.sqrt(count)
        and abs(z.std() - 1) < 6 / np.sqrt(2 * count)
        and all(abs((z < at).mean() - share) < 6 * np.sqrt(share * (1 - share) / count) for share, at in quantiles)
        and abs((z[1:] * z[:-1]).mean()) < 6 / np.sqrt(count)
    )


@pytest.mark.parametrize("std", [0.003, 1.7])
def test_the_noise_is_gaussian_of_the_scale_asked_for(std: float) -> None:
    values = noise_of(std)
    assert is_noise_of(values, std)
    assert not is_noise_of(values / 2, std)  # the test would see noise of half the size
    assert not is_noise_of(values * 1.02, std)


def test_no_two_results_share_their_noise() -> None:
    first, second = noise_of(1.0), noise_of(1.0)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.012
    assert is_noise_of((first - second) / np.sqrt(2), 1.0)


def test_the_noise_of_every_entry_comes_from_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that knows some entries of the others' sum sees their noise; it must not tell that of the rest."""
    asked, system = [], os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or system(count))
    assert 8 * len(noise_of(1.0)) <= sum(asked)


@pytest.mark.parametrize("size", [0, 1, 2, 7])
def test_as_many_draws_as_asked_for(size: int) -> None:
    draws = gaussian(size)
    assert draws.shape == (size,)
    assert len(set(draws)) == size


def test_noise_is_added_once_whatever_the_cohort() -> None:
    updates = [{name: np.full(v.shape, 1e-4, np.float32) for name, v in zeros(WIDE).items()} for _ in range(5)]
    mean = PrivateMean(WIDE, 5.0, 0.2, 1.0)
    for update in updates:
        mean.add(1, body(WIDE, update))
    assert is_noise_of(flat(mean.result()) * 5 - 5e-4, 0.2)


@pytest.mark.parametrize("present", [1, 3, 10])
def test_the_denominator_does_not_depend_on_who_came(present: int) -> None:
    mean = PrivateMean(LAYOUT, 10.0, 0.0, 100.0)
    bodies = [body(LAYOUT, drift(index)) for index in range(present)]
    for index, one in enumerate(bodies):
        mean.add(7 + 1000 * index, one)
    total = sum(flat(decode(LAYOUT, one)) for one in bodies)
    np.testing.assert_allclose(flat(mean.result()), total / 10, atol=1e-7)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.integers(1, 6),
    limit=st.sampled_from([0.01, 0.5, 4.0]),
    examples=st.integers(1, MAX_EXAMPLES),
)
def test_leaving_one_update_out_changes_the_sum_by_at_most_the_norm(
    seed: int, size: int, limit: float, examples: int
) -> None:
    """Neighbouring cohorts; the update left out is as large as it may be, and claims any number of examples."""
    rng = np.random.default_rng(seed)

    def update() -> bytes:
        values = rng.standard_normal(17) * rng.choice([1e-3, 1.0, 100.0], 17)
        values *= limit / np.linalg.norm(values)
        parts = np.split(values.astype(np.float32) * np.float32(1 - 1e-6), [12])
        return body(SMALL, {"w": parts[0].reshape(4, 3), "b": parts[1]})

    bodies = [update() for _ in range(size)]
    sums = []
    for cohort in (bodies, bodies[1:]):
        mean = PrivateMean(SMALL, 4.0, 0.0, limit)
        for one in cohort:
            mean.add(examples, one)
        sums.append(flat(mean.result()).astype(np.float64) * 4.0)
    rounding = 17 * (2.0**-28 + 2.0**-23 * size * limit)  # fixed point, and fp32 of what this test compares
    assert limit * 0.99 < np.linalg.norm(sums[0] - sums[1]) + rounding
    assert np.linalg.norm(sums[0] - sums[1]) <= limit + rounding


def test_an_update_over_the_norm_is_refused_and_counts_nowhere() -> None:
    mean = PrivateMean(SMALL, 2.0, 0.0, 1.0)
    with pytest.raises(MessageError, match="norm is over 1"):
        mean.add(1, body(SMALL, {"w": np.full((4, 3), 0.3, np.float32), "b": np.full(5, 0.1, np.float32)}))
    mean.add(1, body(SMALL, zeros(SMALL)))
    assert not flat(mean.result()).any()


# ---- in the enclave ----


def private(party: Party, noise: float, expected: float, **terms: int) -> Enclave:
    party.config = replace(
        party.config,
        rule="private_mean",
        expected_milli=round(expected * 1e3),
        noise_micro=round(noise * 1e6),
        max_norm_milli=1000,
        **terms,
    )
    root = SimulatedAttester.load(party.folder / "root")
    return Enclave(party.config, StateStore(party.folder / "state", party.config.digest), root)


def test_what_a_round_releases_and_what_stays_hold_the_noise_together(tmp_path: Path) -> None:
    """ē and s are both made of the noised sum, so neither they nor anything later tells more than it does."""
    wide = Layout((Group(Codebook(4, 16), (TensorSpec("w", (500, 400)),)),))
    party = Party(tmp_path, upload=wide, answer=wide)
    host = party.host(enclave := private(party, noise=0.6, expected=3.0))
    players = party.players(host)
    nothing = zeros(wide)
    totals = np.zeros(sum(spec.size for spec in wide.tensors))
    for number in (1, 2):
        for player in players.values():
            player.hello()
        for player in players.values():
            assert player.channel.upload(player.update(nothing)) == "accepted"
        host.close(number)
        for player in players.values():
            aggregate = player.adopt()[-1][1]
        totals += flat(decode(wide, aggregate.body))
        left = np.frombuffer(enclave._state.residual, np.float32)
        assert is_noise_of((totals + left) * 3 / np.sqrt(number), 0.6)
    assert enclave.close(2) == enclave.close(2)  # asked again: the same release, not another draw


def test_terms_of_a_private_mean_survive_the_wire_and_leave_other_terms_alone(tmp_path: Path) -> None:
    config = Party(tmp_path).config
    noised = replace(config, rule="private_mean", expected_milli=1500, noise_micro=2_000_001)
    assert RunConfig.from_bytes(noised.to_bytes()) == noised
    assert len(config.to_bytes()) == len(replace(config, expected_milli=9, noise_micro=9).to_bytes())
    assert config.digest == replace(config, expected_milli=9, noise_micro=9).digest  # no part of other rules


@pytest.mark.parametrize("wrong", [{"expected_milli": 0}, {"noise_micro": 10**12 + 1}])
def test_terms_without_a_denominator_or_with_absurd_noise_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    terms = {"expected_milli": 1000, "noise_micro": 1, **wrong}
    with pytest.raises(ProtocolError, match="private mean"):
        replace(Party(tmp_path).config, rule="private_mean", **terms).check()
