# SPDX-License-Identifier: Apache-2.0
"""What a comparison came to: one row a config, seeds pooled, and how much of FedAvg's gain each row keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np

Result = dict[str, Any]
WAYS = ("up", "down")

BETTER = {"bleu": 1, "nll": -1}
LEAST_GAP = {"bleu": 0.5, "nll": 0.01}
"""What FedAvg must gain before a share of its gain says anything."""
_ALL_RESAMPLES = 6
"""With so many seeds or fewer every resample is looked at (6^6 = 46,656); with more a seeded sample of them."""
_RESAMPLES = 10_000


@dataclass(frozen=True)
class Spread:
    """One number over the seeds; `sd` is the sample standard deviation, None with a single seed."""

    mean: float
    sd: float | None
    values: tuple[float, ...]


@dataclass(frozen=True)
class Recovered:
    """Share of the distance from local training to FedAvg.

    Attributes:
        share: (method - local) / (fedavg - local), of means over the seeds that all three have.
        low, high: 95 % of the same over resampled seeds, paired; None with one seed.
        seeds: how many.
    """

    share: float
    low: float | None
    high: float | None
    seeds: int


@dataclass(frozen=True)
class Row:
    """One config of a comparison.

    Attributes:
        name: shortest that tells the rows apart.
        results: one a seed.
        bleu, chrf, nll: means over the clients' own models that were scored; of the common one where there are none.
        bleu_common, nll_common: of the common model; None where there is none.
        epochs: what bytes are counted in: 1 is a round; where rounds of the rows differ in length, local epochs of one.
        bytes_up, bytes_down: per client and round, or local epoch.
        fewer: dense fp32 bytes over these, up and down; `fewer_without_embeddings`: embeddings left out on both
            sides. None where nothing is sent or, in records of older versions, it is not known.
        recovered: by metric `bleu` and `nll`, and `bleu_common` of the common model, where FedAvg gains anything; empty
            without a local and a dense FedAvg run of the same seeds and as many local epochs.
    """

    name: str
    results: tuple[Result, ...]
    bleu: Spread
    chrf: Spread
    nll: Spread
    bleu_common: Spread | None
    nll_common: Spread | None
    epochs: float
    bytes_up: float
    bytes_down: float
    fewer: tuple[float, float] | None
    fewer_without_embeddings: tuple[float, float] | None
    recovered: dict[str, Recovered]

    @property
    def method(self) -> str:
        """As in the config."""
        return str(self.results[0]["method"])

    @property
    def total(self) -> float:
        """Bytes up and down per client and round, or local epoch."""
        return self.bytes_up + self.bytes_down

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON, with signatures in place of results."""
        fields = asdict(self)
        del fields["results"]
        first = self.results[0]
        known = {key: first[key] for key in ("method", "variant")} | {"config": first.get("config")}
        seeds = [result["seed"] for result in self.results]
        return {**known, "seeds": seeds, **fields, "signatures": [result["signature"] for result in self.results]}


def summarise(results: Sequence[Result]) -> list[Row]:
    """Return one row a config, in order of appearance."""
    groups = by_name(results)
    mixed = lengths_differ(results)
    rows = []
    for name, group in groups.items():
        alike = {key: other for key, other in groups.items() if total_epochs(other[0]) == total_epochs(group[0])}
        dense, local = (_reference(alike, method) for method in ("fedavg", "local"))
        rows.append(_row(name, group, local, dense, local_epochs(group[0]) if mixed else 1))
    return rows


