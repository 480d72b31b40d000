# SPDX-License-Identifier: Apache-2.0
"""Figures of the deployment's pages are those of the recorded runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
DEPLOY = (ROOT / "docs" / "deploy-flower.md").read_text("utf-8")
SCALE = (ROOT / "docs" / "scale.md").read_text("utf-8")


@pytest.fixture(scope="module")
def chaos() -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RESULTS / "chaos.jsonl").read_text("utf-8").splitlines()]


def test_every_recorded_chaos_run_ended_in_the_weights_of_run(chaos: list[dict[str, Any]]) -> None:
    assert sorted(run["seed"] for run in chaos) == list(range(1, len(chaos) + 1))
    for run in chaos:
        assert run["done"], run["seed"]
        assert run["common_equal"], run["seed"]
        assert run["weights_equal"], run["seed"]
        assert all(run["weights_equal"].values()), run["seed"]
        assert run["tracebacks"] == 0, run["seed"]


def test_the_page_counts_the_faults_that_struck(chaos: list[dict[str, Any]]) -> None:
    struck = Counter(fault["what"].split()[0] for run in chaos for fault in run["faults"])
    missed = sum(len(run["missed"]) for run in chaos)
    unasked = sum(len(run["unasked"]) for run in chaos)
    text = " ".join(DEPLOY.split())
    assert f"recorded {len(chaos)} runs" in text
    assert f"{sum(struck.values())} faults struck" in text
    assert f"{missed} did not" in text
    assert f"{struck['kill']} kills, {struck['drop']} dropouts, {struck['straggle']} stragglers" in text
    assert f"{struck['wrong']} wrong clients, {struck['full']} full disks" in text
    assert f"{unasked} times `serve`" in text


def test_the_page_has_the_recorded_seconds_of_a_round() -> None:
    result = json.loads((RESULTS / "latency.json").read_text("utf-8"))
    rows = [line for line in DEPLOY.splitlines() if line.startswith("|") and " to " in line]
    for row, value in zip(rows, result["seconds_a_round"].values(), strict=True):
        low, high = value["quartiles"]
        assert f"| {value['median']:.1f} s | {low:.1f} to {high:.1f} s |" in row
        assert len(value["rounds"]) >= 10


def test_the_page_has_the_recorded_rounds_beside_fedavg() -> None:
    result = json.loads((RESULTS / "flower_scale.json").read_text("utf-8"))
    runs = {name: value for name, value in result.items() if "rounds" in value}
    table = [line for line in SCALE.splitlines() if re.match(r"\| (Flower|ours)", line)]
    assert len(table) == len(runs)
    for value in runs.values():
        seconds = f"{sum(value['rounds']) / len(value['rounds']):.0f} s"
        peaks = [f"{peak / 1e9:.2f}" for peak in value["peak_bytes"].values()]
        assert any(seconds in row and all(peak in row for peak in peaks) for row in table), (seconds, peaks)
