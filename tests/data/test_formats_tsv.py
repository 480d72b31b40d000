# SPDX-License-Identifier: Apache-2.0
"""Sample files of tab-separated pairs, labels and single texts, and their bad twins."""

from __future__ import annotations

from pathlib import Path

import pytest

from trustformer.data.corpus import Pair, read_lines, read_pairs
from trustformer.errors import DataError

SAMPLES = Path(__file__).parent / "samples"


@pytest.mark.parametrize("name", ["pairs.tsv", "pairs.tsv.gz"])
def test_pairs_with_labels(name: str) -> None:
    """The sample has a byte order mark, CRLF, a protected space and an empty side."""
    pairs, warnings = read_pairs(SAMPLES / name, SAMPLES / "pairs.domain")
    assert [pair.domain for pair in pairs] == ["legal", "manual", "manual", "legal"]
    assert pairs[1] == Pair("Нажмите кнопку «Сохранить».", "Press the Save button.", "manual")
    assert pairs[2].target == "The temperature must not exceed 40\u00a0°C."
    assert warnings == [f"{name}: 1 pair with an empty side dropped (first at line 4)"]


@pytest.mark.parametrize(
    ("name", "line", "part"),
    [
        ("bad_spaces.tsv", 3, "1 field where source<TAB>target has 2"),
        ("bad_columns.tsv", 3, "3 fields"),
        ("bad_blank.tsv", 3, "an empty line where"),
        ("bad_bytes.tsv", 3, "not UTF-8"),
        ("bad_empty.tsv", 3, "all 3 rows have an empty side"),
    ],
)
def test_a_bad_twin_of_pairs_is_refused_with_its_line(name: str, line: int, part: str) -> None:
    path = SAMPLES / name
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert caught.value.message.startswith(f"{path}, line {line}: ")
    assert part in caught.value.message
    assert caught.value.hint


def test_a_damaged_archive_is_refused_by_its_name() -> None:
    """What is cut off in a compressed stream has no line."""
    with pytest.raises(DataError, match=r"bad_truncated\.tsv\.gz is truncated"):
        read_pairs(SAMPLES / "bad_truncated.tsv.gz")


@pytest.mark.parametrize(
    ("labels", "where"),
    [
        ("bad_missing.domain", "pairs.tsv, line 5: {folder}/bad_missing.domain has only 4 lines"),
        ("bad_more.domain", "bad_more.domain, line 6: {folder}/pairs.tsv has only 5 lines"),
        ("bad_empty.domain", "bad_empty.domain, line 2: the domain label is empty"),
    ],
)
def test_a_bad_twin_of_labels_is_refused_with_its_line(labels: str, where: str) -> None:
    with pytest.raises(DataError) as caught:
        read_pairs(SAMPLES / "pairs.tsv", SAMPLES / labels)
    assert caught.value.message == f"{SAMPLES}/{where.format(folder=SAMPLES)}"


def test_single_texts() -> None:
    pairs, warnings = read_lines(SAMPLES / "texts.txt", SAMPLES / "pairs.domain")
    assert [pair.source == pair.target for pair in pairs] == [True] * 4
    assert [pair.domain for pair in pairs] == ["legal", "manual", "manual", "legal"]
    assert warnings == ["texts.txt: 1 pair with an empty side dropped (first at line 4)"]


@pytest.mark.parametrize(
    ("name", "line", "part"), [("bad_bytes.txt", 3, "not UTF-8"), ("bad_empty.txt", 3, "ends without a pair")]
)
def test_a_bad_twin_of_single_texts_is_refused_with_its_line(name: str, line: int, part: str) -> None:
    with pytest.raises(DataError, match=f"line {line}: .*{part}"):
        read_lines(SAMPLES / name)
