# SPDX-License-Identifier: Apache-2.0
"""Who takes part in which round: drawn from the seed, or replayed from a recorded run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trustformer.errors import ConfigError
from trustformer.experiment.config import Config
from trustformer.federation.round import Cohort


def make_cohorts(config: Config, clients: Sequence[str], rounds: int) -> list[Cohort]:
    """Return the cohort of each of `rounds` rounds.

    At least `min_clients` participants are on time in every drawn round: those missing are added in roster order.

    Raises:
        ConfigError: a file of cohorts that is malformed, too short, or names unknown clients.
    """
    if config.clients.cohorts:
        return _replayed(Path(config.clients.cohorts), set(clients), rounds, config.min_clients)
    rng = np.random.default_rng([config.seed, 0xC0407])
    cohorts = []
    for _ in range(rounds):
        draws = rng.random((3, len(clients)))
        present = [c for c, draw in zip(clients, draws[0], strict=True) if draw < config.clients.participation]
        late = {c for c, draw in zip(clients, draws[1], strict=True) if draw < config.clients.late}
        twice = {c for c, draw in zip(clients, draws[2], strict=True) if draw < config.clients.duplicate}
        for client in clients:
            if sum(c not in late for c in present) >= config.min_clients:
                break
            late.discard(client)
            present = [*present, client] if client not in present else present
        cohorts.append(
            Cohort(
                tuple(c for c in clients if c in present),
                tuple(c for c in clients if c in present and c in late),
                tuple(c for c in clients if c in present and c in twice),
            )
        )
    return cohorts


def missed(rounds: Iterable[Sequence[str]]) -> Iterator[list[int]]:
    """Yield of each round how many rounds each client present has missed since it last took part.

    Args:
        rounds: ids of the clients present.
    """
    last: dict[str, int] = {}
    for number, present in enumerate(rounds, 1):
        yield [number - 1 - last.get(client, 0) for client in present]
        last |= dict.fromkeys(present, number)


def check_sponsors(cohorts: Sequence[Cohort], max_lag: int) -> None:
    """Raise `ConfigError` where a round would have nobody who can catch up, and so hand on the common model."""
    fewest = [min(lags) for lags in missed([cohort.present for cohort in cohorts])]
    short = [number for number, lag in enumerate(fewest, 1) if lag > max_lag]
    if short:
        raise ConfigError(
            f"in round {short[0]} every client present would have missed more than {max_lag} rounds, and nobody else "
            "can give them the common model",
            f"--set clients.max_lag={max(fewest)}, or a larger clients.participation or clients.min_clients",
        )


def check_played(cohorts: Sequence[Cohort], played: Sequence[dict[str, Any]]) -> None:
    """Raise `ConfigError` where a run's finished rounds had other cohorts: their file was changed since."""
    for number, (cohort, record) in enumerate(zip(cohorts, played, strict=False), 1):
        if cohort != _cohort_of(record):
            raise ConfigError(
                f"clients.cohorts: round {number} was played with {', '.join(record['present'])}, the file has changed",
                "give the file that the run began with, or begin another run",
            )


def _cohort_of(record: dict[str, Any]) -> Cohort:
    return Cohort(*(tuple(record.get(key, ())) for key in ("present", "late", "duplicate")))


def _replayed(path: Path, clients: set[str], rounds: int, least: int) -> list[Cohort]:
    cohorts: list[Cohort] = []
    try:
        for line in path.read_text("utf-8").splitlines():
            record = json.loads(line)
            cohort = _cohort_of(record)
            here = f"clients.cohorts: {path}: round {len(cohorts) + 1}"
            if record.get("round", len(cohorts) + 1) != len(cohorts) + 1:
                break  # a host that lost a round's data leaves it out: nobody knows who took part
            if not {*cohort.present, *cohort.late, *cohort.duplicate} <= clients:
                raise ConfigError(f"{here} names a client that is not in this run", f"here are {sorted(clients)}")
            if len(set(cohort.present) - set(cohort.late)) < least:
                raise ConfigError(f"{here} has fewer than {least} clients on time", "lower clients.min_clients")
            cohorts.append(cohort)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ConfigError(
            f"clients.cohorts: {path} cannot be read: {error}", "give another run's rounds.jsonl"
        ) from None
    if len(cohorts) < rounds:
        raise ConfigError(f"clients.cohorts: {path} has {len(cohorts)} rounds, this run needs {rounds}")
    return cohorts[:rounds]
