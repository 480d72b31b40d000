# SPDX-License-Identifier: Apache-2.0
"""What a run promises: how much noise its config asks for, and the epsilon it spends to its end.

Everything here follows from the config and the sizes of clients: cohorts are drawn from the run's seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trustformer.errors import ConfigError
from trustformer.experiment.cohorts import make_cohorts
from trustformer.experiment.config import Config
from trustformer.federation.round import Cohort
from trustformer.methods import Method
from trustformer.privacy.accounting import epsilon_of, noise_for
from trustformer.privacy.stated import stated_epsilon, upper
from trustformer.training import sampling


@dataclass(frozen=True)
class Guarantee:
    """(epsilon, delta) differential privacy of the whole run, closing exchanges included.

    Attributes:
        mechanism: as in the config.
        unit: what is protected: all of a `client`'s text, or one `pair` of it.
        epsilon: against who does not know the cohorts; infinite without noise.
        epsilon_known_cohorts: against who does, as host and clients do: no gain from sampling.
        delta: of both.
        noise_multiplier: standard deviation of the noise over the clipping norm.
        clipping_norm: sensitivity of one release.
        sample_rate: chance of a unit to be in a release.
        steps: releases: exchanges, or of `records` steps of DP-SGD.
    """

    mechanism: str
    unit: str
    epsilon: float
    epsilon_known_cohorts: float
    delta: float
    noise_multiplier: float
    clipping_norm: float
    sample_rate: float
    steps: int

    def __str__(self) -> str:
        known = f" ({stated_epsilon(self.epsilon_known_cohorts)} against those who know the cohorts)"
        spent = stated_epsilon(self.epsilon) + (known if self.epsilon_known_cohorts > self.epsilon else "")
        noise = f"noise multiplier {self.noise_multiplier:.10g} at norm {self.clipping_norm:.10g}"
        releases = f"{self.steps:,} releases at rate {upper(self.sample_rate, 3)}"
        return f"epsilon {spent}, delta {upper(self.delta)}, unit {self.unit}: {noise}, {releases}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON: an infinite epsilon is null."""
        return {key: None if value == math.inf else value for key, value in asdict(self).items()}


def guarantee(config: Config, sizes: Mapping[str, int], method: Method) -> Guarantee | None:
    """Return what a run promises, None for nothing.

    Args:
        config: the run's config.
        sizes: training pairs of each client.
        method: what it builds, noised or not; where nothing is exchanged, all clients train in every round.

    Raises:
        ConfigError: a delta that promises nothing, or an epsilon out of reach.
    """
    privacy = config.privacy
    if privacy.mechanism == "none":
        return None
    rounds = method.total(config.rounds)
    exchanges = method.codec is not None
    cohorts = make_cohorts(config, list(sizes), rounds) if exchanges else [Cohort(tuple(sizes))] * rounds
    if privacy.mechanism == "records":
        training = [cohort for number, cohort in enumerate(cohorts, 1) if method.trains(number, config.rounds)]
        return _records(config, sizes, training)
    most = max(sum(client in cohort.present for cohort in cohorts) for client in sizes)
    rate, steps = (config.clients.participation, rounds) if privacy.mechanism == "enclave" else (1.0, most)
    left = privacy.delta - (_filled(config, len(sizes), rounds) if rate < 1 and privacy.epsilon else 0.0)
    if left <= 0:
        raise ConfigError(
            f"privacy.delta {upper(privacy.delta)} is below the chance that some round finds no client",
            "raise it, or clients.participation",
        )
    noise = noise_for(privacy.epsilon, rate, steps, left)
    return Guarantee(
        mechanism=privacy.mechanism,
        unit="client",
        epsilon=epsilon_of(noise, rate, steps, left),
        epsilon_known_cohorts=epsilon_of(noise, 1.0, most, privacy.delta),
        delta=privacy.delta,
        noise_multiplier=noise,
        clipping_norm=privacy.clipping_norm,
        sample_rate=rate,
        steps=steps,
    )


def own_guarantee(config: Config, client: str, pairs: int, method: Method) -> Guarantee | None:
    """Return what one client of a deployment promises for its own pairs, None for nothing.

    Each has noise of its own, since nobody knows how many pairs the others have; all rounds are counted as if this
    client trained in each.

    Raises:
        ConfigError: as of `guarantee`.
    """
    if config.privacy.mechanism != "records":
        return None
    rounds = [number for number in range(1, method.total(config.rounds) + 1) if method.trains(number, config.rounds)]
    return _records(config, {client: pairs}, [Cohort((client,)) for _ in rounds])


def _filled(config: Config, clients: int, rounds: int) -> float:
    """Largest chance that in some round nobody but one client is drawn and on time: it is then in without a draw."""
    drawn = config.clients.participation * (1 - config.clients.late)
    return rounds * math.exp((clients - 1) * math.log1p(-drawn))


def _records(config: Config, sizes: Mapping[str, int], cohorts: Sequence[Cohort]) -> Guarantee:
    """Pairs of different clients are different records: the run's epsilon is that of the worst client."""
    privacy = config.privacy
    if privacy.delta >= 1 / max(sizes.values()):
        raise ConfigError(
            f"privacy.delta {upper(privacy.delta)} is over one in {max(sizes.values()):,} pairs", "lower it"
        )
    plans = set()
    for client, pairs in sizes.items():
        rate, steps = sampling(pairs, privacy.batch_pairs, config.train.local_epochs)
        trained = sum(client in cohort.present for cohort in cohorts)
        plans.add((rate, steps * trained))
    noise = max(noise_for(privacy.epsilon, rate, steps, privacy.delta) for rate, steps in plans)
    spent = {plan: epsilon_of(noise, *plan, privacy.delta) for plan in plans}
    rate, steps = max(spent, key=lambda plan: spent[plan])
    epsilon = spent[rate, steps]
    return Guarantee(
        mechanism=privacy.mechanism,
        unit="pair",
        epsilon=epsilon,
        epsilon_known_cohorts=epsilon,  # who trained is known already; which pairs a step drew, only the client knows
        delta=privacy.delta,
        noise_multiplier=noise,
        clipping_norm=privacy.clipping_norm,
        sample_rate=rate,
        steps=steps,
    )
