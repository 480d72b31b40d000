# SPDX-License-Identifier: Apache-2.0
"""privacy.md and privacy-baselines.md show the committed records, and these are of the committed configs."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
from msgspec import structs

from trustformer.experiment.config import load_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dp(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return import_module("dp")


def test_the_tables_of_private_runs_are_those_of_the_records(dp: ModuleType) -> None:
    """If this fails: `python benchmarks/dp.py page`, and commit what it changed."""
    assert dp.PAGE.read_text("utf-8") == dp.render()


def test_the_tables_of_attacks_are_those_of_the_records(dp: ModuleType) -> None:
    """If this fails: `python benchmarks/attack_table.py`, and commit what it changed."""
    table = import_module("attack_table")
    assert table.PAGE.read_text("utf-8") == table.render()


def test_recorded_private_runs_are_of_the_committed_configs(dp: ModuleType) -> None:
    """A run that `make dp` would not know as recorded would be run again, and its record replaced."""
    known = {dp.RESULTS / table / name: config for table, name, config in dp.jobs()}
    recorded = {path.parent for table in dp.TABLES for path in (dp.RESULTS / table).glob("*/result.json")}
    assert len(recorded) > 20
    assert recorded <= set(known)
    assert all(dp.is_recorded(run, known[run]) for run in recorded)


def test_recorded_attacks_are_on_runs_of_the_committed_configs() -> None:
    recorded = sorted((ROOT / "benchmarks" / "results" / "attack").glob("*/config.toml"))
    assert len(recorded) >= 3
    for path in recorded:
        assert load_config(path) == load_config(ROOT / "benchmarks" / "configs" / "attack" / f"{path.parent.name}.toml")


def test_only_a_result_of_the_same_config_counts_as_recorded(dp: ModuleType, tmp_path: Path) -> None:
    table, name, config = next(iter(dp.jobs()))
    run = tmp_path / name
    assert not dp.is_recorded(run, config)
    shutil.copytree(dp.RESULTS / table / name, run)
    assert dp.is_recorded(run, config)
    assert not dp.is_recorded(run, structs.replace(config, rounds=config.rounds + 1))
    (run / "result.json").unlink()
    assert not dp.is_recorded(run, config)
