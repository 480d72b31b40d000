# SPDX-License-Identifier: Apache-2.0
"""A run that could not begin leaves its place free for the mended config."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustformer.data import progress
from trustformer.errors import ConfigError, DataError, TrustformerError
from trustformer.experiment.config import load_config
from trustformer.experiment.record import RunDirectory


def test_what_is_wrong_or_missing_does_not_take_the_place(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    with pytest.raises(DataError, match=r"no\.tsv"):
        tiny_run(out, "data.source=tsv", "data.train=no.tsv", "data.valid=no.tsv", "data.test=no.tsv")
    assert not out.exists()
    with pytest.raises(ConfigError, match=r"tokenizer\.train_on is .*, a folder"):
        tiny_run(out, f"tokenizer.train_on={tmp_path}")
    with pytest.raises(ConfigError, match="nowhere"):
        tiny_run(out, f"clients.cohorts={tmp_path / 'nowhere'}")
    with pytest.raises(TrustformerError, match="too few for 1,000 parts"):
        tiny_run(out, "train.local_epochs=0.001")
    lonely = ("clients.participation=0.3", "clients.min_clients=1", "clients.max_lag=1", "rounds=12", "seed=3")
    with pytest.raises(ConfigError, match="every client present would have missed more than 1 rounds"):
        tiny_run(out, *lonely)
    with pytest.raises(ConfigError, match="takes two thirds of the clients"):
        tiny_run(out, "enclave.release=acknowledged", "clients.min_clients=1")
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)  # as where it is not installed
    with pytest.raises(ConfigError, match="BLEU of ja needs a package") as caught:
        tiny_run(out, "data.target_language=ja-JP")
    assert caught.value.hint == "pip install 'sacrebleu[ja]'"
    assert not out.exists()
    tiny_run(out, "method.name=local")
    assert (out / "result.json").is_file()
    assert stat.S_IMODE(out.stat().st_mode) == 0o700  # it holds models and translated text


def test_an_interrupt_before_it_begins_leaves_its_place_free(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    with pytest.raises(KeyboardInterrupt), progress.progress_to(interrupt):
        tiny_run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_was_there_before_stays_where_it_cannot_go_on(
    tiny_run: Callable[..., dict[str, Any]], settings: list[str], tmp_path: Path
) -> None:
    wrong = "data.train=no.tsv"
    config = load_config(None, [*settings, wrong]).to_toml()
    RunDirectory.open(tmp_path / "run", config, resume=False)  # and then it was killed
    with pytest.raises(DataError, match=r"no\.tsv"):
        tiny_run(tmp_path / "run", wrong, resume=True)
    assert (tmp_path / "run" / "config.toml").read_text("utf-8") == config


def test_a_run_that_began_is_never_taken_away(tmp_path: Path) -> None:
    directory = RunDirectory.open(tmp_path / "run", "rounds = 1\n", resume=False)
    directory.write("tokenizer.model", b"x")
    directory.abandon()
    assert (tmp_path / "run" / "config.toml").is_file()
    with pytest.raises(ConfigError, match="already holds a run"):
        RunDirectory.open(tmp_path / "run", "rounds = 2\n", resume=False)
