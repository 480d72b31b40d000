# SPDX-License-Identifier: Apache-2.0
"""Attacks succeed where they must, give chance on noise, and refuse runs without recorded messages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trustformer.attacks.membership import lira
from trustformer.attacks.probe import local_epoch
from trustformer.attacks.scores import auc, ranking, separation, true_positives
from trustformer.attacks.view import difference
from trustformer.cli import main
from trustformer.codec.clipped import norm
from trustformer.data.batches import Example
from trustformer.errors import ConfigError
from trustformer.experiment import attack, attack_text
from trustformer.experiment.recorded import load_audited
from trustformer.experiment.reporter import PlainReporter
from trustformer.models.seq2seq import PRESETS
from trustformer.reports.attacks import attack_tables

Run = Callable[..., dict[str, Any]]
NAMES = ["tokens", "sentences", "membership", "inversion", "sizes"]


@pytest.fixture(scope="module")
def recorded(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attack") / "run"
    tiny_run(out, "record_messages=true")
    return out


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attacks with one probe and three steps: that they run, not what they find."""
    monkeypatch.setattr(attack, "_INVERSION_STEPS", 3)
    monkeypatch.setattr(attack_text, "_PROBES", ((1, 1),))


def test_scores_are_what_they_say() -> None:
    high, low = np.arange(100.0) + 50, np.arange(100.0)
    pairs = [(a > b) + 0.5 * (a == b) for a in high for b in low]
    assert auc(high, low) == pytest.approx(np.mean(pairs))
    assert true_positives(high, low) == pytest.approx(51 / 100)
    rng = np.random.default_rng(0)
    both = separation(rng.standard_normal(400), rng.standard_normal(400), rng)
    assert both.auc.low < 0.5 < both.auc.high


def test_a_score_that_tells_nothing_finds_as_much_as_chance() -> None:
    """Though the first ids of a vocabulary are its most frequent tokens."""
    present = set(range(2, 12)) | {60}
    found = ranking(np.zeros(102), present, {0, 1})
    assert (found.tokens, found.auc) == (11, 0.5)
    assert found.found == pytest.approx(11 / 100)
    score = np.zeros(102)
    score[[2, 3, 60, 70]] = 1.0
    assert ranking(score, present, {0, 1}).found == pytest.approx((3 + 7 * 8 / 96) / 11), "four first, then a draw"
    assert ranking(-np.arange(102.0), present, {0, 1}).found == pytest.approx(10 / 11)


def test_lira_sees_through_difficulty() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(1, 5, 400)
    shadows = difficulty + 0.05 * rng.standard_normal((4, 400))
    target = difficulty + 0.05 * rng.standard_normal(400)
    target[:200] -= 0.3
    assert auc(-target[:200], -target[200:]) < 0.65
    scores = lira(target, shadows)
    assert auc(scores[:200], scores[200:]) > 0.9


