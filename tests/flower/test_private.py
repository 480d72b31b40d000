# SPDX-License-Identifier: Apache-2.0
"""DP-SGD in a deployment: every client promises for its own pairs, whatever the others have."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra flower")
pytest.importorskip("opacus", reason="needs the extra dp")

from flower_kit import free_address
from wire import Notes, Threaded, Wire

from trustformer.codec.weights import Weights, weights_digest
from trustformer.data.folder import load_folder, write_folder
from trustformer.errors import ConfigError
from trustformer.experiment.config import load_config
from trustformer.experiment.record import RunDirectory
from trustformer.flower.learner import Learner
from trustformer.flower.member import Member, join
from trustformer.flower.settings import HostConfig, NodeConfig
from trustformer.flower.setup import init_federation
from trustformer.models.seq2seq import get_weights, load_model
from trustformer.privacy.accounting import epsilon_of
from trustformer.training import OptimizerState

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what flwr itself uses
]
CLIENTS = ("0", "1", "2")
EPSILON, DELTA = 8.0, 1e-3
PRIVATE = ["privacy.mechanism=records", f"privacy.epsilon={EPSILON}", f"privacy.delta={DELTA}", "privacy.batch_pairs=4"]


@pytest.fixture
def fed(tmp_path: Path, settings: list[str], mini_model: None) -> Path:
    config = load_config(None, [*settings, *PRIVATE, "enclave.release=acknowledged"])
    init_federation(tmp_path / "fed", config, "127.0.0.1:1", HostConfig(probe=60.0))
    return tmp_path / "fed"


def _give(folder: Path, pairs: int) -> None:
    """Let a client have this many training pairs only."""
    corpus = load_folder(folder / "data")
    shutil.rmtree(folder / "data")
    splits = {"train": corpus.train[:pairs], "valid": corpus.valid, "test": corpus.test}
    write_folder(folder / "data", splits, {})


def _learner(folder: Path) -> Learner:
    return Learner.load(folder, NodeConfig.load(folder / "node.toml"), load_config(folder / "config.toml"))


def _json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return content


def test_each_client_spends_at_most_epsilon_on_its_own_pairs_and_all_end_with_one_common_model(
    fed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _give(fed / "client-2", 6)
    threads = Threaded(fed, Wire(), monkeypatch)
    threads.start(*CLIENTS)
    threads.end()
    promises = {client: _json(fed / f"client-{client}" / "state" / "result.json")["privacy"] for client in CLIENTS}
    for client, promise in promises.items():
        plan = (promise["noise_multiplier"], promise["sample_rate"], promise["steps"])
        assert epsilon_of(*plan, DELTA) == promise["epsilon"] <= EPSILON
        assert promise["sample_rate"] == 4 / (6 if client == "2" else 10)
        assert promise["steps"] == 2 * round(1 / promise["sample_rate"])  # two rounds of a pass; closing trains nobody
    assert promises["2"]["noise_multiplier"] != promises["0"]["noise_multiplier"]
    assert threads.said.has("privacy  epsilon 8.0, delta 0.001, unit pair")
    for client in CLIENTS:
        folder = fed / f"client-{client}"
        result = _json(folder / "state" / "result.json")
        assert _held(folder / "model") == result["weights_digest"]
        assert _held(folder / "common") == result["common_digest"]
    assert len({_json(fed / f"client-{client}" / "state" / "result.json")["common_digest"] for client in CLIENTS}) == 1


def test_another_federation_begins_from_the_common_model_that_one_left(
    fed: Path, tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threaded(fed, Wire(), monkeypatch)
    threads.start(*CLIENTS)
    threads.end()
    left = fed / "client-1" / "common"
    again = [one for one in settings if not one.startswith("tokenizer.")]
    config = load_config(None, [*again, f"model.preset={left}", "clients.count=2", "clients.max_share=1"])
    init_federation(tmp_path / "again", config, "127.0.0.1:1", HostConfig())
    common = _json(fed / "client-0" / "state" / "result.json")["common_digest"]
    shutil.rmtree(left)  # another machine's
    assert weights_digest(_learner(tmp_path / "again" / "client-1").start).hex() == common
    join_nobody = partial(Member, tmp_path / "again" / "client-1", RunDirectory(tmp_path / "state"), Notes())
    continued = tmp_path / "again" / "client-1" / "preset" / "config.json"
    join_nobody()
    text = continued.read_text("utf-8")
    continued.write_text(text.replace('"scale_embedding": true', '"scale_embedding": false'), "utf-8")
    with pytest.raises(ConfigError, match="are not those the terms were made for"):
        join_nobody()
    shutil.rmtree(continued.parent)
    with pytest.raises(ConfigError, match="the model that this federation continues, is missing"):
        join_nobody()


def _held(folder: Path) -> str:
    return weights_digest(get_weights(load_model(folder))).hex()


def test_training_draws_noise_and_pairs_anew_where_the_config_asks_for_it_and_only_there(
    fed: Path, tmp_path: Path, settings: list[str]
) -> None:
    init_federation(tmp_path / "plain", load_config(None, settings), "127.0.0.1:1", HostConfig())

    def twice(folder: Path) -> tuple[Weights, Weights]:
        learner = _learner(folder)
        first, second = (
            learner.trainer.train(learner.start, OptimizerState(), learner.examples, seed=(1, 0, 1)).weights
            for _ in range(2)
        )
        return first, second

    first, second = twice(fed / "client-0")
    assert all((first[name] != second[name]).mean() > 0.9 for name in first if first[name].ndim > 1)
    first, second = twice(tmp_path / "plain" / "client-0")
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_client_goes_on_with_the_noise_it_began_with_or_not_at_all(fed: Path) -> None:
    folder, said = fed / "client-0", Notes()
    began = _learner(folder).promise
    assert began is not None
    (folder / "state").mkdir()
    (folder / "state" / "privacy.json").write_text(json.dumps(began.to_dict()), "utf-8")
    _give(folder, 5)
    with pytest.raises(ConfigError, match=f"its noise multiplier was {began.noise_multiplier:g}") as refused:
        join(folder, said)
    assert "this client's text" in refused.value.hint
    (folder / "state" / "privacy.json").write_text('{"noise', "utf-8")
    with pytest.raises(ConfigError, match=r"privacy\.json is damaged"):
        join(folder, said)


def test_a_delta_that_promises_nothing_to_so_many_pairs_is_refused_by_that_client(
    tmp_path: Path, settings: list[str], mini_model: None
) -> None:
    private = [one for one in PRIVATE if "delta" not in one]
    config = load_config(None, [*settings, *private, "privacy.delta=0.09"])
    init_federation(tmp_path / "fed", config, "127.0.0.1:1", HostConfig())
    folder = tmp_path / "fed" / "client-0"
    corpus = load_folder(folder / "data")
    shutil.rmtree(folder / "data")
    write_folder(folder / "data", {"train": corpus.train * 2, "valid": corpus.valid, "test": corpus.test}, {})
    with pytest.raises(ConfigError, match=r"privacy.delta 0.09 is over one in 20 pairs"):
        join(folder, Notes())


@pytest.mark.parametrize("mechanism", ["enclave", "client"])
def test_noise_of_whole_clients_is_refused_before_anything_is_made(
    tmp_path: Path, settings: list[str], mini_model: None, mechanism: str
) -> None:
    private = [f"privacy.mechanism={mechanism}", "privacy.epsilon=8", "privacy.delta=0.1"]
    with pytest.raises(ConfigError, match=f"privacy.mechanism {mechanism} is of trustformer run alone") as refused:
        init_federation(tmp_path / "fed", load_config(None, [*settings, *private]), free_address(), HostConfig())
    assert "records" in refused.value.hint
    assert not (tmp_path / "fed").exists()
