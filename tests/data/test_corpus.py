# SPDX-License-Identifier: Apache-2.0
"""Reading pairs: what is accepted, what is counted, and that every refusal names file and line."""

from __future__ import annotations

import gzip
import os
import random
import threading
from pathlib import Path

import pytest

from trustformer.data.corpus import (
    MAX_LINE_BYTES,
    Corpus,
    Pair,
    corpus_digest,
    load_tsv,
    make_corpus,
    read_pairs,
    resolve_path,
)
from trustformer.errors import DataError


def write(path: Path, data: str | bytes) -> Path:
    data = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(data) if path.suffix.lower() == ".gz" else data)
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return {
        "train": write(tmp_path / "train.tsv.gz", "да\tyes\nнет\tno\nкот\tcat\n"),
        "valid": write(tmp_path / "valid.tsv", "дом\thouse\n"),
        "test": write(tmp_path / "test.tsv", "сад\tgarden\n"),
    }


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz", "a.txt", "A.TSV", "A.TSV.GZ"])
@pytest.mark.parametrize(
    "text",
    ["да\tyes\nнет\tno\n", "да\tyes\r\nнет\tno\r\n", "\ufeffда\tyes\nнет\tno", " да \t yes\nнет\tno \n"],
)
def test_plain_gzip_crlf_bom_and_outer_space_read_alike(tmp_path: Path, name: str, text: str) -> None:
    pairs, warnings = read_pairs(write(tmp_path / name, text))
    assert pairs == [Pair("да", "yes"), Pair("нет", "no")]
    assert warnings == []


@pytest.mark.parametrize("name", ["a.tsv", "a.tsv.gz"])
def test_a_pipe_is_read_like_a_file(tmp_path: Path, name: str) -> None:
    file, pipe = write(tmp_path / f"of_{name}", "да\tyes\nнет\tno\n" * 500), tmp_path / name
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(file.read_bytes(),))
    writer.start()
    assert read_pairs(pipe) == read_pairs(file)
    writer.join()


def test_text_is_left_as_it_is(tmp_path: Path) -> None:
    decomposed = "и\u0306 \u2028 é\u00a0b"
    pairs, _ = read_pairs(write(tmp_path / "a.tsv", f"{decomposed}\tx  y\n"))
    assert pairs == [Pair(decomposed, "x  y")]