def by_name(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Return the results of each config, one a seed, under the shortest name that tells it from the others.

    Results of `compare` name their config; others are told apart by what their signature says of the method.
    """
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(_key(result), []).append(result)
    short = _names(groups)
    return {short[key]: group for key, group in groups.items()}


def reference(rows: Sequence[Row], method: str) -> Row | None:
    """Return the row the others are measured against: of FedAvg the densest, of several equal ones the best."""
    chosen = _reference({str(i): list(row.results) for i, row in enumerate(rows)}, method)
    return next((row for row in rows if list(row.results) == chosen), None)


def recovered(
    values: Sequence[float], local: Sequence[float], dense: Sequence[float], least: float = 0.0
) -> Recovered | None:
    """Return how much of the gap is recovered.

    None where there is no gap to speak of: FedAvg gains `least` or less over local training, in some resample of the
    seeds.

    Args:
        values, local, dense: scores of the method, of local training and of FedAvg, higher is better, paired by seed.
    """
    gains_S, gaps_S = (np.subtract(scores, local) for scores in (values, dense))
    count = len(gaps_S)
    if count <= _ALL_RESAMPLES:
        picks_RS = np.array(list(product(range(count), repeat=count)), dtype=np.intp)
    else:
        picks_RS = np.random.default_rng(0).integers(count, size=(_RESAMPLES, count))
    gains_R, gaps_R = (np.asarray(scores)[picks_RS].mean(axis=1) for scores in (gains_S, gaps_S))
    if not count or not np.all(gaps_R > least):
        return None
    low, high = (float(bound) for bound in np.percentile(gains_R / gaps_R, [2.5, 97.5])) if count > 1 else (None, None)
    return Recovered(float(gains_S.mean() / gaps_S.mean()), low, high, count)


def local_epochs(result: Result) -> float:
    """Epochs of a round; records of older versions do not say and had one."""
    epochs: float = result.get("local_epochs", 1)
    return epochs if epochs >= 1 else 1 / round(1 / epochs)


def total_epochs(result: Result) -> float:
    """Local epochs of the run; exchanges without training apart."""
    rounds: int = result["rounds"]
    return round(rounds * local_epochs(result), 3)


def lengths_differ(results: Sequence[Result]) -> bool:
    """Whether rounds of these runs differ in length; bytes are then compared by local epoch."""
    return len({local_epochs(result) for result in results}) > 1


def unit(rows: Sequence[Row]) -> str:
    """What bytes are counted in: a round, or a local epoch where rounds of the rows differ in length."""
    return "round" if all(row.epochs == 1 for row in rows) else "local epoch"


def label(result: Result) -> str:
    """Full name of a row: the method, and for the centroid exchange its variant and what sets its bytes."""
    parts = dict(part.split(":", 1) for part in result["signature"].split("|") if ":" in part)
    shown = [f"{key}={parts[key]}" for key in ("d", "K", "carry", "ratio", "dp", "eps") if key in parts]
    return " ".join([_variant(result), *shown])


def _long_label(result: Result) -> str:
    epochs = local_epochs(result)
    return f"{label(result)} epochs={epochs:g}" if epochs != 1 else label(result)


def _key(result: Result) -> str:
    return str(result.get("config") or _long_label(result))


def _variant(result: Result) -> str:
    return " ".join(filter(None, (result["method"], result["variant"])))


def _names(groups: dict[str, list[Result]]) -> dict[str, str]:
    """Return of variant, label and config name the first that no other row has; epochs are named where they differ."""
    mixed = lengths_differ([group[0] for group in groups.values()])
    levels = (_variant, _long_label if mixed else label, _key)
    names = {}
    for key, group in groups.items():
        others = {level(other[0]) for other in groups.values() if other is not group for level in levels}
        names[key] = next((name for level in levels if (name := level(group[0])) not in others), key)
    return names


def _reference(groups: dict[str, list[Result]], method: str) -> list[Result]:
    chosen = [group for group in groups.values() if group[0]["method"] == method]

    def dense_then_good(group: list[Result]) -> tuple[float, float]:
        factor = (group[0]["compression_up"] or 0.0) * local_epochs(group[0])
        return -float(f"{factor:.2g}"), float(np.mean([result["bleu"] for result in group]))

    return max(chosen, key=dense_then_good, default=[])


def _row(name: str, group: Sequence[Result], local: Sequence[Result], dense: Sequence[Result], epochs: float) -> Row:
    shares = {} if group[0]["method"] == "local" or list(group) == list(dense) else _shares(group, local, dense)
    bleu, chrf, nll = (_spread([result[key] for result in group]) for key in ("bleu", "chrf", "nll"))
    common, common_nll = (
        None if group[0].get(key) is None else _spread([result[key] for result in group])
        for key in ("bleu_common", "nll_common")
    )
    up, down = (float(np.mean([result[f"bytes_{way}_per_client_round"] for result in group])) / epochs for way in WAYS)
    fewer, rest = (_factors(group, which, epochs) for which in ("", "_without_embeddings"))
    return Row(name, tuple(group), bleu, chrf, nll, common, common_nll, epochs, up, down, fewer, rest, shares)


def _shares(group: Sequence[Result], local: Sequence[Result], dense: Sequence[Result]) -> dict[str, Recovered]:
    """What is kept of FedAvg's gain, by metric; of training alone there are the clients' own models only."""
    method, base, best = ({result["seed"]: result for result in part} for part in (group, local, dense))
    seeds = sorted(method.keys() & base.keys() & best.keys())
    shares = {}
    for metric, own in {**{name: name for name in BETTER}, "bleu_common": "bleu"}.items():
        if not seeds or None in [part[seed].get(metric) for part in (method, best) for seed in seeds]:
            continue
        parts = ((method, metric), (base, own), (best, metric))
        ours, alone, fedavg = ([BETTER[own] * part[seed][name] for seed in seeds] for part, name in parts)
        if (found := recovered(ours, alone, fedavg, LEAST_GAP[own])) is not None:
            shares[metric] = found
    return shares


def _spread(values: Sequence[float]) -> Spread:
    return Spread(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, tuple(values))


def _factors(group: Sequence[Result], which: str, epochs: float) -> tuple[float, float] | None:
    up, down = ([result.get(f"compression_{way}{which}") for result in group] for way in WAYS)
    if None in up or None in down:
        return None
    return epochs * float(np.mean(up)), epochs * float(np.mean(down))  # type: ignore[arg-type]  # mypy does not follow the `in`
