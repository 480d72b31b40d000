# SPDX-License-Identifier: Apache-2.0
"""The screening harness comes to the weights, scores and bytes of `trustformer run`; killed, it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
import pytest

from trustformer.errors import ConfigError
from trustformer.experiment.config import load_config

Result = dict[str, Any]
Screen = Callable[..., Result]


@pytest.fixture
def screen(mini_model: None, settings: list[str], tmp_path: Path) -> Screen:
    """Run the harness with a codec and options, by default in a folder of its own."""

    def go(codec: str, out: str = "peer", **options: Any) -> Result:
        defaults = {"codec": codec, "answer": codec, "feedback": "shift", "at": [1, 2], "repeat": 1, "closing": 0}
        return harness.run(load_config(None, settings), {**defaults, "parts": 1, **options}, tmp_path / out)

    return go


def wire(out: Path, direction: str) -> int:
    entries = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    return sum(e["bytes"] for e in entries if e["direction"] == direction and e["client"] == "0")


@pytest.mark.parametrize(
    ("codec", "method", "closing", "carry"),
    [
        ("dense", "fedavg", 0, 1.0),
        ("codebook:block=8,clusters=16", "centroid", 1, 1.0),
        ("codebook:block=8,clusters=16", "centroid", 1, 0.5),
    ],
)
def test_the_harness_comes_to_the_weights_scores_and_bytes_of_a_run(
    screen: Screen, tiny_run: Callable[..., Result], tmp_path: Path, codec: str, method: str, closing: int, carry: float
) -> None:
    real = tiny_run(tmp_path / "real", f"method.name={method}", f"method.carry={carry}")
    mine = screen(codec, closing=closing, carry=carry)
    assert mine["weights_digest"] == real["weights_digest"]
    for key in ("nll", "bleu", "chrf", "nll_common", "bleu_common"):
        assert mine[key] == pytest.approx(real[key], abs=1e-9)
    for way in ("up", "down"):
        counted = wire(tmp_path / "real", way) / 2
        assert mine[f"bytes_{way}_per_client_round"] == pytest.approx(counted, rel=0.02)


def test_a_killed_run_ends_with_the_same_weights(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = screen("codebook:clusters=4", "whole", feedback="error", closing=1)
    print_line = harness._line

    def killed(record: Result, last: int) -> str:
        raise KeyboardInterrupt

    for _ in range(3):
        monkeypatch.setattr(harness, "_line", killed)
        with pytest.raises(KeyboardInterrupt):
            screen("codebook:clusters=4", feedback="error", closing=1)
    monkeypatch.setattr(harness, "_line", print_line)
    resumed = screen("codebook:clusters=4", feedback="error", closing=1)
    assert resumed["weights_digest"] == whole["weights_digest"]
    assert len((tmp_path / "peer" / "rounds.jsonl").read_text().splitlines()) == 3
    with pytest.raises(ConfigError, match="other options"):
        screen("codebook:clusters=4", feedback="shift", closing=1)


def test_bytes_are_those_of_the_exchanges_that_took_place(screen: Screen) -> None:
    every, second = screen("dense", "every"), screen("dense", "second", at=[2])
    hello = harness.SEALING["hello"] / 2
    assert second["bytes_up_per_client_round"] == every["bytes_up_per_client_round"] / 2
    assert second["bytes_down_per_client_round"] - hello == (every["bytes_down_per_client_round"] - hello) / 2


def test_parts_hold_every_tensor_once_and_are_of_about_equal_size() -> None:
    common = {str(i): np.zeros(size, np.float32) for i, size in enumerate([100, 30, 30, 30, 10, 50, 50])}
    groups = harness.divide(common, 3)
    assert sorted(name for group in groups for name in group) == sorted(common)
    assert [sum(common[name].size for name in group) for group in groups] == [100, 100, 100]


def test_parts_leave_the_other_tensors_alone(screen: Screen, tmp_path: Path) -> None:
    result = screen("dense", parts=2, at=[2])
    assert result["exchanges"] == 1
    assert len(set(result["weights_digest"].values())) == 3
