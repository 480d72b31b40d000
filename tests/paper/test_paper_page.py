# SPDX-License-Identifier: Apache-2.0
"""docs/paper.md is what its generator makes of the committed results, and takes whatever runs are there."""

from __future__ import annotations

import importlib.util
import json
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import page
import pytest
import record

from trustformer.experiment.config import load_config
from trustformer.experiment.record import RunDirectory
from trustformer.reports.figures import write_files

BASE: dict[str, Any] = {"clients": 3, "chrf": 40.0, "nll": 3.0, "test_pairs": 4, "domains": {}, "nll_common": None}


def add(folder: Path, name: str, bleu: float, resampled: list[float] | None = None, **fields: Any) -> None:
    """Record a run, with a metric of its own if it is given resampled scores."""
    run = folder / name
    run.mkdir(parents=True)
    result = BASE | {"bleu": bleu, "bytes_up_total": 6e6, "bytes_down_total": 12e6, "signature": name} | fields
    (run / "result.json").write_text(json.dumps(result), "utf-8")
    if resampled is not None:
        metrics = {"signature": name, "meteor": [50.0, 52.0], "bertscore": None, "bleu_resampled": resampled}
        (run / "metrics.json").write_text(json.dumps(metrics), "utf-8")


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for module in (page, record):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path / "paper"


def test_the_committed_page_is_that_of_the_committed_results() -> None:
    """Results were added without `make paper-page`, or the page was edited by hand, if this fails."""
    assert page.PAGE.read_text("utf-8") == page.render()


def test_the_committed_figure_shows_the_committed_means() -> None:
    rows = record.load("multi30k")
    figure = " ".join(ElementTree.parse(page.ROOT / "docs" / "images" / "paper-curve.svg").getroot().itertext())
    for name in page.RATIOS:
        if name in rows:
            assert f"{rows[name].mean('bleu'):.1f}" in figure
    assert f"no communication  {rows['local'].mean('bleu'):.1f}" in figure


def test_the_committed_runs_are_of_the_committed_configs() -> None:
    """Seeds apart; a config that was changed after its runs would speak of others."""
    configs = page.ROOT / "benchmarks" / "configs"
    recorded = [path for name in ("paper", "partition") for path in (page.RESULTS / name).glob("*/config.toml")]
    assert len(recorded) > 10
    for path in recorded:
        name, _, seed = path.parent.name.rpartition("-seed")
        values = [f"seed={seed}"]
        committed = load_config(configs / path.parents[1].name / f"{name}.toml", values)
        if committed.method.name != "centroid" or committed.method.variant == "paper":
            values.append(f"method.closing_exchanges={committed.method.closing_exchanges}")  # they have none
        assert load_config(path, values) == committed, path


def test_it_says_first_that_the_published_exchange_loses_where_it_does(results: Path) -> None:
    add(results, "multi30k-local-seed1", 20.0)
    add(results, "multi30k-paper-01-seed1", 15.0)
    add(results, "multi30k-paper-1-seed1", 18.0)  # all rows: not the exchange as published
    text = page.render()
    assert text.index("ends below not communicating at all") < text.index("## What the paper says")
    assert "15.0 at ratio 0.1 (−5.0, 1 seed)." in text
    assert "18.0 at ratio 1 (" not in text


def test_it_does_not_say_so_where_it_wins_or_nothing_is_recorded(results: Path) -> None:
    assert "ends below not communicating" not in page.render()
    add(results, "multi30k-local-seed1", 20.0)
    add(results, "multi30k-paper-05-seed1", 21.0)
    assert "ends below not communicating" not in page.render()


def test_seeds_are_paired_and_counted(results: Path) -> None:
    for seed, bleu in ((1, 20.0), (2, 21.0), (3, 25.0)):
        add(results, f"multi30k-local-seed{seed}", bleu)
    for seed, bleu in ((1, 23.0), (2, 24.0)):
        add(results, f"multi30k-partition-seed{seed}", bleu)
    rows = record.load("multi30k")
    found = record.gain(rows["partition"], rows["local"])
    assert found == record.Gain(3.0, 2, None)
    assert "| `partition`, ratio 0.1 | 2 | 23.5 ± 0.7 |" in page.render()
    assert "reached so far, with fewer seeds" in page.render()


