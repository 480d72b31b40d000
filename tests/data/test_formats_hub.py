# SPDX-License-Identifier: Apache-2.0
"""Data sets of the `datasets` library, made here and read from disk; nothing is fetched."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from trustformer.data.corpus import Pair
from trustformer.data.folder import load_folder
from trustformer.data.hub import open_hub, read_split
from trustformer.data.intake import IntakeOptions, prepare_folder
from trustformer.data.jsonl import to_pair
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.config import load_config
from trustformer.experiment.corpora import read_corpus

ROWS = [{"translation": {"ru": f"Слово {i}.", "en": f"Word {i}."}} for i in range(30)]
needs_library = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None, reason="the optional library datasets is not installed"
)


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As wmt19 is: train and validation, a translation by language."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    datasets.disable_progress_bars()
    splits = {"train": ROWS[:28], "validation": [*ROWS[28:], {"translation": {"ru": "", "en": "x"}}]}
    data = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in splits.items()})
    data.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "parquet").mkdir()
    for name, split in data.items():
        split.to_parquet(str(tmp_path / "parquet" / f"{name}.parquet"))
    return tmp_path


@needs_library
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_a_folder_reads_split_by_split(saved: Path, form: str) -> None:
    name = str(saved / form)
    data = open_hub(name)
    pairs, warnings = read_split(data, name, "train", "ru", "en")
    assert pairs == [Pair(f"Слово {i}.", f"Word {i}.") for i in range(28)]
    assert warnings == []
    pairs, warnings = read_split(data, name, "validation", "en", "ru")
    assert pairs == [Pair(f"Word {i}.", f"Слово {i}.") for i in (28, 29)]
    assert warnings == [f"validation of {name}: 1 pair with an empty side dropped (first at row 3)"]


@needs_library
@pytest.mark.filterwarnings("ignore")
def test_errors_name_split_and_row(saved: Path) -> None:
    name = str(saved / "saved")
    data = open_hub(name)
    with pytest.raises(DataError, match="no split 'test'; it has train, validation"):
        read_split(data, name, "test", "ru", "en")
    with pytest.raises(DataError, match="train, row 1: 'de' is missing"):
        read_split(data, name, "train", "de", "en")
    (saved / "empty").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        open_hub(str(saved / "empty"))


@needs_library
def test_a_saved_data_set_has_no_configuration(saved: Path) -> None:
    values = ["data.source=hf", f"data.name={saved / 'saved'}", "data.config=ru-en"]
    with pytest.raises(ConfigError, match="has no configuration 'ru-en'"):
        read_corpus(load_config(None, values).data)
    with pytest.raises(ConfigError, match="has no configuration 'ru-en'"):
        prepare_folder([str(saved / "saved")], saved / "out", IntakeOptions(kind="hf", hub_config="ru-en"))


@needs_library
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("rows", "part"),
    [
        ([ROWS[0], {"translation": {"ru": None, "en": "x"}}], "row 2: 'ru' is not text"),
        ([{"text": "да"}], r"row 1: 'source' is missing \(it has text\)"),
        ([{"translation": {"ru": "", "en": "x"}}] * 2, "row 2: the split ends without a pair"),
    ],
)
def test_a_bad_twin_is_refused_with_its_row(saved: Path, rows: list[dict[str, object]], part: str) -> None:
    import datasets

    datasets.Dataset.from_list(rows).save_to_disk(str(saved / "bad"))
    name = str(saved / "bad")
    with pytest.raises(DataError, match=f"bad, train, {part}"):
        read_split(open_hub(name), name, "train", "ru", "en")


@needs_library
@pytest.mark.filterwarnings("ignore")
def test_a_name_with_a_configuration_is_read_as_wmt19_is(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The layout of a data set on the hub: a card that names configurations, parquet files a split."""
    repository = saved / "wmt19"
    for language in ("ru-en", "de-en"):
        (repository / language).mkdir(parents=True)
        for split in ("train", "validation"):
            data = (saved / "parquet" / f"{split}.parquet").read_bytes()
            (repository / language / f"{split}-00000-of-00001.parquet").write_bytes(data)
    files = "".join(
        f"- config_name: {language}\n  data_files:\n"
        + "".join(f"  - split: {split}\n    path: {language}/{split}-*\n" for split in ("train", "validation"))
        for language in ("ru-en", "de-en")
    )
    (repository / "README.md").write_text(f"---\nconfigs:\n{files}---\n", "utf-8")
    monkeypatch.chdir(saved)
    values = ["data.source=hf", "data.name=wmt19", "data.config=ru-en", "data.test=validation"]
    corpus = read_corpus(load_config(None, values).data)
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [28, 2, 2]
    assert corpus.name == "wmt19 ru-en"
    with pytest.raises(DataError, match=r"'.*wmt19' \(fr-en\) cannot be read"):
        read_corpus(load_config(None, [*values[:2], "data.config=fr-en"]).data)


@needs_library
@pytest.mark.filterwarnings("ignore")
def test_a_name_without_a_network_ends_with_a_hint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"'not-there' \(ru-en\) cannot be read") as caught:
        open_hub("not-there", "ru-en")
    assert "over the network" in caught.value.hint


@needs_library
@pytest.mark.filterwarnings("ignore")
def test_a_config_takes_a_folder(saved: Path) -> None:
    values = ["data.source=hf", f"data.name={saved / 'saved'}", "data.test=validation"]
    corpus = read_corpus(load_config(None, values).data)
    assert [len(part) for part in (corpus.train, corpus.valid, corpus.test)] == [28, 2, 2]


def test_without_the_library_a_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        open_hub("wmt19", "ru-en")
    assert ".[hf]" in caught.value.hint


def test_rows_of_other_columns() -> None:
    assert to_pair({"ru": "да", "en": "yes", "score": 1.0}, "x", "ru", "en") == Pair("да", "yes")
    assert to_pair({"source": "да", "target": "yes", "domain": "d"}, "x", "ru", "en") == Pair("да", "yes", "d")
    with pytest.raises(DataError, match=r"x: 'source' is missing \(it has text\)"):
        to_pair({"text": "да"}, "x", "ru", "en")


@needs_library
@pytest.mark.filterwarnings("ignore")
def test_prepare_takes_a_data_set(saved: Path) -> None:
    options = IntakeOptions(kind="hf", valid=0.2, test=0.29, hub_split="train")
    report = prepare_folder([str(saved / "parquet")], saved / "out", options)
    assert report["pairs_read"] == sum(report["pairs"].values()) == 28
    assert len(load_folder(saved / "out").train) == report["pairs"]["train"]
