# SPDX-License-Identifier: Apache-2.0
"""The page of model families is the one its records make, and every config it rests on can be loaded."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from trustformer.experiment.config import load_config
from trustformer.models.families import AUTO_CLASSES, architecture_of

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this fails: `python benchmarks/families.py page`, and commit what it changed."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    families = importlib.import_module("families")
    assert families.PAGE.read_text("utf-8") == families.page()


def test_every_family_has_a_config() -> None:
    configs = [load_config(path).model for path in sorted((ROOT / "configs" / "families").glob("*.toml"))]
    assert {config.task for config in configs} == set(AUTO_CLASSES)
    kinds = {architecture_of(config) for config in configs}
    assert kinds == {"marian", "t5", "mbart", "gpt2", "llama", "bert", "distilbert"}
