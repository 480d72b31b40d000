# SPDX-License-Identifier: Apache-2.0
"""`trustformer gain`: scores are sacreBLEU's, each client is scored on its own part, runs must belong together."""

from __future__ import annotations

import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu

from trustformer.data.corpus import Corpus, Pair, corpus_digest
from trustformer.data.folder import write_folder
from trustformer.evaluation.bootstrap import METRICS, Metric, SentenceScores, difference, draw
from trustformer.experiment.config import load_config
from trustformer.experiment.gain import folder_names, private_tests

Cli = Callable[..., Any]
Run = Callable[..., dict[str, Any]]

WORDS = ["врач", "cat", "сидит", "on", "the", "mat", "и", "reads", "a", "longer", "book", "about", "cold", "winters"]


def sentences(seed: int, count: int = 40) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 12))) + "." for _ in range(count)]


def damaged(lines: list[str], share: float) -> list[str]:
    rng = random.Random(5)
    return [" ".join(word for word in line.split() if rng.random() > share) for line in lines]


@pytest.fixture(scope="module")
def runs(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gain")
    for method in ("fedavg", "local"):
        tiny_run(folder / method, f"method.name={method}", "clients.split=domain", "evaluation.test_pairs=0")
    return folder


@pytest.mark.parametrize("metric", METRICS)
def test_sums_of_statistics_are_the_corpus_scores(metric: Metric) -> None:
    references = sentences(1)
    translations = damaged(references, 0.3)
    theirs = sacrebleu.BLEU() if metric == "bleu" else sacrebleu.CHRF()
    scores = SentenceScores(metric, translations, references)
    assert scores.score() == pytest.approx(theirs.corpus_score(translations, [references]).score, abs=1e-9)
    counts = draw(40, 3, 4)
    assert (counts.sum(axis=1) == 40).all()
    for row, score in zip(counts, scores.resampled(counts), strict=True):
        chosen = np.repeat(np.arange(40), row.astype(int))
        expected = theirs.corpus_score([translations[i] for i in chosen], [[references[i] for i in chosen]]).score
        assert score == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_a_weight_of_two_is_the_sentence_twice(metric: Metric) -> None:
    references = sentences(2, 6)
    translations = damaged(references, 0.2)
    weights = np.array([2.0, 1, 0, 1, 2, 1])
    times = [i for i, weight in enumerate(weights) for _ in range(int(weight))]
    weighted = SentenceScores(metric, translations, references, weights).score()
    repeated = SentenceScores(metric, [translations[i] for i in times], [references[i] for i in times]).score()
    assert weighted == pytest.approx(repeated, abs=1e-9)


def test_intervals_are_seeded_and_hold_the_difference() -> None:
    references = sentences(3)
    good = SentenceScores("bleu", damaged(references, 0.1), references)
    bad = SentenceScores("bleu", damaged(references, 0.5), references)
    one = difference(good, bad, draw(40, 7))
    assert one == difference(good, bad, draw(40, 7))
    assert 0 < one.low < one.mean < one.high
    same = difference(good, good, draw(40, 7))
    assert (same.mean, same.low, same.high) == (0, 0, 0)


def labelled(*domains: str) -> tuple[Pair, ...]:
    return tuple(Pair(f"s{i}", f"t{i}", domain) for i, domain in enumerate(domains))


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["data/alpha", "data/beta"], ["alpha", "beta"]),
        (["fed/client-0/ours", "fed/client-1/ours"], ["client-0/ours", "client-1/ours"]),
        (["/a/x/ours", "/b/x/ours", "ours"], ["a/x/ours", "b/x/ours", "ours"]),
        (["ours", "ours"], ["ours", "ours"]),
        ([], []),
    ],
)
def test_folders_of_one_name_are_told_apart_by_those_above(folders: list[str], names: list[str]) -> None:
    assert folder_names(folders) == names


def test_own_domains_weigh_as_in_training() -> None:
    train = labelled(*"aaabbbbbbbbbc")
    test = labelled(*"aabbcc")
    corpus = Corpus(train, test, test, "x", False, (), corpus_digest(train, test, test))
    config = load_config(None, ["clients.split=domain", "clients.count=2"])
    parts = private_tests(config, corpus, len(test))
    assert sorted(parts, key=lambda part: part[0])[1][0] == [2, 3]
    chosen, weights = min(parts, key=lambda part: part[0])
    assert chosen == [0, 1, 4, 5]
    assert weights is not None
    assert weights.tolist() == [1.5, 1.5, 0.5, 0.5]
    iid = load_config(None, ["clients.split=iid", "clients.count=2"])
    assert private_tests(iid, corpus, 4) == [([0, 1, 2, 3], None)] * 2


def test_the_table_has_every_client_and_system(cli: Cli, runs: Path) -> None:
    done = cli("gain", runs / "fedavg", "--local", runs / "local")
    assert done.code == 0, done.err
    for part in ("client", "before", "local", "own", " G ", "BLEU", "chrF", "own - local", "domains"):
        assert part in done.out
    words = " ".join(done.out.split())
    for part in ("before: G_0", "local: the same rounds alone", "own: the client's model", "G: the common model"):
        assert words.count(part) == 1, part
    assert "95 % intervals of 1,000 paired bootstrap samples" in words
    assert "[" in done.out


