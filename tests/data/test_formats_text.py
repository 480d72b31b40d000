# SPDX-License-Identifier: Apache-2.0
"""JSON Lines and aligned text: what is accepted, and that every refusal names file and line."""

from __future__ import annotations

import gzip
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustformer.data.aligned import aligned_files, read_aligned
from trustformer.data.corpus import DATA_VARIABLE, Pair
from trustformer.data.folder import load_folder
from trustformer.data.formats import detect, find, read_file
from trustformer.data.intake import IntakeOptions, prepare_folder
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


@given(st.text(" \t\r\n\v\f\0ab", max_size=12))
def test_a_side_is_one_line_and_only_breaks_take_spaces_along(text: str) -> None:
    plain = re.compile(r"[ \t\r\n\v\f\0]*[\t\r\n\v\f\0][ \t\r\n\v\f\0]*")  # the rule; slow on long runs
    assert one_line(text) == plain.sub(" ", text).strip()


@pytest.mark.parametrize("run", [" ", "\t", " \0", "  \n"])
def test_time_is_linear_in_the_length_of_a_line(run: str) -> None:
    start = time.process_time()
    one_line(f"a{run * 10**6}b")
    assert time.process_time() - start < 5


def write_corpora(folder: Path, *names: str) -> None:
    """Aligned files of 40 lines; each line ends in the name of its file."""
    for name in names:
        data = "".join(f"{number} {name}\n" for number in range(40)).encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)


@pytest.mark.parametrize(
    ("inputs", "read"),
    [
        (("corp.ru.gz", "corp.en.gz"), ("corp.ru.gz", "corp.en.gz")),
        (("corp.en.gz",), ("corp.ru.gz", "corp.en.gz")),
        (("corp.ru",), ("corp.ru", "corp.en")),
        (("corp",), ("corp.ru", "corp.en")),
        (("corp.ru.gz", "corp.en"), ("corp.ru.gz", "corp.en")),
        (("news.en.ru", "news.en.en"), ("news.en.ru", "news.en.en")),
        (("news.en.en",), ("news.en.ru", "news.en.en")),
        (("news.en",), ("news.ru", "news.en")),
    ],
    ids=str,
)
def test_the_files_read_are_those_that_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inputs: tuple[str, ...], read: tuple[str, str]
) -> None:
    names = ("corp.ru", "corp.en", "corp.ru.gz", "corp.en.gz", "news.ru", "news.en", "news.en.ru", "news.en.en")
    write_corpora(tmp_path, *names)
    monkeypatch.chdir(tmp_path)
    report = prepare_folder(inputs, tmp_path / "out", IntakeOptions(valid=0.2, test=0.2))
    assert [one["name"] for one in report["inputs"]] == [read[0]]
    pair = load_folder(tmp_path / "out").train[0]
    assert (pair.source.split()[1], pair.target.split()[1]) == read


@pytest.mark.parametrize(
    ("name", "read"), [("a.ru.gz", "a.ru.gz"), ("a.en", "a.ru"), ("a", "a.ru"), ("b.ru", "b.ru.gz")]
)
def test_a_file_elsewhere_is_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, read: str
) -> None:
    write_corpora(tmp_path, "a.ru", "a.en", "a.ru.gz", "a.en.gz", "b.ru.gz", "b.en.gz")
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path))
    report = prepare_folder([name], tmp_path / "out", IntakeOptions(kind="text", valid=0.2, test=0.2))
    assert [one["name"] for one in report["inputs"]] == [read]


@pytest.mark.parametrize("name", [".", "..", "/", "none"])
def test_what_is_no_corpus_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError):
        prepare_folder([name], tmp_path / "out", IntakeOptions(kind="text"))


def test_a_config_reads_the_files_that_it_names(tmp_path: Path) -> None:
    write_corpora(tmp_path, "a.ru", "a.en", "a.ru.gz", "a.en.gz", "a.en.ru", "a.en.en")
    for name, read in (
        ("a.ru.gz", ("a.ru.gz", "a.en.gz")),
        ("a.en.ru", ("a.en.ru", "a.en.en")),
        ("a", ("a.ru", "a.en")),
    ):
        pairs, _ = read_file("text", find("text", str(tmp_path / name), Path(), "ru", "en"), "ru", "en")
        assert pairs[0] == Pair(*(f"0 {file}" for file in read))


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
