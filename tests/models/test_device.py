# SPDX-License-Identifier: Apache-2.0
"""Where a model is trained, how precisely, and where drifts are coded; the exchange sees 32-bit floats either way."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trustformer.codec.weights import specs_of
from trustformer.data.batches import Example
from trustformer.errors import ConfigError, TrustformerError
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.federation.store import ClientStore
from trustformer.message import Codebook, Group, Layout
from trustformer.models.objectives import Seq2SeqObjective
from trustformer.models.seq2seq import ModelConfig, build_model, get_weights
from trustformer.training import LocalTrainer, OptimizerState, TrainConfig, device_of
from trustformer.training.device import search, share
from trustformer.vq import Array, assign, decode, encode, kmeans

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


@dataclass(frozen=True)
class Failing(Seq2SeqObjective):
    """An objective whose loss does something else first."""

    before: Callable[[], Any]

    def loss(self, *args: Any, **options: Any) -> torch.Tensor:
        self.before()
        return super().loss(*args, **options)


def put_twice() -> None:
    """An operation without a deterministic form, on a CPU too."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        torch.zeros(2).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
    finally:
        torch.use_deterministic_algorithms(before)


def full() -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def broken() -> None:
    torch.zeros(2) @ torch.zeros(3)


@pytest.mark.parametrize(
    ("before", "says", "hint"),
    [
        (full, r"ran out of memory in training, with batches of 512 tokens", "lower train.batch_tokens"),
        (
            put_twice,
            r"cannot repeat this model's training on its device: put_ has no deterministic form",
            "--set train.device=cpu",
        ),
    ],
)
def test_errors_of_torch_that_the_config_can_avoid_say_how(before: Callable[[], None], says: str, hint: str) -> None:
    with pytest.raises(TrustformerError, match=says) as caught:
        train_one(before)
    assert caught.value.hint == hint


def test_other_errors_of_torch_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="size"):
        train_one(broken)


def train_one(before: Callable[[], None]) -> None:
    model = build_model(ModelConfig(preset="micro"), 60, 1)
    trainer = LocalTrainer(model, TrainConfig(batch_tokens=512), objective=Failing(before))
    trainer.train(get_weights(model), OptimizerState(), [Example([5, 6, 2], [7, 2])], seed=(1,))


def gaussian(points: int, width: int) -> Array:
    return np.random.default_rng(points).standard_normal((points, width)).astype(np.float32)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize(("points", "width", "clusters"), [(1, 1, 1), (5000, 1, 7), (20_011, 8, 256), (900, 200, 90)])
def test_the_search_of_a_device_finds_centroids_as_near_as_numpys(
    device: str, size: float, points: int, width: int, clusters: int
) -> None:
    X_ND = gaussian(points, width) * np.float32(size)
    C_KD = kmeans(X_ND, clusters, np.random.default_rng(0))
    codes, numpys = search(torch.device(device), X_ND, C_KD), assign(X_ND, C_KD)
    assert (codes.dtype, codes.shape) == (numpys.dtype, numpys.shape)

    def distances(codes: np.ndarray) -> np.ndarray:
        return np.square((X_ND.astype(np.float64) - C_KD[codes]) / size).sum(1)

    np.testing.assert_allclose(distances(codes), distances(numpys), rtol=1e-4, atol=1e-4)
    assert (codes == numpys).mean() > 0.999


@pytest.mark.parametrize("device", DEVICES)
def test_points_in_several_blocks_keep_their_order(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X_ND = gaussian(1000, 8)
    whole = search(torch.device(device), X_ND, X_ND[:50])
    monkeypatch.setattr("trustformer.training.device._SCORES", 50 * 300)
    np.testing.assert_array_equal(search(torch.device(device), X_ND, X_ND[:50]), whole)


@pytest.mark.parametrize("device", DEVICES)
def test_the_search_of_a_device_gives_ties_to_the_lowest(device: str) -> None:
    C_KD = np.array([5, 5, 1, 3, 1], np.float32)[:, None] * np.ones((1, 3), np.float32)
    assert set(search(torch.device(device), np.zeros((1000, 3), np.float32), C_KD)) == {2}


@pytest.mark.parametrize("device", DEVICES)
def test_messages_coded_on_a_device_repeat_and_say_as_much(device: str) -> None:
    drift = {"embedding": gaussian(2000, 64) * np.float32(0.01), "map": gaussian(300, 120) * np.float32(0.02)}
    layout = Layout((Group(Codebook(8, 256), tuple(specs_of(drift))),))

    def coded(there: bool) -> bytes:
        nearest = partial(search, torch.device(device)) if there else assign
        return encode(layout, drift, np.random.default_rng(3), nearest)

    def lost(body: bytes) -> float:
        return sum(float(np.square(drift[name] - values).sum()) for name, values in decode(layout, body).items())

    assert coded(True) == coded(True)
    assert len(coded(True)) == len(coded(False))
    assert lost(coded(True)) == pytest.approx(lost(coded(False)), rel=5e-3)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("private", [(), ("privacy.mechanism=enclave", "privacy.clipping_norm=1")])
def test_a_run_codes_where_its_model_is(
    settings: list[str], mini_model: None, device: str, private: tuple[str, ...]
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        prepared = prepare(load_config(None, [*settings, *private, f"train.device={device}"]))
    finally:
        torch.set_num_threads(threads)
    nearest = prepared.method.codec.nearest
    assert (nearest.func, nearest.args) == ((share, (3,)) if device == "cpu" else (search, (prepared.model.device,)))


@pytest.mark.parametrize(
    ("points", "width", "clusters"), [(1, 4, 1), (40_000, 8, 256), (9000, 16, 1024), (25_000, 128, 400)]
)
def test_threads_share_the_search_and_change_no_code(points: int, width: int, clusters: int) -> None:
    X_ND = gaussian(points, width)
    C_KD = X_ND[np.random.default_rng(0).choice(points, clusters, replace=False)]
    alone = share(1, X_ND, C_KD)
    np.testing.assert_array_equal(alone, assign(X_ND, C_KD))
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(share(threads, X_ND, C_KD), alone)
