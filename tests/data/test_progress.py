# SPDX-License-Identifier: Apache-2.0
"""Long steps over data are told of, short ones are not, and either way nothing is lost."""

from __future__ import annotations

import gzip
import threading
import time
from pathlib import Path

import pytest

from trustformer.data import progress
from trustformer.data.corpus import read_pairs
from trustformer.data.intake import IntakeOptions, prepare_folder
from trustformer.data.progress import blocks, clocked, progress_to, tracked
from trustformer.data.tokenizer import Tokenizer
from trustformer.data.toy import toy_corpus
from trustformer.errors import DataError

Told = list[tuple[str, int, int, str]]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """All that is told, as if every step took long."""
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)
    monkeypatch.setattr(progress, "_PAUSE", 0.0)
    return []


@pytest.mark.parametrize("number", [0, 1, 64, 511, 512, 513, 2000])
def test_all_items_come_in_order(told: Told, number: int) -> None:
    items = list(range(number))
    with progress_to(lambda *what: told.append(what)):
        assert list(tracked(items, "counting")) == items
        assert [item for block in blocks(items, "packing") for item in block] == items
    assert all(len(block) for block in blocks(items, "packing"))
    for step in {what for what, *_ in told}:
        numbers = [done for what, done, _, _ in told if what == step]
        assert numbers == sorted(numbers)
        assert numbers[-1] == number


def test_a_short_step_is_not_told(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 60.0)
    with progress_to(lambda *what: told.append(what)):
        assert len(list(tracked(range(5000), "counting"))) == 5000
    assert told == []


def test_nobody_is_told_outside_the_block(told: Told) -> None:
    with progress_to(lambda *what: told.append(what)):
        pass
    assert len(list(tracked(range(5000), "counting"))) == 5000
    assert told == []


def test_a_step_that_says_nothing_of_itself_has_a_clock(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_TICK", 0.05)
    with progress_to(lambda *what: told.append(what)), clocked("waiting"):
        time.sleep(0.3)
    assert {what[:1] + what[2:] for what in told[:-1]} == {("data · waiting", 0, "s")}
    assert told[-1] == ("data · waiting", 1, 1, "s")
    ended = len(told)
    time.sleep(0.2)
    assert len(told) == ended
    with clocked("unheard"), progress_to(lambda *what: told.append(what)):
        time.sleep(0.1)
    assert len(told) == ended


def test_the_clock_ends_with_a_step_that_fails(told: Told) -> None:
    with pytest.raises(DataError), progress_to(lambda *what: told.append(what)):
        Tokenizer.train([], 4000)
    assert all(thread.name != "clock" for thread in threading.enumerate())


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_reading_is_told_in_bytes_of_the_file(told: Told, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pairs.tsv{suffix}"
    text = "".join(f"строка {number}\tline {number}\n" for number in range(20_000)).encode()
    path.write_bytes(gzip.compress(text) if suffix else text)
    with progress_to(lambda *what: told.append(what)):
        assert len(read_pairs(path)[0]) == 20_000
    assert {what for what, *_ in told} == {"data · reading"}
    assert {(total, unit) for _, _, total, unit in told} == {(path.stat().st_size // 1000, "kB")}
    numbers = [done for _, done, _, _ in told]
    assert numbers == sorted(numbers)
    assert numbers[-1] == path.stat().st_size // 1000
    assert len(set(numbers)) > 2


def test_every_step_of_prepare_is_told(told: Told, tmp_path: Path) -> None:
    path = tmp_path / "pairs.tsv"
    path.write_text("".join(f"строка {number}\tline {number}\n" for number in range(5000)), "utf-8")
    with progress_to(lambda *what: told.append(what)):
        prepare_folder([str(path)], tmp_path / "out", IntakeOptions())
    steps = list(dict.fromkeys(what for what, *_ in told))
    assert steps == [f"data · {step}" for step in ("reading", "dividing", "counting", "checking", "packing")]


def test_blocks_do_not_change_what_a_tokenizer_gives(told: Told) -> None:
    sentences = [pair.source for pair in toy_corpus(1, train=1200)[0].train]
    tokenizer = Tokenizer.train(sentences, 200)
    with progress_to(lambda *what: told.append(what)):
        together = tokenizer.encode(sentences, 32)
    assert together == [tokenizer.encode([sentence], 32)[0] for sentence in sentences]
    assert told[-1][0] == "data · tokenising"


def test_an_unlabelled_pair_takes_the_label_of_the_options(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    rows = [f'{{"source": "строка {n}", "target": "line {n}"{", " if n % 2 else ""}' for n in range(400)]
    path.write_text("".join(row + ('"domain": "own"}\n' if n % 2 else "}\n") for n, row in enumerate(rows)), "utf-8")
    report = prepare_folder([str(path)], tmp_path / "out", IntakeOptions(domain="ours"))
    assert report["domains"] == {"ours": 200, "own": 200}