def test_labels_belong_to_their_line_and_leave_with_a_dropped_pair(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv.gz", "да\tyes\n\tno\nкот\t \nсад\tgarden\n")
    labels = write(tmp_path / "a.domain.gz", "news\r\nun\nwiki\ngame")
    pairs, warnings = read_pairs(path, labels)
    assert pairs == [Pair("да", "yes", "news"), Pair("сад", "garden", "game")]
    assert warnings == ["a.tsv.gz: 2 pairs with an empty side dropped (first at line 2)"]


@pytest.mark.parametrize(
    ("name", "data", "parts"),
    [
        ("a.tsv", "a\tb\nc d\n", ["a.tsv, line 2", "1 field "]),
        ("a.tsv", "a\tb\nc\td\te\n", ["a.tsv, line 2", "3 fields"]),
        ("a.tsv", "a\tb\n\n", ["a.tsv, line 2", "an empty line where"]),
        ("a.tsv", b"a\tb\nc\td\xff\n", ["a.tsv, line 2", "not UTF-8", "offset 7"]),
        ("a.tsv", b"\xef\xbb\xbfa\xff\tb\n", ["a.tsv, line 1", "not UTF-8", "offset 4"]),
        ("a.tsv.gz", b"a\tb\nc\xd0\td\n", ["a.tsv.gz, line 2", "not UTF-8", "offset 5"]),
        ("a.tsv", b"x" * (MAX_LINE_BYTES + 1), ["a.tsv, line 1", "1 MiB"]),
        ("a.tsv", "", ["a.tsv, line 1: the file ends without a pair", "empty"]),
        ("a.tsv", "a\t\n \tb\n", ["a.tsv, line 2: the file ends without a pair", "2 rows"]),
    ],
)
def test_bad_content_names_file_and_line(tmp_path: Path, name: str, data: str | bytes, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read_pairs(write(tmp_path / name, data))
    assert caught.value.hint
    for part in parts:
        assert part in caught.value.message


def test_gzip_that_is_none_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    packed = gzip.compress(random.Random(0).randbytes(300).hex().encode() + b"\tb\n")
    flipped = bytearray(packed)
    flipped[len(flipped) // 2] ^= 0xFF
    for data, word in (
        (b"a\tb\n", "not valid gzip"),
        (packed[:-20], "truncated"),
        (bytes(flipped), "a.tsv.gz"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=word):
            read_pairs(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.tsv does not exist"):
        read_pairs(tmp_path / "gone.tsv")
    (tmp_path / "folder.tsv").mkdir()
    with pytest.raises(DataError, match=r"folder\.tsv cannot be read"):
        read_pairs(tmp_path / "folder.tsv")


def test_labels_of_other_number_or_empty(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tb\nc\td\n")
    with pytest.raises(DataError, match=r"a\.tsv, line 2: .*a\.domain has only 1 line"):
        read_pairs(path, write(tmp_path / "a.domain", "news\n"))
    with pytest.raises(DataError, match=r"a\.domain, line 2: the domain label is empty"):
        read_pairs(path, write(tmp_path / "a.domain", "news\n \n"))


def test_load_counts_overlap_and_repeats(files: dict[str, Path]) -> None:
    write(files["train"], "да\tyes\nда\tyes\nнет\tno\nнет\tnot\n")
    write(files["test"], "да\tyes\nДа\tYes\nсад\tgarden\n")
    corpus = load_tsv(**files)
    assert len(corpus.train) == 4
    assert len(corpus.test) == 3
    assert corpus.warnings == (
        "1 training pair kept though equal to an earlier one (train.tsv.gz)",
        "1 of 3 test sources also occurs in train",
    )
    assert (corpus.name, corpus.synthetic, corpus.domains()) == ("train.tsv.gz", False, ())


def test_pairs_that_several_owners_hold_are_told_and_their_own_repeats_not_again() -> None:
    a, b, c = Pair("a", "b"), Pair("c", "d"), Pair("e", "f")

    def told(*folders: list[Pair]) -> tuple[str, ...]:
        train = [pair for folder in folders for pair in folder]
        owners = tuple((len(folder), 1, 1) for folder in folders)
        return make_corpus(train, [c], [c], name="folders", warnings=(), owners=owners).warnings

    assert told([a, b, b], [b, a]) == ("2 training pairs kept though another folder holds the same (folders)",)
    assert told([a, a], [b, b]) == ()


def test_load_with_labels_of_train_only(files: dict[str, Path], tmp_path: Path) -> None:
    labels = write(tmp_path / "train.domain.gz", "un\nnews\nun\n")
    corpus = load_tsv(**files, train_domains=labels)
    assert corpus.domains() == ("news", "un")
    assert corpus.test[0].domain == ""


def test_digest_sees_every_string_label_split_and_order() -> None:
    a, b, c = Pair("a", "b"), Pair("c", "d"), Pair("e", "f")
    corpora = [
        ([a, b], [c], [c]),
        ([b, a], [c], [c]),
        ([a], [b, c], [c]),
        ([a, b], [c], [a]),
        ([Pair("a", "b", "x"), b], [c], [c]),
        ([Pair("ab", ""), b], [c], [c]),
        ([Pair("", "ab"), b], [c], [c]),
    ]
    digests = [corpus_digest(*corpus) for corpus in corpora]
    assert len(set(digests)) == len(digests)
    assert digests[0] == corpus_digest(*corpora[0])
    assert len(bytes.fromhex(digests[0])) == 32


def test_resolve_prefers_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = tmp_path / "base", tmp_path / "data"
    for folder in (base, data):
        folder.mkdir()
        write(folder / "both.tsv", "a\tb\n")
    write(base / "here.tsv", "a\tb\n")
    monkeypatch.delenv("TRUSTFORMER_DATA", raising=False)
    assert resolve_path("both.tsv", base) == base / "both.tsv"
    monkeypatch.setenv("TRUSTFORMER_DATA", str(data))
    assert resolve_path("both.tsv", base) == data / "both.tsv"
    assert resolve_path("here.tsv", base) == base / "here.tsv"
    assert resolve_path(str(base / "both.tsv"), base) == base / "both.tsv"
    with pytest.raises(DataError) as caught:
        resolve_path("gone.tsv", base)
    assert str(data / "gone.tsv") in caught.value.message
    assert str(base / "gone.tsv") in caught.value.message
    assert "TRUSTFORMER_DATA" in caught.value.hint


@pytest.mark.data
def test_real_corpus() -> None:
    folder = os.environ.get("TRUSTFORMER_DATA")
    if not folder:
        pytest.skip("TRUSTFORMER_DATA is not set")
    ruen = Path(folder) / "ruen"
    splits = {name: ruen / f"{name}.tsv.gz" for name in ("train", "valid", "test")}
    labels = {f"{name}_domains": ruen / f"{name}.domain.gz" for name in splits}
    corpus: Corpus = load_tsv(**splits, **labels)
    assert (len(corpus.train), len(corpus.valid), len(corpus.test)) == (129_981, 2_000, 2_000)
    assert len(corpus.domains()) == 9
    assert sum(pair.domain == "news" for pair in corpus.train) == 27_037
    assert not [warning for warning in corpus.warnings if "also occur" in warning]
