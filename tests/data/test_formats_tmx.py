# SPDX-License-Identifier: Apache-2.0
"""Translation memories: tags, variants and encodings; attacks and damage end with file and line."""

from __future__ import annotations

import gzip
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustformer.data.corpus import Pair
from trustformer.data.tmx import clean, read_tmx
from trustformer.errors import DataError

SAMPLES = Path(__file__).parent / "samples"
PAIRS = [
    Pair("Договор вступает в силу с момента подписания.", "The contract takes effect upon signature.", "legal"),
    Pair("Нажмите кнопку «Сохранить».", "Press the Save button.", "manual"),
    Pair(
        "Температура не должна превышать 40\u00a0°C.",
        "The temperature must not exceed 40\u00a0°C & not fall.",
        "manual",
    ),
    Pair("Стороны несут ответственность по закону.", "The parties are liable under the law.", "legal"),
]
OUT_OF_ORDER = "\u0301\u0323"
"""Accents, which normalising sorts by insertion."""
FORM = '<tmx version="1.4"><header/><body>{}</body></tmx>'


def unit(source: str, target: str) -> str:
    return f'<tu><tuv xml:lang="ru"><seg>{source}</seg></tuv><tuv xml:lang="en"><seg>{target}</seg></tuv></tu>'


@pytest.mark.parametrize("name", ["memory.tmx", "memory_utf16.tmx", "memory_windows1251.tmx"])
def test_a_memory_reads_alike_in_every_encoding(name: str) -> None:
    pairs, warnings = read_tmx(SAMPLES / name, "ru", "en")
    assert pairs == PAIRS
    assert warnings == [
        f"{name}: 1 unit with several variants of a language; that of its code or the first was used "
        "(first at line 16)",
        f"{name}: 1 unit without one of the languages dropped (first at line 22)",
        f"{name}: 1 unit with an empty side dropped (first at line 23)",
    ]


def test_gzip_and_other_languages(tmp_path: Path) -> None:
    packed = tmp_path / "memory.tmx.gz"
    packed.write_bytes(gzip.compress((SAMPLES / "memory.tmx").read_bytes()))
    assert read_tmx(packed, "RU", "en")[0] == PAIRS
    assert [pair.target for pair in read_tmx(packed, "ru", "de")[0]] == [
        "Die Temperatur darf 40 °C nicht überschreiten.",
        "Nur Deutsch.",
    ]
    assert [pair.target for pair in read_tmx(packed, "ru", "en_gb")[0]] == ["A second English variant."]


@pytest.mark.parametrize(
    ("source", "target", "variants", "sides"),
    [
        ("zh", "zh-TW", ("zh-TW", "zh"), ("zh", "zh-TW")),
        ("zh-TW", "zh", ("zh-TW", "zh"), ("zh-TW", "zh")),
        ("zh", "zh-TW", ("zh-TW", "zh-CN"), ("zh-CN", "zh-TW")),
        ("en-GB", "en", ("en-GB-oxendict", "en-US"), ("en-GB-oxendict", "en-US")),
        ("pt", "pt-BR", ("pt-BR",), None),
        ("ru", "en", ("en-GB", "en", "ru-RU"), ("ru-RU", "en")),
        ("ru", "en", ("en-GB", "en-US", "ru"), ("ru", "en-GB")),
        ("zh", "en", ("zh-TW", "en"), ("zh-TW", "en")),
    ],
)
def test_a_side_is_the_variant_that_its_code_says_best(
    tmp_path: Path, source: str, target: str, variants: tuple[str, ...], sides: tuple[str, str] | None
) -> None:
    path = tmp_path / "a.tmx"
    unit = "".join(f'<tuv xml:lang="{code}"><seg>{code}</seg></tuv>' for code in variants)
    path.write_text(FORM.format(f"<tu>{unit}</tu>"), "utf-8")
    if sides is None:
        with pytest.raises(DataError, match="without a unit in both"):
            read_tmx(path, source, target)
    else:
        assert read_tmx(path, source, target)[0] == [Pair(*sides)]


