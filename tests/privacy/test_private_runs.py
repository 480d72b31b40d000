# SPDX-License-Identifier: Apache-2.0
"""Whole runs: the noise that reaches the common model, what travels, what is scored and what is said about it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.federation.store import ClientStore
from trustformer.methods import PRIVATE
from trustformer.reports.tables import epsilon, markdown_table

pytest.importorskip("opacus")

Run = Callable[..., dict[str, Any]]
STILL = ("train.learning_rate=1e-12", "train.weight_decay=0")  # nothing is learned: what moves G is noise
PROMISE = ("privacy.epsilon=8", "privacy.delta=1e-2", "privacy.clipping_norm=0.25")


def moved(folder: Path, settings: list[str], *overrides: str) -> np.ndarray:
    """Common model after the run, less G_0."""
    state = ClientStore(folder / "clients" / "0").load()
    assert state is not None
    start = prepare(load_config(None, [*settings, *overrides])).start
    return np.concatenate([(state.common[name] - start[name]).reshape(-1) for name in start])


def is_noise(values: np.ndarray, std: float) -> bool:
    return bool(abs((values / std).std() - 1) < 0.03 and abs((values / std).mean()) < 0.03)


@pytest.mark.parametrize(("mechanism", "name"), [("enclave", "dp_fedavg"), ("client", "dp_fedavg")])
def test_the_common_model_moves_by_the_noise_that_was_promised(
    tiny_run: Run, settings: list[str], tmp_path: Path, mechanism: str, name: str
) -> None:
    overrides = (f"method.name={name}", f"privacy.mechanism={mechanism}", *PROMISE, *STILL)
    result = tiny_run(tmp_path / "run", *overrides)
    promise = result["privacy"]
    assert promise["steps"] == 2
    std = promise["noise_multiplier"] * 0.25 / 3  # three clients; the enclave's noise once, a client's of each
    std *= np.sqrt(2) if mechanism == "enclave" else np.sqrt(2 * 3)
    values = moved(tmp_path / "run", settings, *overrides)
    assert len(values) > 20_000
    assert is_noise(values, std)
    assert not is_noise(values / 2, std)


def test_noise_that_the_enclave_would_refuse_is_said_before_training(tiny_run: Run, tmp_path: Path) -> None:
    overrides = ("method.name=dp_fedavg", "rounds=1", *PROMISE)
    with pytest.raises(ConfigError, match=r"enclave\.max_norm is 1, the norm of a client's noise") as refused:
        tiny_run(tmp_path / "run", "privacy.mechanism=client", "enclave.max_norm=1", *overrides)
    assert not (tmp_path / "run").exists()
    enough = refused.value.hint.removeprefix("--set ")
    assert tiny_run(tmp_path / "run", "privacy.mechanism=client", enough, *overrides)["epsilon"] <= 8
    tiny_run(tmp_path / "other", "privacy.mechanism=enclave", "enclave.max_norm=1", *overrides)


def test_closing_exchanges_of_centroids_are_charged_and_the_residual_stays(tiny_run: Run, tmp_path: Path) -> None:
    result = tiny_run(tmp_path / "run", "privacy.mechanism=enclave", *PROMISE)
    assert result["privacy"]["steps"] == 3
    assert result["epsilon"] <= 8
    state = ClientStore(tmp_path / "run" / "clients" / "0").load()
    assert state is not None
    assert any(not np.array_equal(state.weights[name], state.common[name]) for name in state.weights)
    assert len(result["bleu_per_client"]) == 3


@pytest.mark.parametrize("name", sorted(PRIVATE))
def test_every_baseline_runs_and_says_what_it_spent(tiny_run: Run, tmp_path: Path, name: str) -> None:
    result = tiny_run(tmp_path / "run", f"method.name={name}", "privacy.mechanism=enclave", *PROMISE)
    assert 7.5 < result["epsilon"] <= 8
    assert (result["delta"], result["privacy"]["unit"]) == (1e-2, "client")
    assert result["bleu_per_client"] == []  # every client begins from the common model: that one is scored
    assert (result["bleu"], result["nll"]) == (result["bleu_common"], result["nll_common"])
    assert "dp:enclave|eps:8|delta:0.01" in result["signature"]
    table = markdown_table([result])
    assert "| method | ε | BLEU |" in table
    assert f"| {epsilon(result['privacy'])} |" in table
    assert json.loads((tmp_path / "run" / "result.json").read_text())["privacy"] == result["privacy"]


def test_clipping_without_noise_promises_nothing(tiny_run: Run, tmp_path: Path) -> None:
    result = tiny_run(tmp_path / "run", "method.name=dp_fedavg", "privacy.mechanism=enclave", *PROMISE[1:])
    assert result["epsilon"] is None
    assert result["privacy"]["noise_multiplier"] == 0
    assert "| ∞ |" in markdown_table([result])


def test_how_much_text_a_client_has_does_not_travel(tiny_run: Run, settings: list[str], tmp_path: Path) -> None:
    split = ("clients.split=dirichlet", "clients.alpha=0.3", "clients.late=0.9", "clients.min_clients=1")
    overrides = ("method.name=dp_fedavg", "privacy.mechanism=enclave", "rounds=1", *PROMISE, *split)
    tiny_run(tmp_path / "run", *overrides)
    sizes = [len(part) for part in prepare(load_config(None, [*settings, *overrides])).clients.values()]
    assert len(set(sizes)) > 1
    states = [ClientStore(tmp_path / "run" / "clients" / str(index)).load() for index in range(3)]
    counts = [state.pending.num_examples for state in states if state is not None and state.pending is not None]
    assert set(counts) <= {1}
    lengths = {
        json.loads(line)["bytes"]
        for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()
        if json.loads(line)["kind"] == "upload" and json.loads(line)["direction"] == "up"
    }
    assert len(lengths) == 1


def test_a_private_run_goes_on_after_a_stop(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise is not repeatable, so the weights are others; what was released before is not released again."""
    from trustformer.experiment import runner

    overrides = ("method.name=dp_fedavg", "privacy.mechanism=enclave", *PROMISE)
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(runner, "save_models", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path / "run", *overrides)
    before = ClientStore(tmp_path / "run" / "clients" / "1").load()
    result = tiny_run(tmp_path / "run", *overrides, resume=True)
    after = ClientStore(tmp_path / "run" / "clients" / "1").load()
    assert before is not None
    assert after is not None
    assert all(np.array_equal(before.common[name], after.common[name]) for name in before.common)
    assert result["epsilon"] <= 8


