# SPDX-License-Identifier: Apache-2.0
"""Every method stops at an interrupt anywhere in a round and goes on to the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustformer.errors import ConfigError
from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run
from trustformer.reports.collect import collect


class Impatient(PlainReporter):
    """Presses Ctrl-C when it reads a text for the n-th time."""

    def __init__(self, text: str, times: int) -> None:
        super().__init__()
        self._text, self._times = text, times

    def _read(self, text: str) -> None:
        self._times -= self._text in text
        if not self._times:
            self._times = -1
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        super().note(text)
        self._read(text)

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        self._read(what)


@pytest.mark.parametrize(
    "method",
    [
        "centroid",
        "centroid method.variant=paper",
        "centroid method.variant=partition method.partition=history",
        "centroid method.variant=partition method.ratio=0.5 method.partition=drift",
        "fedavg",
        "local",
        "centralized",
    ],
)
def test_interrupted_runs_end_like_others(
    tiny_run: Callable[..., dict[str, Any]], settings: list[str], tmp_path: Path, method: str
) -> None:
    overrides = f"method.name={method}".split()
    config = load_config(None, [*settings, *overrides])
    whole = tiny_run(tmp_path / "whole", *overrides)
    moments = [("data ", 1), ("training", 1)]
    if method not in ("local", "centralized"):
        moments += [("sending", 2), ("adopting", 2)]
    moments += [("round 1/", 1), ("client 0 \u00b7 training", 1), ("validation", 1), ("translating", 1)]
    out = tmp_path / "stopped"
    stopped = 0
    for text, times in moments:
        try:
            run(config, out, Impatient(text, times), resume=True)
        except KeyboardInterrupt:
            stopped += 1
    result = run(config, out, PlainReporter(), resume=True)
    assert stopped == len(moments)
    for key in ("weights_digest", "common_digest", "nll", "bleu_per_client"):
        assert result[key] == whole[key]


def test_a_run_does_not_go_on_with_other_cohorts(settings: list[str], tmp_path: Path) -> None:
    file, out = tmp_path / "rounds.jsonl", tmp_path / "run"
    lines = ['{"present": ["0", "1"]}', *['{"present": ["0", "1", "2"]}'] * 2]
    file.write_text("\n".join(lines), "utf-8")
    config = load_config(None, [*settings, f"clients.cohorts={file}"])
    with pytest.raises(KeyboardInterrupt):
        run(config, out, Impatient("round 1/", 1), resume=True)
    file.write_text("\n".join(['{"present": ["1", "2"]}', *lines[1:]]), "utf-8")
    with pytest.raises(ConfigError, match="round 1 was played with 0, 1, the file has changed"):
        run(config, out, PlainReporter(), resume=True)
    file.write_text("\n".join(lines), "utf-8")
    assert run(config, out, PlainReporter(), resume=True)["rounds"] == 2


@pytest.mark.parametrize("method", ["local", "centralized", "fedavg"])
def test_a_run_does_not_go_on_with_other_data(
    settings: list[str], corpus_files: Path, tmp_path: Path, mini_model: None, method: str
) -> None:
    train, out = tmp_path / "train.tsv", tmp_path / "run"
    text = (corpus_files / "train.tsv").read_text("utf-8")
    lines = text.splitlines(keepends=True)
    train.write_text(text, "utf-8")
    config = load_config(None, [*settings, f"data.train={train}", f"method.name={method}"])
    with pytest.raises(KeyboardInterrupt):
        run(config, out, Impatient("round 1/", 1))
    train.write_text("".join([*lines[:-60], *reversed(lines[-60:])]), "utf-8")
    with pytest.raises(ConfigError, match="data, tokenizer or model are not those this run began with"):
        run(config, out, PlainReporter(), resume=True)
    assert not (out / "result.json").exists()
    train.write_text(text, "utf-8")
    (out / "experiment.digest").unlink()  # as older versions left a run
    assert run(config, out, PlainReporter(), resume=True)["rounds"] == 2


def test_a_finished_run_is_given_back_without_work(tiny_run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    first = tiny_run(tmp_path / "run", "method.name=local", "rounds=1")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text("utf-8"), "utf-8-sig")  # as some editors save it
    (tmp_path / "run" / "lock").unlink()  # a read-only place cannot have one
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert tiny_run(tmp_path / "run", "method.name=local", "rounds=1", resume=True) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    assert collect([tmp_path / "run"])[0].config["rounds"] == 1
