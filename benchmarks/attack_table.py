# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/privacy.md from the recorded attacks.

python benchmarks/attack_table.py
"""

import json
import os
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dp import replaced

from trustformer.reports.attacks import attack_tables

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "privacy.md"
RECORDED = ROOT / "benchmarks" / "results" / "attack"
RUNS = ("fedavg", "codebook", "partition", "paper", "sizes")
Row = dict[str, Any]


def merged(name: str) -> list[Row]:
    """Rows of one attack on every recorded run that it was tried on; the plain gradient once, and clients' means."""
    rows: list[Row] = []
    for run in RUNS:
        path = RECORDED / run / "attack.json"
        if path.is_file():
            rows += named(run, json.loads(path.read_text("utf-8"))["attacks"].get(name, []))
    alike: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = (*(value for value in row.values() if isinstance(value, str)), row.get("sentences"))
        alike.setdefault(key, []).append(row)
    return [group[0] if "gradient" in str(group[0]) else mean(group) for group in alike.values()]


def named(run: str, rows: list[Row]) -> Iterator[Row]:
    """Rows that say which run they are of."""
    for row in rows:
        for key in ("message", "model"):
            if key in row and not row[key].startswith(("FedSGD", "gradient", f"{run} message")):
                row[key] = f"{run}: {re.sub(r'client [0-9]+', 'a client', row[key])}"
        if "direction" in row:
            row["kind"] = f"{run}: {row['kind']}"
        if run == "sizes" or row.get("attack") not in ("lengths", "timing") or row.get("kind", "").endswith("upload"):
            yield row


def mean(group: list[Row]) -> Row:
    """Means of the numbers of rows that differ in nothing else."""
    if len(group) == 1:
        return group[0]
    numbers = {key for key, value in group[0].items() if isinstance(value, float | int)}
    return group[0] | {key: statistics.mean(row[key] for row in group) for key in numbers}


def render() -> str:
    """The page with its tables replaced."""
    page = PAGE.read_text("utf-8")
    for name in ("tokens", "sentences", "membership", "inversion", "sizes"):
        (table,) = attack_tables({"attacks": {name: merged(name)}})
        page = replaced(page, name, table.markdown() + "\n")
    return page


if __name__ == "__main__":
    temporary = PAGE.with_suffix(".new")
    temporary.write_text(render(), "utf-8")
    os.replace(temporary, PAGE)
