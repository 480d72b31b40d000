# SPDX-License-Identifier: Apache-2.0
"""`trustformer prepare`: the same bytes for the same input, the same split at every client, nothing overwritten."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustformer.data.corpus import Pair
from trustformer.data.folder import load_folder, write_folder
from trustformer.data.lines import one_line
from trustformer.data.split import divide, normalise, split_of
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.config import load_config
from trustformer.experiment.corpora import read_corpus, read_folders

Cli = Callable[..., Any]

SAMPLES = Path(__file__).parents[1] / "data" / "samples"
SHARES = ("--valid", "0.1", "--test", "0.1")


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """120 different sentences in tsv, five of them twice, and one with two translations."""
    lines = [f"Это предложение номер {i}.\tThis is sentence number {i}." for i in range(120)]
    lines += [*lines[:5], "ЭТО  предложение номер 7.\tThis here is number 7."]
    path = tmp_path / "memory.tsv"
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_has_three_splits_and_a_report(cli: Cli, memory: Path, tmp_path: Path) -> None:
    done = cli("prepare", memory, "--out", tmp_path / "out", *SHARES)
    assert done.code == 0, done.err
    folder = contents(tmp_path / "out")
    assert list(folder) == ["report.json", "report.txt", "test.tsv.gz", "train.tsv.gz", "valid.tsv.gz"]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700  # it holds the text
    report = json.loads(folder["report.json"])
    corpus = load_folder(tmp_path / "out")
    sizes = {"train": len(corpus.train), "valid": len(corpus.valid), "test": len(corpus.test)}
    assert report["pairs"] == sizes
    assert (report["pairs_read"], sum(sizes.values())) == (126, 121)
    assert report["duplicates"]["repeated"] == 5
    assert report["duplicates"]["same_source_other_translation"] == 1
    assert report["corpus_digest"] == corpus.digest
    assert sum(report["length_words"]["source"]) == 121
    assert "126 pairs read, 121 kept" in done.out
    assert "####" in done.out
    assert folder["report.txt"].decode() in done.out
    kept = cli("prepare", memory, "--out", tmp_path / "kept", *SHARES, "--keep-repeated", "--json")
    assert sum(json.loads(kept.out)["pairs"].values()) == 126


def test_sets_too_small_to_score_are_told(cli: Cli, memory: Path, tmp_path: Path) -> None:
    done = cli("prepare", memory, "--out", tmp_path / "few", *SHARES)
    numbers = json.loads((tmp_path / "few" / "report.json").read_text("utf-8"))["pairs"]
    for name, score in (("valid", "the loss"), ("test", "BLEU")):
        assert f"only {numbers[name]} {name} pairs: {score} of so few says little; all clients must agree" in done.out
        assert f"a larger --{name}\n" in done.out
    many = tmp_path / "many.tsv"
    many.write_text("".join(f"Предложение {i}.\tSentence {i}.\n" for i in range(700)), "utf-8")
    done = cli("prepare", many, "--out", tmp_path / "many", "--valid", "0.2", "--test", "0.2")
    assert done.code == 0, done.err
    assert "only" not in done.out
    assert "a random split would put no source of a test pair into train either" in done.out  # all differ


def test_the_same_input_gives_the_same_bytes(cli: Cli, memory: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert cli("prepare", memory, SAMPLES / "memory.tmx", "--out", tmp_path / name, *SHARES).code == 0
    one = contents(tmp_path / "a")
    assert one == contents(tmp_path / "b")
    assert {"train.domains.gz", "valid.domains.gz", "test.domains.gz"} <= one.keys()
    labels = [gzip.decompress(data).decode().split() for name, data in one.items() if "domains" in name]
    assert {label for part in labels for label in part} == {"legal", "manual", "unlabelled"}
    report = json.loads(one["report.json"])
    assert set(report["domains"]) == {"legal", "manual", "unlabelled"}
    assert sum(report["domains"].values()) == sum(report["pairs"].values())
    assert load_folder(tmp_path / "a").name == "a"


def test_two_clients_put_the_same_sentence_in_the_same_split(cli: Cli, memory: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    rows = [{"source": f"  это Предложение номер {i}. ", "target": f"Another {i}."} for i in range(0, 200, 2)]
    other.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    for name, path in (("a", memory), ("b", other)):
        assert cli("prepare", path, "--out", tmp_path / name, *SHARES).code == 0
    joined = read_folders((str(tmp_path / "a"), str(tmp_path / "b")), 0)
    sides = [{normalise(pair.source) for pair in part} for part in (joined.train, joined.valid, joined.test)]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not sides[one] & sides[other]
    assert [sum(sizes) for sizes in joined.owners] == [121, 100]


@given(st.text(min_size=1), st.sampled_from([str.upper, str.strip, lambda text: f" {text}\u3000"]))
def test_a_split_depends_on_the_normalised_source_alone(text: str, change: Callable[[str], str]) -> None:
    if normalise(change(text)) == normalise(text):
        assert split_of(change(text), 0.2, 0.2) == split_of(text, 0.2, 0.2)
    if split_of(text, 0.1, 0.1) == "test":
        assert split_of(text, 0.3, 0.1) == "test"


@given(st.lists(st.tuples(st.text(), st.text(), st.text(max_size=3)), max_size=6))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    sides = [(one_line(source), one_line(target), one_line(label)) for source, target, label in rows]
    pairs = [Pair(*side) for side in sides if side[0] and side[1]] or [Pair("a", "b")]
    folder = tmp_path_factory.mktemp("any") / "out"
    write_folder(folder, {"train": pairs, "valid": pairs[:1], "test": pairs[-1:]}, {})
    labelled = any(pair.domain for pair in (*pairs, *pairs[:1]))
    expected = [replace(pair, domain=pair.domain or "unlabelled") for pair in pairs] if labelled else pairs
    assert list(load_folder(folder).train) == expected


def test_a_source_that_differs_in_case_alone_is_no_other_translation() -> None:
    pairs = [Pair(f"sentence {i}", "x") for i in range(100)]
    for more, variants in (
        ([("Да.", "Yes."), ("да.", "Yes.")], 0),
        ([("Да.", "Yes."), ("да.", "Yes, it is."), ("ДА.", "Yes."), ("Да.", "Yep.")], 2),
    ):
        division = divide([pairs, [Pair(*sides) for sides in more]], valid=0.2, test=0.2)
        assert (division.variants, division.repeated) == (variants, 0)


def test_a_line_that_is_too_long_costs_no_more_than_its_length() -> None:
    """Normalising sorts accents by insertion."""
    pairs = [*(Pair(f"sentence {i}", "x") for i in range(100)), Pair("a" + "\u0301\u0323" * 100_000, "x")]
    start = time.process_time()
    assert divide([pairs], valid=0.2, test=0.2).too_long == 1
    assert time.process_time() - start < 5


@pytest.mark.parametrize("option", [("--hf-split", "train"), ("--hf-config", "ru-en")], ids=" ".join)
def test_options_of_data_sets_are_not_of_files(cli: Cli, memory: Path, tmp_path: Path, option: tuple[str, str]) -> None:
    done = cli("prepare", memory, "--out", tmp_path / "out", *SHARES, *option)
    assert (done.code, "--hf-config and --hf-split are of data sets" in done.err) == (2, True)


@pytest.mark.parametrize("option", ["--domain", "--source-language", "--target-language"])
def test_an_option_that_is_not_utf8_is_refused_before_anything_is_read(cli: Cli, tmp_path: Path, option: str) -> None:
    done = cli("prepare", tmp_path / "none.tsv", "--out", tmp_path / "out", option, "m\udce9mo")
    assert (done.code, f"{option} 'm?mo' is not UTF-8" in done.err) == (2, True)


def test_an_input_whose_name_is_not_utf8_is_read(cli: Cli, memory: Path, tmp_path: Path) -> None:
    odd = tmp_path / "m\udce9moire.jsonl"
    rows = [{"source": f"Слово {i}", "target": "x" * (i > 0)} for i in range(60)]
    odd.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = cli("prepare", odd, memory, "--out", tmp_path / "o\udce9t", *SHARES)
    assert done.code == 0, done.err
    assert "m?moire.jsonl: 1 pair with an empty side" in done.out
    report = json.loads((tmp_path / "o\udce9t" / "report.json").read_text("utf-8"))
    assert [one["name"] for one in report["inputs"]] == ["m?moire.jsonl", "memory.tsv"]


def test_shares_are_what_was_asked_for() -> None:
    pairs = [Pair(f"sentence {i}", "x") for i in range(5000)]
    division = divide([pairs], valid=0.04, test=0.02)
    assert len(division.splits["valid"]) == pytest.approx(200, abs=45)
    assert len(division.splits["test"]) == pytest.approx(100, abs=32)
    assert (division.leaked, division.repeated, division.shared) == (0, 0, 0)
    twice = divide([pairs, pairs], valid=0.04, test=0.02)
    assert (twice.repeated, twice.shared) == (5000, 5000)
    assert twice.leaked == 0  # what is dropped leaks nowhere
    kept = divide([pairs, pairs], valid=0.04, test=0.02, keep_repeated=True)
    assert kept.leaked == pytest.approx(10_000 * 0.02 * 0.94)


@pytest.mark.parametrize("shares", [(0, 0.1), (0.1, 0), (0.3, 0.3), (-0.1, 0.2), (float("nan"), 0.1)])
def test_shares_out_of_range_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="shares"):
        divide([[Pair("a", "b")]], valid=shares[0], test=shares[1])


def test_a_split_without_a_pair_is_refused() -> None:
    with pytest.raises(DataError, match="no pair falls into") as caught:
        divide([[Pair("a", "b")]], valid=0.1, test=0.1)
    assert "--test" in caught.value.hint


@pytest.mark.parametrize(
    "inputs",
    [["aligned.ru", "aligned.en"], ["aligned"], ["aligned.en"]],
)
def test_aligned_files_are_one_input(cli: Cli, tmp_path: Path, inputs: list[str]) -> None:
    values = ("--valid", "0.2", "--test", "0.25", "--domain", "legal", "--json")
    done = cli("prepare", *(SAMPLES / name for name in inputs), "--out", tmp_path / "out", *values)
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert [one["pairs"] for one in report["inputs"]] == [6]
    assert report["domains"] == {"legal": 6}
    assert any("2 pairs with an empty side" in warning for warning in report["warnings"])


def test_aligned_files_of_other_names_are_taken_in_turn(cli: Cli, tmp_path: Path) -> None:
    for name, language in (("one.txt", "ru"), ("two.txt", "en")):
        (tmp_path / name).write_bytes((SAMPLES / f"aligned.{language}").read_bytes())
    files = [tmp_path / "one.txt", tmp_path / "two.txt"]
    values = ("--format", "text", "--valid", "0.2", "--test", "0.25", "--out")
    assert cli("prepare", *files, *values, tmp_path / "out").code == 0
    done = cli("prepare", *files, files[0], *values, tmp_path / "out2")
    assert (done.code, "no partner" in done.err) == (2, True)


def test_what_looks_wrong_is_counted(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "odd.tsv"
    lines = [f"Sentence number {i}.\tПредложение номер {i}." for i in range(60)]
    lines += [
        "same\tsame",
        "короткое\t" + "long " * 40,
        "bad \ufffd\tплохо",
        "x" * 10_001 + "\ty",
        "\ufeff\tx",
        "x\t\0",
    ]
    path.write_text("\n".join(lines), "utf-8")
    done = cli("prepare", path, "--out", tmp_path / "out", *SHARES)
    for part in (
        "1 pair with a side of more than 10,000 characters dropped",
        "2 pairs with a side of nothing but marks",
        "1 pair with both sides equal",
        "1 pair with one side more than 4 times as long",
        "1 pair with a replacement character",
        "62 pairs whose source has no Cyrillic letter",
        "61 pairs whose target has no Latin letter",
        "swapped",
    ):
        assert part in done.out, part


def test_labels_of_a_foreign_file_cannot_steer_a_terminal(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    label = "\x1b]0;mine\x07\x1b[31mred" + "d" * 60
    rows = [{"source": f"слово {i}", "target": f"word {i}", "domain": label} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = cli("prepare", path, "--out", tmp_path / "out", *SHARES)
    assert done.code == 0, done.err
    shown = f"domains: ?]0;mine??[31mred{'d' * 60} 60\n"
    for text in (done.out, (tmp_path / "out" / "report.txt").read_text("utf-8")):
        assert "\x1b" not in text
        assert shown in text
    assert json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["domains"] == {label: 60}


def test_nothing_is_overwritten_and_nothing_half_written(
    cli: Cli, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    assert cli("prepare", memory, "--out", out, *SHARES).code == 0  # an empty folder is free
    before = contents(out)
    done = cli("prepare", memory, "--out", out, *SHARES)
    assert (done.code, "already exists" in done.err) == (2, True)
    assert cli("prepare", memory, "--out", memory, *SHARES).code == 2
    assert contents(out) == before

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = cli("prepare", memory, "--out", tmp_path / "deep" / "other", *SHARES)
    assert (done.code, "No space left" in done.err) == (1, True)
    assert [path.name for path in out.parent.iterdir()] == ["out"]


def test_a_file_is_the_one_that_is_named(
    cli: Cli, memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the folder TRUSTFORMER_DATA names has files of the same names; and what is only there is found there."""
    here, data = tmp_path / "here", tmp_path / "data"
    for folder, text in ((here, "here"), (data, "there")):
        folder.mkdir()
        for name in ("mine.ru", "mine.en"):
            (folder / name).write_text("".join(f"{text} {number}\n" for number in range(120)), "utf-8")
        (folder / "mine.tsv").write_text("".join(f"{text} {number}\tx\n" for number in range(120)), "utf-8")
    shutil.copy(memory, data / "only.tsv")
    monkeypatch.chdir(here)
    monkeypatch.setenv("TRUSTFORMER_DATA", str(data))
    for name, expected in (("mine.tsv", "here"), ("mine", "here"), ("mine.en", "here"), ("only.tsv", "Это")):
        assert cli("prepare", name, "--out", f"{name}.out", *SHARES).code == 0
        assert {pair.source.split()[0] for pair in load_folder(here / f"{name}.out").train} <= {expected, "ЭТО"}