@pytest.mark.parametrize(
    ("name", "line", "part"),
    [
        ("bad_entity", 3, "declares the entity 'a'"),
        ("bad_external", 3, "declares the entity 'file'"),
        ("bad_undefined", 22, "&nbsp; is not defined"),
        ("bad_unclosed", 9, "mismatched tag"),
        ("bad_root", 2, "root is <xliff>"),
        ("bad_bytes", 22, "not well-formed"),
        ("bad_languages", 30, "uk-ru"),
        ("bad_encoding", 1, "x-klingon"),
        ("bad_nested", 22, "<seg> inside <seg>"),
    ],
)
def test_a_bad_twin_is_refused_with_its_line(name: str, line: int, part: str) -> None:
    path = SAMPLES / f"{name}.tmx"
    with pytest.raises(DataError) as caught:
        read_tmx(path, "ru", "en")
    assert caught.value.message.startswith(f"{path}, line {line}: ")
    assert part in caught.value.message
    assert caught.value.hint


def test_a_truncated_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.tmx"
    path.write_bytes((SAMPLES / "memory.tmx").read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cut\.tmx, line \d+: not well-formed"):
        read_tmx(path, "ru", "en")
    path.write_bytes(b"")
    with pytest.raises(DataError, match="line 1: not well-formed"):
        read_tmx(path, "ru", "en")
    with pytest.raises(DataError, match="does not exist"):
        read_tmx(tmp_path / "no.tmx", "ru", "en")


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ("one<ph/>two", "one two"),
        ("one <ph/> two", "one two"),
        ("one <ph/>.", "one."),
        ("don<bpt>b</bpt>'t<ept>b</ept>", "don't"),
        ("un<bpt>i</bpt>believ<ept>i</ept>able", "unbelievable"),
        ("a<ut>x<sub>y</sub></ut>, b", "a, b"),
        ("  a\n\t b  ", "a b"),
        ("a <it>x</it>)", "a)"),
        ("(<ph/> a", "( a"),
        ("<hi>a <hi>b</hi></hi>", "a b"),
        ("<![CDATA[a & b]]>", "a & b"),
        ("&#x41;&lt;", "A<"),
    ],
)
def test_tags_leave_sane_white_space(tmp_path: Path, segment: str, text: str) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(FORM.format(unit(segment, "x")), "utf-8")
    assert read_tmx(path, "ru", "en")[0] == [Pair(text, "x")]


@given(st.text(st.characters(codec="utf-8")))
def test_cleaning_leaves_one_line_and_is_done_once(text: str) -> None:
    once = clean(text)
    assert not set(once) & set("\0\1\t\r\n")
    assert clean(once) == once


@given(st.text(" \0\1a.", max_size=12))
def test_a_tag_before_closing_punctuation_takes_the_spaces_along(text: str) -> None:
    plain = re.compile(r"[ \0\1]*[\0\1][ \0\1]*(?=[.])")  # the rule in so many words, slow on long runs
    assert clean(text) == clean(plain.sub("", re.sub(" +", " ", text)))


@pytest.mark.parametrize("code", ["<ph/>", "<bpt/> ", " <ph/><bpt/>"])
def test_time_is_linear_in_the_length_of_a_segment(tmp_path: Path, code: str) -> None:
    path = tmp_path / "a.tmx"
    path.write_text(FORM.format(unit(f"a{code * 100_000}b", "x")), "utf-8")
    start = time.process_time()
    assert len(read_tmx(path, "ru", "en")[0]) == 1
    assert time.process_time() - start < 5


def test_time_is_linear_in_the_length_of_a_language_code(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    odd = unit("a", "b").replace('"ru"', f'"{OUT_OF_ORDER * 100_000}"')
    path.write_text(FORM.format(odd + unit("да", "yes")), "utf-8")
    start = time.process_time()
    assert read_tmx(path, "ru", "en")[0] == [Pair("да", "yes")]
    assert time.process_time() - start < 5


def test_depth_length_and_tokens_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx"
    for body, part in (
        ("<x>" * 100, "nested deeper"),
        (unit("a" * (1 << 20) + "b", "x"), "longer than 1 MiB"),
        (f"<!--{'-a' * (6 << 20)}", "more than 4 MiB"),
        (f'<tu a="{"a" * (6 << 20)}"/>', "more than 4 MiB"),
    ):
        path.write_text(FORM.format(body), "utf-8")
        with pytest.raises(DataError, match=f"line 1: .*{part}"):
            read_tmx(path, "ru", "en")


def test_memory_holds_the_pairs_and_no_more(tmp_path: Path) -> None:
    path = tmp_path / "a.tmx.gz"
    junk = f"<note>{'junk ' * 2000}</note>\n"
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=1) as file:
        head, tail = FORM.split("{}")
        file.write(head + unit("да", "yes") + junk * 1000 + tail)
    tracemalloc.start()
    pairs, _ = read_tmx(path, "ru", "en")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 1
    assert peak < 2 << 20  # of 10 MB of text