def test_json_agrees_with_the_runs(cli: Cli, runs: Path) -> None:
    done = cli("gain", runs / "fedavg", "--local", runs / "local", "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert json.loads((runs / "fedavg" / "gain.json").read_text("utf-8")) == report
    results = {name: json.loads((runs / name / "result.json").read_text("utf-8")) for name in ("fedavg", "local")}
    domains = results["local"]["domains"]
    assert [client["client"] for client in report["clients"]] == ["0", "1", "2"]
    assert sum(client["pairs"] for client in report["clients"]) == results["local"]["test_pairs"]
    for client in report["clients"]:
        index = int(client["client"])
        scores = [part["bleu_per_client"][index] for part in domains.values() if part["pairs"] == client["pairs"]]
        assert any(client["bleu"]["local"] == pytest.approx(score, abs=1e-6) for score in scores)
        assert client["bleu"]["own"] == client["bleu"]["common"]  # of fedavg
        gap = client["chrf"]["own_minus_local"]
        assert gap["low"] <= gap["mean"] <= gap["high"]
        assert gap["mean"] == pytest.approx(client["chrf"]["own"] - client["chrf"]["local"])


def test_without_local_a_hint_says_how_to_make_it(cli: Cli, runs: Path) -> None:
    before = runs / "fedavg" / "gain" / "before.txt"
    done = cli("gain", runs / "fedavg")
    assert done.code == 0, done.err
    assert "method.name=local" in done.err
    written = before.stat().st_mtime_ns
    report = json.loads(cli("gain", runs / "fedavg", "--json").out)
    assert before.stat().st_mtime_ns == written  # translated once
    assert report["clients"][0]["bleu"]["local"] is None
    assert report["clients"][0]["bleu"]["own_minus_local"] is None


def test_what_cannot_be_kept_is_shown_all_the_same(cli: Cli, runs: Path, tmp_path: Path) -> None:
    run = shutil.copytree(runs / "fedavg", tmp_path / "run", ignore=shutil.ignore_patterns("gain", "gain.json"))
    (run / "gain").write_text("no folder")
    (run / "gain.json.new").mkdir()
    done = cli("gain", run, "--json")
    assert done.code == 0, done.err
    assert len(json.loads(done.out)["clients"]) == 3
    for name in ("before.txt", "gain.json"):
        assert re.search(rf"warning: not kept: .*{name} cannot be written: ", done.err)


def test_runs_that_do_not_belong_together_are_refused(cli: Cli, runs: Path, tiny_run: Run, tmp_path: Path) -> None:
    assert cli("gain", runs / "local").code == 2
    done = cli("gain", runs / "fedavg", "--local", runs / "fedavg")
    assert (done.code, "method.name=local" in done.err) == (2, True)
    other = ("method.name=local", "clients.split=domain", "evaluation.test_pairs=0", "seed=2", "rounds=1")
    tiny_run(tmp_path / "other", *other)
    done = cli("gain", runs / "fedavg", "--local", tmp_path / "other")
    assert done.code == 2
    assert "seed, rounds" in done.err
    assert cli("gain", tmp_path).code == 2


def test_a_run_without_every_clients_own_scores_is_refused(cli: Cli, tiny_run: Run, tmp_path: Path) -> None:
    tiny_run(tmp_path / "run", "evaluation.clients=1", "rounds=1")
    code, _, err = cli("gain", tmp_path / "run")
    assert code == 2
    assert "did not score every client's own model" in err


def test_a_folder_a_client_is_tested_on_its_own_with_the_tokenizer_of_its_language(
    cli: Cli, tiny_run: Run, corpus_files: Path, settings: list[str], tmp_path: Path
) -> None:
    files = {
        name: (corpus_files / f"{name}.tsv").read_text("utf-8").splitlines() for name in ("train", "valid", "test")
    }
    pairs = {name: [Pair(*line.split("\t")) for line in lines] for name, lines in files.items()}
    pairs["test"] = [Pair(pair.source, f"她想去{i}北京学习中文。") for i, pair in enumerate(pairs["test"])]
    cuts = {"a": (slice(0, 12), slice(0, 2)), "b": (slice(12, 40), slice(2, 6))}
    for name, (train, test) in cuts.items():
        splits = {"train": pairs["train"][train], "valid": pairs["valid"][test], "test": pairs["test"][test]}
        write_folder(tmp_path / name, splits, {"report.json": '{"languages": ["ru", "zh"]}'})
    public = tmp_path / "public.txt"
    public.write_text("\n".join(side for pair in pairs["train"][40:] for side in (pair.source, pair.target)), "utf-8")
    folders = json.dumps([str(tmp_path / name) for name in cuts])
    data = [f"clients.folders={folders}", f"tokenizer.train_on={public}", "tokenizer.vocab_size=150"]
    kept = [value for value in settings if not value.startswith(("data.", "tokenizer.", "evaluation.test"))]
    from trustformer.experiment.reporter import PlainReporter
    from trustformer.experiment.runner import run

    config = load_config(None, [*kept, "data.source=folder", *data, "method.name=fedavg", "rounds=1"])
    assert config.clients.count == 2
    assert "|tok:zh|" in run(config, tmp_path / "run", PlainReporter())["sacrebleu_signature"]
    lines = [pair.target.replace("学习", "学") for pair in pairs["test"]]
    (tmp_path / "run" / "translations" / "1.txt").write_text("\n".join([*lines, ""]), "utf-8")
    report = json.loads(cli("gain", tmp_path / "run", "--json").out)
    assert [(client["folder"], client["pairs"]) for client in report["clients"]] == [("a", 2), ("b", 4)]
    assert "split:folders" in report["run"]
    expected = (
        sacrebleu.BLEU(tokenize="zh").corpus_score(lines[2:], [[pair.target for pair in pairs["test"][2:6]]]).score
    )
    assert expected > 30
    assert report["clients"][1]["bleu"]["own"] == pytest.approx(expected, abs=1e-6)
