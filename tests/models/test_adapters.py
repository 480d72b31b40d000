# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: all that is trained and sent, by every family and method, and gone from what is saved."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trustformer.codec.rates import rated_layout
from trustformer.codec.weights import Weights, specs_of
from trustformer.data.hub_tokenizer import HubTokenizer
from trustformer.data.tokenizer import Tokenizer
from trustformer.errors import ConfigError
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.experiment.saved import load_saved
from trustformer.federation.store import ClientStore
from trustformer.message import Codebook
from trustformer.models.adapters import merged
from trustformer.models.families import make_model
from trustformer.models.seq2seq import ModelConfig, frozen_weights, get_weights, set_weights

Run = Callable[..., dict[str, Any]]

FAMILIES = [
    *(("translation", "marian"), ("translation", "t5"), ("translation", "mbart")),
    *(("causal-lm", "gpt2"), ("causal-lm", "llama"), ("masked-lm", "bert"), ("masked-lm", "distilbert")),
    *(("classification", "bert"), ("classification", "distilbert")),
]
HEADS = ("classifier.", "pre_classifier.", "bert.pooler.")
SENTENCES = [f"Пример номер {i}, example number {i * 7}." for i in range(60)]
GPT2 = ("model.task=causal-lm", "model.max_length=48", "model.lora_rank=4", "rounds=1", "train.warmup_steps=5")


@pytest.fixture(scope="module")
def peft() -> None:
    pytest.importorskip("peft", reason="needs the extra lora")


@pytest.fixture(scope="module")
def tokenizers() -> tuple[Tokenizer, HubTokenizer]:
    return Tokenizer.train(SENTENCES, 100), HubTokenizer.train_bpe(SENTENCES, 300)


def weights_of(run: Path) -> dict[str, Weights]:
    states = {path.name: ClientStore(path).load() for path in sorted((run / "clients").iterdir())}
    return {name: state.weights for name, state in states.items() if state is not None}


def distance(one: Any, other: Any) -> float:
    """Largest difference of two models' entries."""
    theirs = dict(other.named_parameters())
    assert [name for name, _ in one.named_parameters()] == list(theirs)
    return max(float((values - theirs[name]).detach().abs().max()) for name, values in one.named_parameters())


@pytest.mark.usefixtures("peft", "mini_model")
@pytest.mark.parametrize(("task", "architecture"), FAMILIES)
def test_every_family_takes_adapters_and_gives_them_up_again(
    tokenizers: tuple[Tokenizer, HubTokenizer], task: Any, architecture: Any
) -> None:
    config = ModelConfig(task=task, architecture=architecture, lora_rank=4, max_length=48)
    tokenizer = tokenizers[architecture != "marian"]
    model = make_model(config, tokenizer, ("a", "b"), seed=1).eval()
    plain = make_model(ModelConfig(task=task, architecture=architecture, max_length=48), tokenizer, ("a", "b"), seed=1)
    start, rng = get_weights(model), np.random.default_rng(0)
    heads = {name for name in start if ".lora_" not in name}
    assert heads == {name for name in get_weights(plain) if task == "classification" and name.startswith(HEADS)}
    assert not any(values.any() for name, values in start.items() if ".lora_B." in name)
    specs = specs_of(start)
    assert any(spec.shape[0] > 8 * spec.shape[1] for spec in specs)  # taller than a vocabulary's need be
    assert {spec.name for spec in rated_layout(specs, Codebook(8, 4)).tensors} == start.keys()
    ids = torch.arange(5, 15)[None]
    inputs = {"input_ids": ids, **({"decoder_input_ids": ids} if task == "translation" else {})}
    with torch.no_grad():
        assert torch.allclose(model(**inputs).logits, plain.eval()(**inputs).logits, atol=1e-5)
        set_weights(model, {n: v + rng.normal(0, 0.05, v.shape).astype(np.float32) for n, v in start.items()})
        adapted, left_out = merged(model), merged(model, adapted=False)
        expected = model(**inputs).logits
        assert torch.allclose(adapted(**inputs).logits, expected, atol=1e-4)
        assert not torch.allclose(left_out(**inputs).logits, expected, atol=1e-3)
    for copy in (adapted, left_out):
        assert {name for name, _ in copy.named_parameters()} == {name for name, _ in plain.named_parameters()}
    again = make_model(config, tokenizer, ("a", "b"), seed=1)
    assert all(np.array_equal(values, start[name]) for name, values in get_weights(again).items())


