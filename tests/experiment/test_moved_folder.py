# SPDX-License-Identifier: Apache-2.0
"""A model folder named by its bare name is needed where a run begins, not where a finished one is used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustformer.errors import ConfigError
from trustformer.evaluation.translation import translate
from trustformer.experiment.compare import plan
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.experiment.saved import load_saved
from trustformer.reports.export import export

Run = Callable[..., dict[str, Any]]
UNKNOWN = "model.preset: 'ours' is none of micro, tiny, small, base, and no folder of a model"


def test_a_finished_run_is_used_from_any_directory(
    tiny_run: Run, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ("method.name=fedavg", "rounds=1", "model.preset=ours")
    tiny_run(tmp_path / "first", *values[:2])
    (tmp_path / "first" / "model").rename(tmp_path / "ours")
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "comparison" / "ours-seed1"
    result = tiny_run(run, *values)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    written = (run / "translations" / "common.txt").read_text("utf-8").splitlines()
    model, tokenizer = load_saved(run)
    sources = [line.partition("\t")[0] for line in (run / "translations" / "source.tsv").read_text().splitlines()]
    assert translate(model, tokenizer, sources) == written
    assert load_saved(run, "1")[0].config.vocab_size == model.config.vocab_size
    export(run, tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    assert tiny_run(run, *values, resume=True) == result
    (job,) = plan([("ours", load_config(run / "config.toml"))], [], tmp_path / "comparison")
    assert job.result is not None


def test_what_is_no_folder_is_refused_before_anything_is_written(
    tiny_run: Run, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(None, [*settings, "model.preset=ours"])
    out = tmp_path / "made" / "run"
    for begin in (
        lambda: tiny_run(out, "model.preset=ours"),
        lambda: prepare(config),
        lambda: plan([("ours", config)], [1, 2], out),
    ):
        with pytest.raises(ConfigError) as caught:
            begin()
        assert caught.value.message == UNKNOWN
    assert not out.parent.exists()
