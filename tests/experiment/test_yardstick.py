# SPDX-License-Identifier: Apache-2.0
"""The yardstick: averaging the preset `tiny` sends as many bytes as its weights have."""

from __future__ import annotations

from pathlib import Path

from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run


def test_fedavg_is_neither_smaller_nor_much_larger_than_dense_weights(tmp_path: Path, settings: list[str]) -> None:
    config = load_config(None, [*settings, "method.name=fedavg", "clients.count=2", "rounds=1"])
    result = run(config, tmp_path / "run", PlainReporter())
    for way in ("up", "down"):
        assert 0.95 <= result[f"compression_{way}"] <= 1.0
