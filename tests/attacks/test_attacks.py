# SPDX-License-Identifier: Apache-2.0
"""Attacks succeed where they must, give chance on noise, and refuse runs without recorded messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trustformer.attacks.membership import lira
from trustformer.attacks.scores import auc, separation, true_positives
from trustformer.cli import main
from trustformer.models.seq2seq import PRESETS

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def recorded(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("attack") / "run"
    tiny_run(out, "record_messages=true")
    return out


def test_scores_are_what_they_say() -> None:
    high, low = np.arange(100.0) + 50, np.arange(100.0)
    pairs = [(a > b) + 0.5 * (a == b) for a in high for b in low]
    assert auc(high, low) == pytest.approx(np.mean(pairs))
    assert true_positives(high, low) == pytest.approx(51 / 100)
    rng = np.random.default_rng(0)
    both = separation(rng.standard_normal(400), rng.standard_normal(400), rng)
    assert both.auc.low < 0.5 < both.auc.high


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
    assert list(report["attacks"]) == ["tokens", "sentences", "membership", "inversion", "sizes"]
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
