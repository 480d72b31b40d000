# SPDX-License-Identifier: Apache-2.0
"""Epsilon: against a second accountant, and what a config is charged for."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest

from trustformer.errors import ConfigError
from trustformer.experiment.cohorts import make_cohorts
from trustformer.experiment.config import Config, load_config
from trustformer.experiment.guarantee import Guarantee, guarantee
from trustformer.message import TensorSpec
from trustformer.methods import MethodConfig, build
from trustformer.privacy.accounting import epsilon_of, noise_for

pytest.importorskip("opacus")
dp_accounting = pytest.importorskip("dp_accounting")

SIZES = {f"{index:03d}": 20 for index in range(200)}


def reference(kind: str, noise: float, rate: float, steps: int, delta: float) -> float:
    """Epsilon by Google's accountants: `rdp`, or `pld`, numerically tight by privacy loss distributions."""
    from dp_accounting import pld, rdp

    accountant = rdp.RdpAccountant() if kind == "rdp" else pld.PLDAccountant()
    event = dp_accounting.GaussianDpEvent(noise)
    if rate < 1:
        event = dp_accounting.PoissonSampledDpEvent(rate, event)
    return float(accountant.compose(event, steps).get_epsilon(delta))


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta"),
    [(2.5, 1.0, 20, 1e-3), (1.5, 0.5, 10, 1e-3), (1.0, 0.1, 100, 1e-5), (10.0, 1.0, 12, 1e-3), (0.8, 0.25, 40, 1e-3)],
)
def test_epsilon_agrees_with_another_accountant(noise: float, rate: float, steps: int, delta: float) -> None:
    found = epsilon_of(noise, rate, steps, delta)
    assert found == pytest.approx(reference("rdp", noise, rate, steps, delta), rel=0.01)
    assert 0.8 * found < reference("pld", noise, rate, steps, delta) < found


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps"), [(1.0, 1.0, 6), (8.0, 0.5, 10), (4.0, 0.05, 200), (100.0, 1.0, 3)]
)
def test_the_noise_is_enough_and_hardly_more(epsilon: float, rate: float, steps: int) -> None:
    noise = noise_for(epsilon, rate, steps, 1e-3)
    assert epsilon_of(noise, rate, steps, 1e-3) <= epsilon < epsilon_of(noise * 0.99 - 0.001, rate, steps, 1e-3)


def test_nothing_released_costs_nothing_and_no_noise_promises_nothing() -> None:
    assert epsilon_of(1.0, 1.0, 0, 1e-5) == 0
    assert epsilon_of(0.0, 1.0, 1, 1e-5) == math.inf
    assert noise_for(0.0, 1.0, 10, 1e-5) == 0


@pytest.mark.parametrize(("epsilon", "delta"), [(0.1, 1e-5), (0.02, 1e-5)])
def test_noise_of_a_small_epsilon_is_near_that_of_the_exact_gaussian(epsilon: float, delta: float) -> None:
    """Which is where delta is what Balle and Wang (arXiv 1805.06083, theorem 8) give for one release."""

    def spent(noise: float) -> float:
        first, second = (0.5 * math.erfc((epsilon * noise + side / noise) / math.sqrt(2)) for side in (-0.5, 0.5))
        return first - math.exp(epsilon) * second

    noise = noise_for(epsilon, 1.0, 1, delta)
    assert spent(noise) <= delta < spent(noise / 1.2)


def test_an_epsilon_out_of_reach_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"epsilon 0\.001 is too low at a delta of 1e-05") as caught:
        noise_for(0.001, 1.0, 1, 1e-5)
    assert "delta" in caught.value.hint
    assert noise_for(0.001, 1.0, 1, 1e-3) > 0


def test_no_epsilon_is_below_zero() -> None:
    assert epsilon_of(1e6, 1.0, 1, 1e-3) == 0


def test_without_opacus_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    epsilon_of.cache_clear()
    with pytest.raises(ConfigError, match="opacus") as caught:
        epsilon_of(1.0, 1.0, 1, 1e-5)
    assert ".[dp]" in caught.value.hint


