# SPDX-License-Identifier: Apache-2.0
"""What a vocabulary is trained on: public text, and of very much of it an evenly spread part."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from trustformer.data.corpus import Pair
from trustformer.experiment import prepare
from trustformer.experiment.config import load_config

PAIRS = [Pair(f"исходная {number}", f"target {number}") for number in range(1000)]


@pytest.mark.parametrize("most", [2, 3, 7, 500, 1001, 1999])
def test_of_too_much_public_text_both_sides_of_evenly_spread_pairs_are_used(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(prepare, "VOCABULARY_TEXTS", most)
    texts = prepare._public_sentences(load_config(None), PAIRS)
    assert len(texts) == most // 2 * 2
    numbers = [int(text.split()[1]) for text in texts]
    assert numbers[::2] == numbers[1::2]
    assert {text.split()[0] for text in texts} == {"исходная", "target"}
    gaps = [later - earlier for earlier, later in zip(numbers[::2], [*numbers[2::2], len(PAIRS)], strict=True)]
    assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize("most", [2000, 10**9])
def test_all_of_little_public_text_is_used(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(prepare, "VOCABULARY_TEXTS", most)
    texts = prepare._public_sentences(load_config(None), PAIRS)
    assert texts == [text for pair in PAIRS for text in (pair.source, pair.target)]


@pytest.mark.parametrize("name", ["public.txt", "public.txt.gz"])
def test_lines_of_a_text_file_are_those_of_every_other_reader(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    data = "\ufeffone\u2028still one\r\ntwo\x0bstill two\n".encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    config = load_config(None, [f"tokenizer.train_on={path}"])
    assert prepare._public_sentences(config, ()) == ["one\u2028still one", "two\x0bstill two"]


def test_a_text_file_is_thinned_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "public.txt"
    path.write_text("".join(f"line {number}\n" for number in range(10)), "utf-8")
    config = load_config(None, [f"tokenizer.train_on={path}"])
    assert len(prepare._public_sentences(config, ())) == 10
    monkeypatch.setattr(prepare, "VOCABULARY_TEXTS", 4)
    assert prepare._public_sentences(config, ()) == ["line 0", "line 2", "line 5", "line 7"]
