# SPDX-License-Identifier: Apache-2.0
"""Where a model is trained and how precisely; the exchange sees 32-bit floats on the CPU either way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trustformer.errors import ConfigError
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.federation.store import ClientStore
from trustformer.training import TrainConfig, device_of

Run = Callable[..., dict[str, Any]]

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")),
]
TASKS = ["translation", "causal-lm", "masked-lm", "classification"]


def loss_of(run: Path) -> float:
    return float(json.loads((run / "rounds.jsonl").read_text("utf-8").splitlines()[0])["loss"])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("task", TASKS)
def test_bfloat16_is_near_and_weights_stay_32_bit(tiny_run: Run, tmp_path: Path, device: str, task: str) -> None:
    values = (f"model.task={task}", "model.max_length=48", "rounds=1", "method.closing_exchanges=0")
    fine = tiny_run(tmp_path / "fine", *values, f"train.device={device}")
    coarse = tiny_run(tmp_path / "coarse", *values, f"train.device={device}", "train.precision=bfloat16")
    assert fine["weights_digest"] != coarse["weights_digest"]
    assert fine["bytes_up_total"] == coarse["bytes_up_total"]
    assert loss_of(tmp_path / "coarse") == pytest.approx(loss_of(tmp_path / "fine"), rel=0.02)
    state = ClientStore(tmp_path / "coarse" / "clients" / "0").load()
    assert state is not None
    for tensors in (state.weights, state.common, state.optimizer.first, state.optimizer.second):
        assert {values.dtype for values in tensors.values()} == {np.dtype(np.float32)}
    environment = json.loads((tmp_path / "coarse" / "environment.json").read_text("utf-8"))
    assert environment["device"].startswith(device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_repeats_on_its_device(tiny_run: Run, tmp_path: Path, device: str) -> None:
    one, other = (
        tiny_run(tmp_path / name, f"train.device={device}", "train.precision=bfloat16") for name in ("one", "other")
    )
    assert one["weights_digest"] == other["weights_digest"]


def test_auto_takes_what_there_is_and_is_not_written_down(settings: list[str], mini_model: None) -> None:
    config = load_config(None, settings)
    assert "device" not in config.to_toml()
    assert 'precision = "bfloat16"' in load_config(None, [*settings, "train.precision=bfloat16"]).to_toml()
    assert prepare(config).model.device.type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"train\.device is cuda") as caught:
        device_of(TrainConfig(device="cuda"))
    assert caught.value.hint == "--set train.device=cpu"