# ---- what a config is charged for ----


def config(*overrides: str) -> Config:
    common = ("clients.count=200", "privacy.delta=1e-3", "privacy.epsilon=8", "rounds=10")
    return load_config(None, [*common, *overrides])


def promised(settings: Config, sizes: dict[str, int] | None = None) -> Guarantee:
    promise = guarantee(settings, sizes or SIZES, build(settings.method, (TensorSpec("w", (64, 8)),)))
    assert promise is not None
    return promise


def test_closing_exchanges_are_releases_too() -> None:
    promise = promised(config("privacy.mechanism=enclave"))
    assert (promise.steps, promise.sample_rate, promise.unit) == (11, 1.0, "client")
    assert promise.noise_multiplier > noise_for(8, 1.0, 10, 1e-3)
    assert promise.epsilon == epsilon_of(promise.noise_multiplier, 1.0, 11, 1e-3) <= 8


def test_all_exchanges_of_a_round_are_releases() -> None:
    several = ("method.variant=partition", "method.exchanges=5", "method.closing_exchanges=2")
    promise = promised(config("privacy.mechanism=enclave", *several))
    assert promise.steps == 10 * 5 + 2
    assert promise.epsilon == epsilon_of(promise.noise_multiplier, 1.0, 52, 1e-3) <= 8
    records = ("privacy.mechanism=records", "privacy.batch_pairs=10", "clients.participation=0.5", "clients.count=4")
    settings = config(*records, *several, "clients.min_clients=1", "rounds=6")
    cohorts = make_cohorts(settings, list("0123"), 6 * 5 + 2)
    trained = max(sum(client in cohort.present for cohort in cohorts[0:30:5]) for client in "0123")
    assert promised(settings, sizes=dict.fromkeys("0123", 40)).steps == 4 * trained


def test_sampling_helps_only_against_those_who_do_not_know_the_cohorts() -> None:
    settings = config("privacy.mechanism=enclave", "clients.participation=0.25", "clients.min_clients=1", "rounds=3")
    promise = promised(settings)
    most = max(sum(c in cohort.present for cohort in make_cohorts(settings, list(SIZES), 4)) for c in SIZES)
    assert 1 < most <= 4
    assert promise.epsilon == epsilon_of(promise.noise_multiplier, 0.25, 4, 1e-3) <= 8
    assert promise.epsilon_known_cohorts == epsilon_of(promise.noise_multiplier, 1.0, most, 1e-3) > 12


def test_the_chance_that_a_cohort_is_filled_up_is_taken_off_delta() -> None:
    """A client that is in a round because nobody else came is in it without a draw."""
    sampled = ("privacy.mechanism=enclave", "clients.participation=0.1", "clients.min_clients=1", "rounds=9")
    promise = promised(config(*sampled, "privacy.delta=2e-8"))
    filled = 10 * 0.9**199  # a round, closing exchange included, in which none of the others comes
    assert 2e-9 < filled < 2e-8
    assert promise.delta == 2e-8
    spent = epsilon_of(promise.noise_multiplier, 0.1, 10, 2e-8 - filled)
    assert promise.epsilon == pytest.approx(spent, rel=1e-9)
    assert 8 >= promise.epsilon > epsilon_of(promise.noise_multiplier, 0.1, 10, 2e-8)
    with pytest.raises(ConfigError, match="finds no client"):
        promised(config(*sampled, "privacy.delta=2e-9"))
    more = (*sampled, "clients.participation=0.1112", "privacy.delta=2e-9")
    assert promised(config(*more)).epsilon <= 8
    with pytest.raises(ConfigError, match="finds no client"):
        promised(config(*more, "clients.late=0.1"))
    assert math.isinf(promised(config(*sampled, "privacy.epsilon=0", "privacy.delta=2e-9")).epsilon)


def test_noise_of_clients_gains_nothing_from_sampling() -> None:
    promise = promised(config("privacy.mechanism=client", "clients.participation=0.5"))
    assert promise.sample_rate == 1
    assert promise.epsilon == promise.epsilon_known_cohorts <= 8


