# SPDX-License-Identifier: Apache-2.0
"""The recorded runs of the page, whichever are there: rows of seeds, paired differences, intervals."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results"
ORDER = ("local", "paper-001", "paper-01", "paper-05", "paper-1", "partition", "codebook", "fedavg", "centralized")
NAMES = {
    "local": "`local`, no exchange",
    "paper-001": "`paper`, ratio 0.01",
    "paper-01": "`paper`, ratio 0.1",
    "paper-05": "`paper`, ratio 0.5",
    "paper-1": "`paper`, ratio 1",
    "partition": "`partition`, ratio 0.1",
    "codebook": "`codebook`",
    "fedavg": "`fedavg`, dense fp32",
    "centralized": "`centralized`, all data in one place",
}
_RUN = re.compile(r"(.+)-seed(\d+)$")


@dataclass
class Row:
    """One config on one corpus.

    Attributes:
        config: its name without the corpus.
        results, metrics: `result.json` and `metrics.json` by seed; metrics only where they were computed.
    """

    config: str
    results: dict[int, dict[str, Any]] = field(default_factory=dict)
    metrics: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return NAMES.get(self.config, f"`{self.config}`")

    def values(self, key: str) -> list[float]:
        """A score of every seed that has it: of the result, or the mean of the metric over the scored models."""
        if key in next(iter(self.results.values())):
            return [float(result[key]) for _, result in sorted(self.results.items())]
        found = [metrics.get(key) for _, metrics in sorted(self.metrics.items())]
        return [statistics.mean(values) for values in found if values]

    def mean(self, key: str) -> float:
        return statistics.mean(self.values(key))

    @property
    def nll(self) -> float:
        return self.mean("nll")

    def megabytes(self, way: str) -> float:
        """Sent by (up) or to (down) one client in the whole run, mean over seeds."""
        each = [result[f"bytes_{way}_total"] / result["clients"] for result in self.results.values()]
        return statistics.mean(each) / 1e6


def load(corpus: str) -> dict[str, Row]:
    """Return the rows of a corpus by config, in the order of the page."""
    rows = read(RESULTS / "paper", f"{corpus}-")
    pooled = read(RESULTS / "paper", "ruen-").get("centralized")
    if corpus == "ruen_iid" and rows and pooled:  # with all data in one place, no split
        rows["centralized"] = pooled
    return dict(sorted(rows.items(), key=lambda item: (*ORDER, item[0]).index(item[0])))


def read(folder: Path, prefix: str = "") -> dict[str, Row]:
    """Return the finished runs PREFIX<config>-seed<number> of a folder, by config.

    Metrics that were computed of another run than the result beside them are left out.
    """
    rows: dict[str, Row] = {}
    for path in sorted(folder.glob(f"{prefix}*/result.json")):
        match = _RUN.match(path.parent.name.removeprefix(prefix))
        if match is None:
            continue
        row, seed = rows.setdefault(match[1], Row(match[1])), int(match[2])
        row.results[seed] = json.loads(path.read_text("utf-8"))
        metrics = path.with_name("metrics.json")
        if metrics.is_file():
            found = json.loads(metrics.read_text("utf-8"))
            if found["signature"] == row.results[seed]["signature"]:
                row.metrics[seed] = found
    return rows


@dataclass(frozen=True)
class Gain:
    """BLEU of a row less BLEU of another, over the seeds that both have; `interval` of resampled test sentences."""

    mean: float
    seeds: int
    interval: tuple[float, float] | None


def gain(row: Row, other: Row, key: str = "bleu") -> Gain | None:
    """Compare two rows on their common seeds; None if there are none."""
    seeds = sorted(row.results.keys() & other.results.keys())
    if not seeds:
        return None
    mean = statistics.mean(row.results[seed][key] - other.results[seed][key] for seed in seeds)
    interval = None
    if key == "bleu" and all(seed in row.metrics and seed in other.metrics for seed in seeds):
        ours, theirs = (
            np.array([each.metrics[seed]["bleu_resampled"] for seed in seeds]).mean(0) for each in (row, other)
        )
        low, high = np.percentile(ours - theirs, [2.5, 97.5])
        interval = float(low), float(high)
    return Gain(mean, len(seeds), interval)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean and, of several, sample standard deviation; `-` of none."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"