def test_an_interval_is_of_paired_resamples_and_needs_both_sides(results: Path) -> None:
    resampled = [float(value) for value in range(1000)]
    add(results, "ruen-local-seed1", 2.0, resampled)
    add(results, "ruen-fedavg-seed1", 3.0, [value + 1 for value in resampled])
    add(results, "ruen-codebook-seed1", 4.0)
    rows = record.load("ruen")
    assert record.gain(rows["fedavg"], rows["local"]) == record.Gain(1.0, 1, (1.0, 1.0))
    assert record.gain(rows["codebook"], rows["local"]) == record.Gain(2.0, 1, None)
    assert page.signed(record.Gain(-1.25, 1, (-2.0, 0.5))) == "−1.2 [−2.0, +0.5]"
    assert rows["local"].values("meteor") == [51.0]
    assert rows["local"].values("bertscore") == []


def test_metrics_of_another_run_are_left_out(results: Path) -> None:
    add(results, "ruen-local-seed1", 2.0, [1.0])
    add(results, "ruen-local-seed2", 2.0, [1.0])
    shutil.copyfile(results / "ruen-local-seed1" / "metrics.json", results / "ruen-local-seed2" / "metrics.json")
    assert sorted(record.load("ruen")["local"].metrics) == [1]


def test_with_all_data_in_one_place_no_split_counts(results: Path) -> None:
    add(results, "ruen-centralized-seed1", 5.0)
    assert record.load("ruen_iid") == {}
    add(results, "ruen_iid-local-seed1", 2.0)
    assert record.load("ruen_iid")["centralized"].values("bleu") == [5.0]


def test_what_an_exchange_does_is_shown_where_it_was_measured(results: Path) -> None:
    assert "## Why it loses" not in page.render()
    results.mkdir()
    found = {"same_number": 0.12, "same_number_by_chance": 0.1, "mean_moved": 0.4, "apart_after": 1.05}
    (results / "agreement.json").write_text(json.dumps({"run": "x", "ratios": {"0.1": found}}), "utf-8")
    assert "| 0.1 | 12 % | 10 % | 0.40 | 1.05 |" in page.render()


def test_one_exchange_is_measured_as_the_tests_of_the_codec_know_it() -> None:
    import agreement
    import numpy as np

    rng = np.random.default_rng(0)
    clients = [{"m": rng.standard_normal((50, 4)).astype(np.float32)} for _ in range(3)]
    everything = agreement.measure(clients, 1.0)  # as many clusters as rows: the average
    assert (everything["same_number"], everything["mean_moved"], everything["apart_after"]) == (1, 0, 0)
    some = agreement.measure(clients, 0.1)
    assert some["same_number"] < 0.5
    assert some["mean_moved"] > 0.01
    same = agreement.measure([clients[0], {"m": clients[0]["m"] + np.float32(1e-4)}, clients[0]], 0.1)
    assert same["same_number"] > 0.9


def test_the_figure_is_drawn_of_any_of_the_runs(results: Path, tmp_path: Path) -> None:
    add(results, "multi30k-paper-01-seed1", 15.0)
    rows = record.load("multi30k")
    (path,) = write_files(lambda t, n: page.draw_curve(rows, t, n), RunDirectory(tmp_path), "curve", ["svg"])
    assert "15.0" in " ".join(ElementTree.parse(path).getroot().itertext())


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("rouge_score", "nltk")),
    reason="the extra bench is not installed",
)
@pytest.mark.filterwarnings("ignore")
def test_metrics_of_equal_and_of_empty_translations() -> None:
    import metrics

    references = ["A man rides a red bike .", "Two dogs are playing in the snow ."]
    assert metrics.rouge(references, references)["rouge2"] == 100
    assert metrics.meteor(references, references) > 99
    assert metrics.meteor(["", ""], references) == 0
    stems = metrics.meteor(["A man riding a red bikes ."], references[:1])
    assert stems == pytest.approx(metrics.meteor(references[:1], references[:1]))
