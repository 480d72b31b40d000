# SPDX-License-Identifier: Apache-2.0
"""The exchange for other programs: own modules, own loops, and transformers' Trainer."""

from __future__ import annotations

import ast
import copy
import re
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trustformer
from trustformer import library
from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError, ProtocolError
from trustformer.library import Federation, MethodConfig, TrustformerError
from trustformer.models.seq2seq import get_weights
from trustformer.training.device import share

PAGE = Path(__file__).parents[2] / "docs" / "library.md"
FEDAVG = MethodConfig(name="fedavg", closing_exchanges=0)


def page_code() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)


class Tagger(nn.Module):
    """No Transformer: recurrent, its output tied to its embedding, with a frozen table and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.table = nn.Parameter(torch.ones(4), requires_grad=False)
        self.recurrent = nn.GRU(16, 16, batch_first=True)
        self.norm = nn.BatchNorm1d(16)
        self.out = nn.Linear(16, 50, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden, _ = self.recurrent(self.embed(ids))
        return self.out(self.norm(hidden[:, -1]))


def taggers(count: int) -> list[Tagger]:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return [Tagger() for _ in range(count)]


def learn(module: nn.Module, seed: int, steps: int = 5) -> None:
    generator = torch.Generator().manual_seed(seed)
    adam = torch.optim.Adam([p for p in module.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        ids = torch.randint(50, (8, 6), generator=generator)
        adam.zero_grad()
        nn.functional.cross_entropy(module(ids), ids[:, 0]).backward()
        adam.step()


def test_the_pages_own_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    code = page_code()[0]
    assert len([line for line in code.splitlines() if line]) <= 16
    exec(compile(code, str(PAGE), "exec"), names)
    assert names["federation"].rounds == 5
    assert list(ast.literal_eval(capsys.readouterr().out)) == ["0", "1", "2"]
    assert (tmp_path / "runs" / "own" / "attestation.json").exists()


def test_dense_messages_are_the_weighted_mean_of_own_modules(tmp_path: Path) -> None:
    modules, examples = taggers(3), [100, 200, 300]
    federation = Federation(modules, examples, tmp_path, rounds=2, method=FEDAVG)
    start = get_weights(modules[0])
    assert "out.weight" not in start
    assert "table" not in start
    for module in modules:
        assert all(np.array_equal(values, start[name]) for name, values in get_weights(module).items())
    for _ in range(2):
        for index, module in enumerate(modules):
            learn(module, index)
        trained = [get_weights(module) for module in modules]
        means = [module.norm.running_mean.clone() for module in modules]
        federation.exchange()
        for module, running in zip(modules, means, strict=True):
            assert torch.equal(module.norm.running_mean, running)
            for name, values in get_weights(module).items():
                mean = sum(n / 600 * own[name].astype(np.float64) for n, own in zip(examples, trained, strict=True))
                np.testing.assert_allclose(values, mean, rtol=0, atol=1e-6)
    assert not torch.equal(modules[0].norm.running_mean, modules[1].norm.running_mean)
    with pytest.raises(TrustformerError):  # the terms allow two
        federation.exchange()


@pytest.mark.parametrize("process", [False, True])
def test_centroids_of_own_modules_are_fewer_bytes_and_a_folder_is_taken_up_again(tmp_path: Path, process: bool) -> None:
    modules = taggers(3)
    dense = Federation(taggers(3), [1, 1, 1], tmp_path / "dense", rounds=3, method=FEDAVG)
    coded = MethodConfig(clusters=16)
    federation = Federation(modules, [1, 1, 1], tmp_path / "own", rounds=3, method=coded, process=process)
    try:
        for index, module in enumerate(modules):
            learn(module, index)
        before = [get_weights(module) for module in modules]
        federation.exchange()
        dense.exchange()
        assert federation.bytes()["up"]["0"] < 0.6 * dense.bytes()["up"]["0"]
        common = federation.common
        after = [get_weights(module) for module in modules]
        assert not np.array_equal(after[0]["recurrent.weight_hh_l0"], after[1]["recurrent.weight_hh_l0"])
        spread = [
            sum(np.square(own["embed.weight"] - common["embed.weight"]).sum() for own in them)
            for them in (before, after)
        ]
        assert spread[1] < spread[0]
    finally:
        federation.close()
    again = taggers(3)
    second = Federation(again, [1, 1, 1], tmp_path / "own", rounds=3, method=coded, process=process)
    try:
        assert second.rounds == 1
        for module, weights in zip(again, after, strict=True):
            assert all(np.array_equal(values, weights[name]) for name, values in get_weights(module).items())
        second.exchange()
        assert second.rounds == 2
    finally:
        second.close()


def test_what_cannot_be_exchanged_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="2 modules and the counts"):
        Federation(taggers(2), [1], tmp_path / "a", rounds=1)
    with pytest.raises(ConfigError, match="exchanges nothing"):
        Federation(taggers(2), [1, 1], tmp_path / "b", rounds=1, method=MethodConfig(name="local"))
    with pytest.raises(ConfigError, match="of another model"):
        Federation([nn.Linear(2, 2), nn.Linear(2, 3)], [1, 1], tmp_path / "c", rounds=1)
    scalar = nn.Module()
    scalar.register_parameter("scale", nn.Parameter(torch.tensor(1.0)))
    with pytest.raises(ConfigError, match="'scale' has no dimension"):
        Federation([scalar, copy.deepcopy(scalar)], [1, 1], tmp_path / "d", rounds=1)
    frozen = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing to train"):
        Federation([frozen], [1], tmp_path / "e", rounds=1)
    Federation([nn.Linear(2, 2)], [1], tmp_path / "f", rounds=1, method=FEDAVG)
    with pytest.raises(ConfigError, match=r"tensor.weight is \[2, 2\] there, \[2, 3\] here"):
        Federation([nn.Linear(3, 2)], [1], tmp_path / "f", rounds=1, method=FEDAVG)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (MethodConfig(name="dp_fedavg"), "dp_fedavg clips and noises nothing here"),
        (MethodConfig(name="dp_fedsam"), "dp_fedsam clips and noises nothing here"),
        (MethodConfig(name="dp_blur_lus"), "dp_blur_lus clips and noises nothing here"),
        (MethodConfig(name="lora_fedavg"), r"lora_fedavg needs model\.lora_rank"),
        (MethodConfig(name="ffa_lora"), r"ffa_lora needs model\.lora_rank"),
        (MethodConfig(variant="partition", partition="drift"), "drift needs the first common model"),
        (MethodConfig(variant="partition", partition="history"), "history needs the first common model"),
        (MethodConfig(block=0), "Federation, method.block: expected `int` >= 1"),
        (MethodConfig(clusters=2**17), "Federation, method.clusters: expected `int` <= 65536"),
        (MethodConfig(ratio=float("nan")), "Federation, method.ratio: expected `float` > 0"),
        (MethodConfig(block=np.int64(8)), "Federation: encoding objects of type numpy.int64 is unsupported"),
        (MethodConfig(name="sum"), "Federation, method.name: invalid enum value 'sum'"),
        ("fedavg", "Federation, method: expected `object`, got `str`"),
    ],
)
def test_a_method_that_could_not_be_kept_to_is_refused(tmp_path: Path, method: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        Federation(taggers(2), [1, 1], tmp_path / "a", rounds=1, method=method)
    assert caught.value.hint
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": 0}, "Federation, rounds: expected `int` >= 1"),
        ({"seed": -1}, "Federation, seed: expected `int` >= 0"),
        ({"seed": 2**31}, "Federation, seed: expected `int` <= "),
        ({"seed": 1.5}, "Federation, seed: expected `int`, got `float`"),
        ({"max_share": 0.3}, "Federation, clients.max_share: expected `float` >= 0.5"),
        ({"process": "yes"}, "Federation, enclave.process: expected `bool`, got `str`"),
    ],
)
def test_settings_out_of_bounds_are_refused(tmp_path: Path, settings: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Federation(taggers(2), [1, 1], tmp_path / "a", **{"rounds": 1, **settings})
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("choice", ["rotating", "random"])
def test_partitions_without_a_past_are_exchanged(tmp_path: Path, choice: Any) -> None:
    method = MethodConfig(variant="partition", partition=choice, ratio=0.5)
    modules = taggers(2)
    federation = Federation(modules, [1, 1], tmp_path, rounds=1, method=method)
    for index, module in enumerate(modules):
        learn(module, index)
    federation.exchange()
    assert federation.rounds == 1


def test_no_exchange_is_made_beyond_those_of_the_terms(tmp_path: Path) -> None:
    federation = Federation(taggers(2), [1, 1], tmp_path / "a", rounds=1)
    federation.exchange()
    for _ in range(2):
        with pytest.raises(ProtocolError, match="all 1 exchanges that the terms allow are done"):
            federation.exchange()
        federation.close()
        federation = Federation(taggers(2), [1, 1], tmp_path / "a", rounds=1)


def test_a_module_of_two_clients_and_a_folder_that_is_a_file_are_refused(tmp_path: Path) -> None:
    module = nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="clients 0 and 1 share the tensor 'weight'"):
        Federation([module, module], [1, 1], tmp_path / "a", rounds=1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file cannot be made: File exists"):
        Federation([module], [1], tmp_path / "file", rounds=1)


@pytest.mark.parametrize("rounds", [1, 3])
def test_s_fades_in_every_exchange(tmp_path: Path, rounds: int) -> None:
    Federation(taggers(2), [1, 1], tmp_path, rounds=rounds, method=MethodConfig(carry=0.5))
    terms = RunConfig.from_bytes((tmp_path / "terms.bin").read_bytes())
    assert (terms.trained, terms.carry_ppm) == (rounds, 500_000)


@pytest.mark.parametrize("method", [FEDAVG, MethodConfig()])
def test_a_name_with_a_bracket_is_refused(tmp_path: Path, method: MethodConfig) -> None:
    module = nn.Module()
    module.register_module("experts[0]", nn.Linear(2, 2))
    with pytest.raises(ConfigError, match=r"'experts\[0\]\.weight' has a bracket"):
        Federation([module], [1], tmp_path, rounds=1, method=method)


def test_a_client_that_leaves_lets_nobody_wait(tmp_path: Path) -> None:
    federation = Federation(taggers(2), [1, 1], tmp_path, rounds=1, method=FEDAVG)
    seen: list[BaseException] = []

    def wait() -> None:
        try:
            federation.meet()
        except TrustformerError as error:
            seen.append(error)

    thread = Thread(target=wait)
    thread.start()
    federation.leave()
    thread.join(60)
    assert "did not come" in str(seen[0])


@pytest.fixture
def trainer_names(tmp_path: Path) -> dict[str, Any]:
    """What the page leaves to its reader."""
    pytest.importorskip("accelerate", reason="needs the extra trainer")
    from transformers import BertConfig, TrainingArguments

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    rng = np.random.default_rng(0)
    texts = [[rng.integers(0, 400, 8).tolist() for _ in range(64)] for _ in range(2)]
    return {
        "config": BertConfig(vocab_size=400, max_position_embeddings=16, **sizes),
        "arguments": TrainingArguments(
            str(tmp_path / "out"), num_train_epochs=2, per_device_train_batch_size=8, learning_rate=1e-2,
            save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
        ),
        "corpora": [[{"input_ids": ids, "labels": ids[0] % 2} for ids in rows] for rows in texts],
    }  # fmt: skip


@pytest.mark.filterwarnings("default")
def test_the_pages_trainers_exchange_after_every_epoch(
    trainer_names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(page_code()[1], str(PAGE), "exec"), trainer_names)
    federation, models = trainer_names["federation"], trainer_names["models"]
    assert federation.rounds == 2
    common = federation.common
    drifts = [
        sum(float(np.square(values - common[name]).sum()) for name, values in get_weights(model).items())
        for model in models
    ]
    sizes = sum(float(np.square(values).sum()) for values in common.values())
    assert min(drifts) > 1e-3  # what a message did not express
    assert max(drifts) < 0.1 * sizes


def test_names_are_few_sorted_and_loaded_late() -> None:
    assert trustformer.__all__ == library.__all__ == sorted(library.__all__)
    for name in library.__all__:
        assert getattr(trustformer, name) is getattr(library, name)
        assert getattr(library, name).__doc__
        assert name in dir(trustformer)
        assert name in PAGE.read_text("utf-8") or name == "TrustformerError"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trustformer.nothing  # noqa: B018
    code = "import sys, trustformer; trustformer.TrustformerError; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numpy", "transformers"} & set(loaded)


def test_the_exchange_is_coded_where_the_module_is(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        federation = Federation([Tagger(), Tagger()], [1, 1], tmp_path, rounds=1)
    finally:
        torch.set_num_threads(threads)
    codec = federation._parties.clients[0]._codec
    assert (codec.nearest.func, codec.nearest.args) == (share, (3,))
    federation.close()