def test_lengths_do_not_depend_on_data(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", str(recorded), "--attack", "sizes", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["attacks"]["sizes"]
    uploads = [row for row in rows if row["attack"] == "lengths" and row["kind"] == "upload"]
    assert {(row["direction"], row["messages"], len(row["lengths"])) for row in uploads} == {
        ("up", 9, 1),
        ("down", 9, 1),
    }


def test_what_cannot_be_kept_is_shown_all_the_same(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(recorded, tmp_path / "run")
    (run / "attack.json.new").mkdir()
    assert main(["attack", str(run), "--attack", "sizes", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["attacks"]["sizes"]
    assert "attack.json cannot be written: " in shown.err


def test_membership_names_both_adversaries(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", str(recorded), "--attack", "membership", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["attacks"]["membership"]
    assert {(row["adversary"], row["attack"]) for row in rows} == {
        (adversary, name) for adversary in ("client", "enclave") for name in ("loss", "LiRA")
    }
    assert main(["attack", str(recorded), "--attack", "sizes"]) == 0
    assert "ε of this run: -" in capsys.readouterr().out
    kept = json.loads((recorded / "attack.json").read_text("utf-8"))["attacks"]
    assert kept["membership"] == rows, "what another attack found is kept"
    assert kept["sizes"]


def test_what_another_adversary_found_is_kept(
    few: None, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(recorded, tmp_path / "run")
    for adversary in ("enclave", "client", "client"):
        assert main(["attack", str(run), "--attack", "tokens", "--as", adversary, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)["attacks"]["tokens"]
        assert {row["adversary"] for row in shown} == {adversary}
    kept = json.loads((run / "attack.json").read_text("utf-8"))["attacks"]["tokens"]
    assert [row["adversary"] for row in kept].count("client") == len(shown) == 1
    assert "enclave" in {row["adversary"] for row in kept}


def test_a_text_of_the_whole_vocabulary_leaves_nothing_to_guess(
    few: None, tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    tiny_run(run, "record_messages=true", "rounds=1", "method.closing_exchanges=0", "method.name=fedavg")
    audited = load_audited(run)
    everything = list(range(audited.prepared.model.config.vocab_size))
    audited.prepared.clients.update({client: [Example(everything, everything)] for client in audited.prepared.clients})
    texts = {client: set(everything) - audited.special for client in audited.prepared.clients}
    rows = attack_text._recorded_tokens(audited, texts)
    assert [row["attack"] for row in rows] == ["whose"]
    json.loads(json.dumps(rows), parse_constant=pytest.fail)
    (table,) = attack_tables({"attacks": {"tokens": rows}})
    assert "nan" not in table.markdown()
    with pytest.raises(ConfigError, match="leaves anything to guess"):
        attack_text.tokens(audited, ["client"], PlainReporter())


def test_a_probe_has_the_noise_of_the_run(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what is found of it stands beside the epsilon that holds for it."""
    monkeypatch.setattr(attack_text, "_PROBES", ((1, 16),))
    run = tmp_path / "run"
    noise = ("privacy.mechanism=records", "privacy.epsilon=0.1", "privacy.delta=1e-3", "privacy.batch_pairs=1")
    tiny_run(run, "record_messages=true", "rounds=1", "method.name=fedavg", *noise)
    audited = load_audited(run)
    start, few = audited.prepared.start, next(iter(audited.prepared.clients.values()))[:2]
    once, again = (local_epoch(attack_text.prober(audited), start, few) for _ in range(2))
    assert any((once[name] != again[name]).any() for name in once)
    assert main(["attack", str(run), "--attack", "tokens", "--as", "enclave", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["attacks"]["tokens"]
    found = {row["message"]: row["auc"] for row in rows if row["attack"] == "rows"}
    assert 0.4 < found["fedavg message, 1 sentence"] < 0.6
    assert found["FedSGD gradient, 1 sentence"] > 0.65, "what is not noised tells tokens"
    first, second = (
        {row["attack"]: row for row in attack.membership(audited, ["enclave"], PlainReporter())} for _ in range(2)
    )
    assert first["loss"] == second["loss"]
    assert first["LiRA"] != second["LiRA"], "shadow models are trained as the run's were"


def test_a_probe_trains_by_the_rule_of_the_method(tiny_run: Run, tmp_path: Path) -> None:
    run = tmp_path / "run"
    tiny_run(
        run,
        "record_messages=true",
        "rounds=1",
        "method.name=dp_fedavg",
        "privacy.mechanism=enclave",
        "privacy.epsilon=0",
        "privacy.clipping_norm=0.001",
    )
    audited = load_audited(run)
    start, few = audited.prepared.start, next(iter(audited.prepared.clients.values()))[:2]
    moved = difference(local_epoch(attack_text.prober(audited), start, few), start)
    assert 0 < norm(moved) <= 0.00101, "after every step the drift is clipped"


def test_the_host_has_nothing_but_sizes(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", str(recorded), "--attack", "tokens", "--as", "host"]) == 2
    assert "ciphertext" in capsys.readouterr().err


def test_a_run_without_messages_is_refused(tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_run(tmp_path / "run", "rounds=1")
    assert "record_messages" not in (tmp_path / "run" / "config.toml").read_text("utf-8")
    assert main(["attack", str(tmp_path / "run")]) == 2
    assert "record_messages=true" in capsys.readouterr().err


def test_all_attacks_run_on_a_model_with_one_layer_a_side(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", str(recorded), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["attacks"]) == NAMES
    assert (report["skipped"], report["privacy"]) == ({}, None)


def test_all_attacks_run_where_rounds_are_parts_of_an_epoch(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run(tmp_path / "run", "record_messages=true", "train.local_epochs=0.5", "train.batch_tokens=64")
    assert main(["attack", str(tmp_path / "run"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (len(report["attacks"]), report["skipped"]) == (5, {})


def test_an_attack_that_is_not_possible_leaves_the_others(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A client's sentences have more tokens than a model of width 4 can tell apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", {"d_model": 4, "layers": 1, "heads": 2, "ffn": 8})
        tiny_run(tmp_path / "run", "record_messages=true", "rounds=1")
        assert main(["attack", str(tmp_path / "run")]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "sentences skipped" in out
        assert "fewer tokens than the model is wide" in out
        assert "nothing bounds what its results tell" in out
        assert "Membership" in out
        assert main(["attack", str(tmp_path / "run"), "--attack", "sentences"]) == 2
        assert "fewer tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "skipped"),
    [
        (["model.architecture=t5"], {"sentences": "marian", "inversion": "marian"}),
        (["model.architecture=mbart"], {"sentences": "marian", "inversion": "marian"}),
        (["model.task=causal-lm"], dict.fromkeys(("tokens", "sentences", "membership", "inversion"), "causal-lm")),
        (["model.task=masked-lm"], dict.fromkeys(("tokens", "sentences", "membership", "inversion"), "masked-lm")),
        (['model.freeze=["model.shared.weight"]'], {"tokens": "rows of tokens"}),
        (['model.freeze=["model.encoder.*"]'], {"sentences": "self_attn.q_proj", "inversion": "encoder's layers"}),
        (["model.lora_rank=4"], {"tokens": "rows of tokens", "sentences": "self_attn.q_proj"}),
    ],
    ids=["t5", "mbart", "gpt2", "bert", "frozen embedding", "frozen encoder", "adapters"],
)
def test_what_a_run_lacks_is_named_and_the_other_attacks_run(
    few: None,
    tiny_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    values: list[str],
    skipped: dict[str, str],
) -> None:
    if "model.lora_rank=4" in values:
        pytest.importorskip("peft", reason="needs the extra lora")
    tiny_run(tmp_path / "run", "record_messages=true", "rounds=1", *values)
    assert main(["attack", str(tmp_path / "run"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [name for name in NAMES if name not in skipped] == list(report["attacks"])
    assert list(report["skipped"]) == list(skipped)
    for name, lacking in skipped.items():
        assert lacking in report["skipped"][name]
        assert main(["attack", str(tmp_path / "run"), "--attack", name]) == 2
        assert lacking in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("rounds", "skipped"), [(["12", "012"], []), (["12", "12"], ["membership"])], ids=["late", "never"]
)
def test_attacks_on_a_run_whose_first_client_was_not_there_at_first(
    few: None,
    tiny_run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rounds: list[str],
    skipped: list[str],
) -> None:
    cohorts = tmp_path / "cohorts.jsonl"
    cohorts.write_text("".join(json.dumps({"present": list(present)}) + "\n" for present in rounds), "utf-8")
    values = ("record_messages=true", f"clients.cohorts={cohorts}", "method.closing_exchanges=0")
    tiny_run(tmp_path / "run", *values)
    assert main(["attack", str(tmp_path / "run"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [name for name in NAMES if name not in skipped] == list(report["attacks"])
    assert [why for why in report["skipped"].values() if "client 0" in why] == list(report["skipped"].values())
    updates = {row["message"] for row in report["attacks"]["tokens"] if row["message"].startswith("update of")}
    assert updates == {"update of client 1, round 1", "update of client 2, round 1"}


def test_one_update_alone_is_told_from_no_other(
    few: None, tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cohorts = tmp_path / "cohorts.jsonl"
    cohorts.write_text(json.dumps({"present": ["0"]}) + "\n", "utf-8")
    values = ("clients.min_clients=1", f"clients.cohorts={cohorts}", "method.closing_exchanges=0", "rounds=1")
    tiny_run(tmp_path / "run", "record_messages=true", *values)
    assert main(["attack", str(tmp_path / "run"), "--attack", "tokens", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["attacks"]["tokens"]
    assert [row for row in rows if row["attack"] == "whose" or row["adversary"] == "client"] == []


def test_a_run_without_noise_is_said_to_bound_nothing_and_its_report_is_json(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = ("method.name=dp_fedavg", "privacy.mechanism=enclave", "rounds=1")
    tiny_run(tmp_path / "run", "record_messages=true", *values)
    assert main(["attack", str(tmp_path / "run"), "--attack", "sizes"]) == 0
    assert "ε of this run: ∞ (nothing bounds what its results tell)" in capsys.readouterr().out
    text = (tmp_path / "run" / "attack.json").read_text("utf-8")
    assert json.loads(text, parse_constant=pytest.fail)["privacy"]["epsilon"] is None


@pytest.mark.filterwarnings("ignore")  # transformers on the special tokens of a model folder
def test_special_tokens_are_those_of_the_tokenizer(
    few: None, tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same text in the same vocabulary under other numbers, the end token at 0, the pad token last."""
    tiny_run(tmp_path / "first", "rounds=1", "method.name=local")
    given, turned = tmp_path / "first" / "model", tmp_path / "turned"
    shutil.copytree(given, turned)
    vocabulary = json.loads((given / "vocab.json").read_text("utf-8"))
    size = len(vocabulary)
    (turned / "vocab.json").write_text(json.dumps({name: (i - 1) % size for name, i in vocabulary.items()}), "utf-8")
    config = json.loads((given / "config.json").read_text("utf-8"))
    ids = {"pad_token_id": size - 1, "decoder_start_token_id": size - 1, "eos_token_id": 0, "forced_eos_token_id": 0}
    (turned / "config.json").write_text(json.dumps(config | ids), "utf-8")
    counts = []
    for folder in (given, turned):
        run = tmp_path / f"run-{folder.name}"
        tiny_run(run, "record_messages=true", "rounds=1", "method.closing_exchanges=0", f"model.preset={folder}")
        assert main(["attack", str(run), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        tokens = [(row["message"], row["attack"], row["tokens"]) for row in report["attacks"]["tokens"]]
        counts.append((tokens, [row["chance"] for row in report["attacks"]["inversion"]], report["skipped"]))
    assert counts[0] == counts[1]
