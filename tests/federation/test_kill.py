# SPDX-License-Identifier: Apache-2.0
"""A run that is killed anywhere and resumed ends as if nothing had happened.

Three clients of which some are absent, late, send twice, and one falls so far behind that it takes the dense
common model. Real processes are really killed: before, after and in the middle of saves, uploads, the close, the
release, adoption and training, and while the run is prepared.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(900)  # some hundred processes, one after the other
POINTS = 20
HARNESS = Path(__file__).with_name("kill_harness.py")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, settings: list[str]) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("kill")
    hard = ["seed=28", "rounds=4", "clients.max_lag=1"]
    hard += ["clients.participation=0.7", "clients.late=0.3", "clients.duplicate=0.3"]
    command = [sys.executable, str(HARNESS), str(folder), "20", str(POINTS), *settings, *hard]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads((folder / "verdicts.json").read_text("utf-8")))


def test_the_run_has_absence_lateness_and_a_dense_catch_up(report: dict[str, Any]) -> None:
    rounds = report["whole"]["rounds"]
    assert any(len(record["present"]) < 3 for record in rounds)
    assert any(record["late"] for record in rounds)
    assert report["counts"]["ask_common"] > 0


@pytest.mark.parametrize("index", range(POINTS))
def test_killed_and_resumed_it_ends_bit_identical(report: dict[str, Any], index: int) -> None:
    verdict = report["verdicts"][index]
    *kills, last = verdict["ends"]
    where = f"{verdict['points']}: {verdict['ends']}\n{verdict['log']}"
    assert last == "done", where
    assert kills[0] == "killed", where
    assert set(kills) <= {"killed", "done"}, where
    assert verdict["outcome"] == report["whole"], where


def test_every_kind_of_death_is_among_the_points(report: dict[str, Any]) -> None:
    died = {point.split()[0] for verdict in report["verdicts"] for point in verdict["points"]}
    assert died == set(report["counts"])
    assert sum(len(verdict["points"]) > 1 for verdict in report["verdicts"]) >= 4
