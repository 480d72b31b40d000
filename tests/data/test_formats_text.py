# SPDX-License-Identifier: Apache-2.0
"""JSON Lines and aligned text: what is accepted, and that every refusal names file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustformer.data.aligned import aligned_files, read_aligned
from trustformer.data.corpus import Pair
from trustformer.data.formats import detect, read_file
from trustformer.data.jsonl import read_jsonl
from trustformer.data.lines import one_line
from trustformer.errors import DataError

SAMPLES = Path(__file__).parent / "samples"


def test_json_lines_of_all_forms() -> None:
    pairs, warnings = read_jsonl(SAMPLES / "pairs.jsonl", "ru", "en")
    assert [pair.domain for pair in pairs] == ["legal", "manual", "manual", "legal", "", "", ""]
    assert pairs[4] == Pair("Отсоедините кабель питания.", "Disconnect the power cable.")
    assert pairs[5] == Pair("Покупатель вправе отказаться от товара.", "The buyer may refuse the goods.")
    assert pairs[6] == Pair("Две строки и\u2028одна", "Two lines and one")
    assert warnings == ["pairs.jsonl: 1 pair with an empty side dropped (first at line 8)"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("json", "not JSON"),
        ("array", "a JSON list"),
        ("missing", "'target' is missing (it has source, translated)"),
        ("number", "'target' is not text"),
        ("language", "'ru' is missing (it has en, uk)"),
        ("surrogate", "surrogate"),
        ("bytes", "not UTF-8"),
        ("empty", "without a pair"),
    ],
)
def test_a_bad_twin_of_json_lines_is_refused_with_its_line(name: str, part: str) -> None:
    path = SAMPLES / f"bad_{name}.jsonl"
    with pytest.raises(DataError) as caught:
        read_jsonl(path, "ru", "en")
    assert caught.value.message.startswith(f"{path}, line 3: ")
    assert part in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    "line", ["[" * 100_000, "1" * 10_000, '{"source": ' + "[" * 100_000, "nan", '"' + "a" * (1 << 20)]
)
def test_hostile_json_is_a_data_error(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(line + "\n", "utf-8")
    with pytest.raises(DataError, match="line 1"):
        read_jsonl(path, "ru", "en")


def test_a_message_cannot_steer_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"\\u001b[31m\\u009b2J": 1}\n', "utf-8")
    with pytest.raises(DataError) as caught:
        read_jsonl(path, "ru", "en")
    assert "it has ?[31m?2J" in caught.value.message


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: (
            st.lists(x) | st.dictionaries(st.sampled_from(["source", "target", "translation", "domain", "ru", "en"]), x)
        ),
        max_leaves=8,
    )
)
def test_any_json_gives_pairs_or_a_data_error(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_text(json.dumps(value) + "\n", "utf-8")
    try:
        pairs, _ = read_jsonl(path, "ru", "en")
    except DataError:
        return
    assert all(pair.source and pair.target and one_line(pair.source) == pair.source for pair in pairs)


def test_aligned_files_read_alike_by_prefix_by_either_name_and_packed(tmp_path: Path) -> None:
    expected, warnings = read_aligned(SAMPLES / "aligned.ru", SAMPLES / "aligned.en")
    assert expected[1] == Pair("Нажмите кнопку «Сохранить».", "Press the Save button.")
    assert len(expected) == 6
    assert warnings == ["aligned.ru: 2 pairs with an empty side dropped (first at line 7)"]
    for name in ("aligned", "aligned.ru", "aligned.en"):
        assert read_file("text", SAMPLES / name, "ru", "en")[0] == expected
        assert detect(SAMPLES / name, "ru", "en") == "text"
    for language in ("ru", "en"):
        data = (SAMPLES / f"aligned.{language}").read_bytes()
        (tmp_path / f"a.{language}.gz").write_bytes(gzip.compress(data))
    for name in ("a", "a.ru.gz", "a.en"):
        assert read_file("text", tmp_path / name, "ru", "en")[0] == expected


def test_files_of_different_length_are_refused_at_the_first_line_without_a_partner() -> None:
    source, target = SAMPLES / "bad_short.ru", SAMPLES / "bad_short.en"
    with pytest.raises(DataError) as caught:
        read_aligned(source, target)
    assert caught.value.message == f"{source}, line 5: {target} has only 4 lines"
    with pytest.raises(DataError) as caught:
        read_aligned(target, source)
    assert caught.value.message == f"{source}, line 5: {target} has only 4 lines"


def test_wrong_bytes_and_missing_or_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bad_bytes\.ru, line 2: not UTF-8"):
        read_aligned(SAMPLES / "bad_bytes.ru", SAMPLES / "bad_bytes.en")
    with pytest.raises(DataError, match=r"no\.ru does not exist"):
        aligned_files(tmp_path / "no", "ru", "en")
    for language in ("ru", "en"):
        (tmp_path / f"a.{language}").write_bytes(b"\n")
    with pytest.raises(DataError, match=r"a\.ru, line 1: .*without a pair"):
        read_aligned(*aligned_files(tmp_path / "a", "ru", "en"))


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.tsv", "tsv"), ("a.TMX", "tmx"), ("A.TSV.GZ", "tsv"), ("a.jsonl.gz", "jsonl"), ("a.ndjson", "jsonl")],
)
def test_a_name_tells_the_format(name: str, kind: str) -> None:
    assert detect(Path(name), "ru", "en") == kind


def test_a_name_that_does_not_tell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.docx").touch()
    with pytest.raises(DataError, match="cannot be told") as caught:
        detect(tmp_path / "a.docx", "ru", "en")
    assert "--format" in caught.value.hint


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        detect(tmp_path / "nowhere", "ru", "en")
    with pytest.raises(DataError, match=r"corpus\.ru does not exist, nor with \.gz"):
        detect(tmp_path / "corpus.ru", "ru", "en")
    (tmp_path / "corpus.ru").touch()
    with pytest.raises(DataError, match=r"corpus\.en does not exist, nor with \.gz"):
        detect(tmp_path / "corpus.ru", "ru", "en")