def test_the_worst_client_counts_where_pairs_are_protected() -> None:
    settings = config("privacy.mechanism=records", "privacy.batch_pairs=10", "rounds=3")
    promise = promised(settings, sizes={"0": 40, "1": 5})
    # 40 pairs: a quarter of them a step, four steps a pass; 5: all of them, one step
    plans = [(0.25, 4 * 3), (1.0, 1 * 3)]
    assert promise.unit == "pair"
    assert promise.epsilon == max(epsilon_of(promise.noise_multiplier, *plan, 1e-3) for plan in plans) <= 8


def test_recorded_runs_spent_what_they_are_charged_for() -> None:
    records = sorted((Path(__file__).parents[2] / "benchmarks" / "results" / "dp_records").glob("*-eps8-*/result.json"))
    assert records
    for path in records:
        promise = json.loads(path.read_text("utf-8"))["privacy"]
        plan = (promise["noise_multiplier"], promise["sample_rate"], promise["steps"], promise["delta"])
        assert promise["epsilon"] == pytest.approx(epsilon_of(*plan), rel=1e-6)
        assert promise["epsilon"] <= 8


def test_parts_of_a_pass_are_counted_as_the_steps_they_take() -> None:
    settings = config("privacy.mechanism=records", "privacy.batch_pairs=10", "rounds=3", "train.local_epochs=0.5")
    promise = promised(settings, sizes={"0": 40})
    assert promise.steps == 2 * 3
    assert promise.epsilon == epsilon_of(promise.noise_multiplier, 0.25, 6, 1e-3) <= 8


def test_a_delta_that_promises_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="pairs"):
        promised(config("privacy.mechanism=records"), sizes={"0": 2000})


def test_no_mechanism_promises_nothing() -> None:
    assert guarantee(load_config(None), SIZES, build(MethodConfig(), (TensorSpec("w", (8, 8)),))) is None


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (("method.name=dp_fedavg",), "needs noise"),
        (("method.name=dp_fedsam", "privacy.mechanism=records"), "needs noise"),
        (("privacy.mechanism=enclave", "privacy.delta=0.5"), "delta"),
        (("privacy.mechanism=enclave", "enclave.rule=trimmed_mean"), "no noised form"),
        (("privacy.mechanism=client", "clients.cohorts=some.jsonl"), "no random sample"),
        (("privacy.mechanism=enclave", "clients.count=100", "clients.participation=0.5"), "filled up"),
        (
            ("privacy.mechanism=enclave", "clients.count=30", "clients.participation=0.5", "clients.min_clients=1"),
            "15 clients are expected",
        ),
    ],
)
def test_configs_that_would_break_the_promise_are_refused(overrides: tuple[str, ...], part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_config(None, overrides)


def test_a_private_cohort_is_a_plain_random_sample() -> None:
    """Each client by itself with the same chance: sizes have the variance of that, and nobody is filled in."""
    settings = config("privacy.mechanism=enclave", "clients.participation=0.25", "clients.min_clients=1")
    sizes = [len(cohort.present) for cohort in make_cohorts(settings, list(SIZES), 1000)]
    mean, variance = 200 * 0.25, 200 * 0.25 * 0.75
    assert sum(sizes) / 1000 == pytest.approx(mean, abs=6 * math.sqrt(variance / 1000))
    assert sum((size - mean) ** 2 for size in sizes) / 1000 == pytest.approx(variance, rel=0.2)
    assert min(sizes) < mean - 2 * math.sqrt(variance)


def test_a_promise_names_both_epsilons_where_they_differ_and_rounds_each_up() -> None:
    promise = Guarantee("enclave", "client", 1.234, 2.345, 0.00987654321, 1.0, 1.0, 0.1234567, 10)
    assert str(promise).startswith(
        "epsilon 1.3 (2.4 against those who know the cohorts), delta 0.00987655, unit client"
    )
    assert str(promise).endswith("noise multiplier 1 at norm 1, 10 releases at rate 0.124")