@pytest.mark.parametrize(("name", "more"), [("pairs.txt", ("--format", "tsv")), ("UP.TSV", ())])
def test_a_format_that_is_given_or_told_in_capitals_is_read(
    cli: Cli, memory: Path, tmp_path: Path, name: str, more: tuple[str, ...]
) -> None:
    shutil.copy(memory, tmp_path / name)
    assert cli("prepare", tmp_path / name, "--out", tmp_path / "out", *SHARES, *more).code == 0


def test_an_error_names_file_and_line(cli: Cli, tmp_path: Path) -> None:
    done = cli("prepare", SAMPLES / "bad_entity.tmx", "--out", tmp_path / "out")
    assert done.code == 1
    assert "bad_entity.tmx, line 3:" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("kind", "name"), [("tmx", "memory.tmx"), ("jsonl", "pairs.jsonl"), ("text", "aligned")])
def test_a_config_takes_every_format(kind: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTFORMER_DATA", str(SAMPLES))
    corpus = read_corpus(
        load_config(None, [f"data.source={kind}", *(f"data.{s}={name}" for s in ("train", "valid", "test"))]).data
    )
    assert corpus.train == corpus.test
    assert len(corpus.train) >= 4
    assert any("also occur in train" in warning for warning in corpus.warnings)


def test_a_config_takes_a_folder(cli: Cli, memory: Path, tmp_path: Path) -> None:
    cli("prepare", memory, "--out", tmp_path / "out", *SHARES)
    config = load_config(None, ["data.source=folder", f"data.train={tmp_path / 'out'}"])
    assert read_corpus(config.data) == load_folder(tmp_path / "out")
    (tmp_path / "out" / "valid.tsv.gz").unlink()
    with pytest.raises(DataError, match=r"valid\.tsv\.gz is missing"):
        read_corpus(config.data)


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (["data.source=tmx", "data.train=a.tmx"], "data.valid is missing"),
        (["data.source=folder"], "data.train is missing"),
        (["data.source=hf"], "data.name is missing"),
        (["data.source=folder", "data.train=a", "data.test=b"], "data.test is not of folders"),
        (["data.source=hf", "data.name=a", "data.train_domains=b"], "data.train_domains is of tsv"),
        (["data.source_language=r u"], "data.source_language"),
        (['clients.folders=["a", "b"]'], "clients.folders"),
        (['clients.folders=["a", "b"]', "data.source=folder"], "clients.folders is public"),
        (['clients.folders=["a", "b"]', "data.source=folder", "clients.count=3"], "clients.count is 3"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(values: list[str], part: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, values)
    assert part in caught.value.message


def test_new_keys_at_their_defaults_leave_old_records_as_they_were() -> None:
    text = load_config(None).to_toml()
    for key in ("source_language", "target_language", "folders"):
        assert key not in text
    config = load_config(None, ["data.source_language=de"])
    assert 'source_language = "de"' in config.to_toml()