def test_what_is_said_of_a_run_is_no_less_than_it_spends(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exact = ("privacy.delta=0.00987654321", "privacy.epsilon=1.23456741", "rounds=1")
    result = tiny_run(tmp_path / "run", "method.name=dp_fedavg", "privacy.mechanism=enclave", *PROMISE, *exact)
    said = re.search(r"privacy +epsilon ([\d.]+), delta ([\d.]+),", "".join(capsys.readouterr()))
    assert said
    promise = result["privacy"]
    assert promise["epsilon_known_cohorts"] == promise["epsilon"] <= float(said[1])  # all are in the one round
    assert promise["delta"] <= float(said[2])
    parts = dict(part.split(":") for part in result["signature"].split("|") if ":" in part)
    assert float(parts["eps"]) >= result["epsilon"]
    assert float(parts["delta"]) >= result["delta"] == 0.00987654321
    assert json.loads((tmp_path / "run" / "privacy.json").read_text("utf-8")) == promise


def test_a_run_does_not_go_on_with_other_noise(tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that had less noise at first, the noise of its end would say too small an epsilon."""
    from trustformer.experiment import runner

    cohorts = tmp_path / "cohorts.jsonl"
    lines = [{"present": ["0", "1"]}, {"present": ["1", "2"]}, {"present": ["0", "2"]}]
    cohorts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    records = ("privacy.mechanism=records", "privacy.batch_pairs=5", f"clients.cohorts={cohorts}", *PROMISE)
    overrides = ("method.name=fedavg", "rounds=3", "train.local_epochs=1", *records)
    played = runner._round
    with monkeypatch.context() as patch:

        def stop(number: int, *rest: Any) -> dict[str, Any]:
            if number == 2:
                raise KeyboardInterrupt
            return played(number, *rest)

        patch.setattr(runner, "_round", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny_run(tmp_path / "run", *overrides)
    lines[2]["present"] = ["0", "1", "2"]  # client 1 in every round: more steps, so more noise
    changed = "".join(json.dumps(line) + "\n" for line in lines)
    before = cohorts.read_text()
    cohorts.write_text(changed)
    with pytest.raises(ConfigError, match=r"its noise multiplier was [\d.]+, and would be"):
        tiny_run(tmp_path / "run", *overrides, resume=True)
    cohorts.write_text(before)
    assert tiny_run(tmp_path / "run", *overrides, resume=True)["epsilon"] <= 8


def test_the_noise_of_the_terms_counts_the_rounding_of_sums(tiny_run: Run, tmp_path: Path) -> None:
    result = tiny_run(
        *(tmp_path / "run", "method.name=dp_fedavg", "privacy.mechanism=enclave", *PROMISE, "rounds=1"),
        *("privacy.clipping_norm=0.001", "privacy.epsilon=0.05"),
    )
    terms = RunConfig.from_bytes((tmp_path / "run" / "terms.bin").read_bytes())
    sensitivity = 0.001 + math.sqrt(result["parameters"]) * 2.0**-29
    assert terms.noise_micro >= 1e6 * result["privacy"]["noise_multiplier"] * sensitivity


@pytest.mark.parametrize("name", ["fedavg", "local", "centroid"])
def test_pairs_are_protected_with_any_exchange(tiny_run: Run, tmp_path: Path, name: str) -> None:
    overrides = ("privacy.mechanism=records", "privacy.batch_pairs=5", "rounds=1", "train.cooldown=1", *PROMISE)
    result = tiny_run(tmp_path / "run", f"method.name={name}", *overrides)
    promise = result["privacy"]
    assert (promise["unit"], promise["sample_rate"], promise["steps"]) == ("pair", 0.5, 2)
    assert 0 < result["epsilon"] <= 8
    assert "a pair |" in markdown_table([result])


def test_only_some_clients_may_be_scored(tiny_run: Run, tmp_path: Path) -> None:
    result = tiny_run(tmp_path / "run", "method.name=local", "rounds=1", "evaluation.clients=2")
    assert len(result["bleu_per_client"]) == 2
    assert result["epsilon"] is None
    assert "ε" not in markdown_table([result])