@pytest.mark.usefixtures("peft")
def test_lora_fedavg_is_the_mean_of_adapters_trained_alone(tiny_run: Run, settings: list[str], tmp_path: Path) -> None:
    tiny_run(tmp_path / "local", *GPT2, "method.name=local")
    result = tiny_run(tmp_path / "lora", *GPT2, "method.name=lora_fedavg")
    prepared = prepare(load_config(None, [*settings, *GPT2, "method.name=lora_fedavg"]))
    shares = {client: len(held) for client, held in prepared.clients.items()}
    alone, whole = weights_of(tmp_path / "local"), sum(shares.values())
    for after in weights_of(tmp_path / "lora").values():
        for name, values in after.items():
            mean = sum(share / whole * alone[client][name].astype(np.float64) for client, share in shares.items())
            np.testing.assert_allclose(values, mean, rtol=0, atol=1e-6)
    assert result["parameters"] == sum(values.size for values in prepared.start.values())
    assert result["parameters"] < 0.3 * sum(values.size for values in frozen_weights(prepared.model).values())


@pytest.mark.usefixtures("peft")
def test_ffa_lora_sends_half_and_keeps_a(tiny_run: Run, settings: list[str], tmp_path: Path) -> None:
    """A of a linear map from n to n is as large as B; of all maps of this model A is a little smaller."""
    both, half = (
        prepare(load_config(None, [*settings, *GPT2, f"method.name={m}"])) for m in ("lora_fedavg", "ffa_lora")
    )
    assert {name for name in both.start if ".lora_B." in name} == set(half.start)
    assert half.digest != both.digest
    tiny_run(tmp_path / "run", *GPT2, "method.name=ffa_lora")
    prepared_a = {name: values for name, values in frozen_weights(half.model).items() if ".lora_A." in name}
    model, _ = load_saved(tmp_path / "run")
    client, _ = load_saved(tmp_path / "run", "1")
    common = ClientStore(tmp_path / "run" / "clients" / "1").load()
    assert common is not None
    name = "transformer.h.0.mlp.c_fc"
    product = common.common[f"{name}.lora_B.default.weight"] @ prepared_a[f"{name}.lora_A.default.weight"]
    step = get_weights(model)[f"{name}.weight"] - frozen_weights(half.model)[f"{name}.base_layer.weight"].T
    assert np.abs(step).max() > 1e-5
    np.testing.assert_allclose(step, 2 * product, rtol=0, atol=1e-6)
    assert distance(client, model) < 1e-6  # with dense messages a client is where all are


@pytest.mark.usefixtures("peft")
def test_adapters_travel_as_centroids(tiny_run: Run, tmp_path: Path) -> None:
    values = ("model.task=classification", "model.max_length=48", "model.lora_rank=8", "rounds=1")
    one, other = (tiny_run(tmp_path / name, *values) for name in ("one", "other"))
    dense = tiny_run(tmp_path / "dense", *values, "method.name=lora_fedavg")
    assert one["weights_digest"] == other["weights_digest"]
    assert one["bytes_up_total"] < dense["bytes_up_total"]
    layers = json.loads((tmp_path / "one" / "layers.json").read_text("utf-8"))
    assert any("lora_A" in json.dumps(layer) for layer in layers)
    common, own = load_saved(tmp_path / "one")[0], load_saved(tmp_path / "one", "2")[0]
    assert 1e-6 < distance(common, own) < 0.1  # what a message did not express stays in the client's own


def test_without_adapters_and_without_peft_the_way_is_said(
    settings: list[str], mini_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lora_fedavg", "ffa_lora"):
        with pytest.raises(ConfigError, match=f"{name} averages adapters") as caught:
            load_config(None, [*settings, f"method.name={name}"])
        assert caught.value.hint == "--set model.lora_rank=8"
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match="peft") as caught:
        prepare(load_config(None, [*settings, *GPT2]))
    assert ".[lora]" in caught.value.hint
