# SPDX-License-Identifier: Apache-2.0
"""In narrow terminals columns fold: no digit goes, and rows can still be told apart."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from results_kit import make_result, write_runs
from rich.console import Console
from rich.table import Table

from trustformer.cli.attack import _show as show_attacks
from trustformer.reports.attacks import attack_tables
from trustformer.reports.gains import gain_tables
from trustformer.reports.layers import inspect_layers, layers_table
from trustformer.reports.tables import results_table, samples_table
from trustformer.reports.task_tables import task_table
from trustformer.reports.terminal import fill

AUDITED = Path(__file__).parents[2] / "benchmarks" / "results" / "attack" / "codebook"
NAMES = tuple(f"centroid-of-a-rather-long-name-{letter}" for letter in "ab")


def gain(width: int) -> list[Table]:
    gap = {"mean": 12.3, "low": -10.1, "high": 14.2}
    scores = {"before": 1.5, "local": 20.25, "own": 45.75, "common": 100.0}
    numbers = scores | {"own_minus_local": gap, "common_minus_local": gap}
    clients = [{"client": "0", "folder": name, "pairs": 1234, "bleu": numbers, "chrf": numbers} for name in NAMES]
    return gain_tables({"part": "all", "clients": clients}, width)


def attacks(width: int) -> list[Table]:
    return [table.rich(width) for table in attack_tables(json.loads((AUDITED / "attack.json").read_text("utf-8")))]


def layers(width: int) -> list[Table]:
    return [layers_table(inspect_layers(AUDITED), width)]


def results(width: int) -> list[Table]:
    return [results_table([make_result("centroid", 1, 20.5, 3.25, 25.0, config=name) for name in NAMES], width)]


def tasks(width: int) -> list[Table]:
    task = {"task": "masked-lm", "metrics": ["perplexity", "nll"], "perplexity": 8.5, "perplexity_common": 8.25}
    return [task_table([make_result("centroid", 1, 0, 2.0, 25.0, config=name, **task) for name in NAMES], width)]


def test_a_difference_of_nothing_has_no_minus() -> None:
    gap = {"mean": -0.04, "low": -1.0, "high": 0.0}
    scores = {"before": 1.5, "local": 2.0, "own": 2.0, "common": 2.0, "own_minus_local": gap, "common_minus_local": gap}
    client = {"client": "0", "folder": "a", "pairs": 9, "bleu": scores, "chrf": scores}
    text = shown(gain_tables({"part": "all", "clients": [client]}, 200)[0], 200)
    assert "+0.0" in text
    assert "-0.0" not in text


def shown(table: Table, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    console.print(table, crop=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def squeezed(texts: Sequence[str]) -> str:
    return "".join("".join(texts).split())


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100])
@pytest.mark.parametrize("make", [gain, attacks, layers, results, tasks])
def test_every_cell_is_whole_at_any_width(make: Callable[[int], list[Table]], width: int) -> None:
    for table in make(width):
        text = shown(table, width)
        assert "…" not in text
        body = text.split("─\n", 1)[1] if "─\n" in text else text.split("─ \n", 1)[1]
        for column in table.columns:
            for cell in column.cells:
                if column.justify == "right":
                    assert all(word in body for word in str(cell).split())
        names = [str(cell) for cell in table.columns[0].cells]
        assert squeezed(names) in squeezed([line[: 1 + table.columns[0].min_width] for line in body.splitlines()])
        if width >= 80:
            assert max(map(len, text.splitlines())) <= width


def test_columns_take_what_their_text_needs_and_the_widest_fold_first() -> None:
    headings, rows = ("name", "score"), [("x" * 20 + " " + "y" * 20, "1.0 [0.5, 1.5]")]
    wide, narrow, tight = (Table() for _ in range(3))
    for table, width in ((wide, 80), (narrow, 40), (tight, 10)):
        fill(table, headings, rows, width)
    assert [column.min_width for column in wide.columns] == [41, 14]
    assert [column.min_width for column in narrow.columns] == [22, 14]
    assert [column.min_width for column in tight.columns] == [14, 5]
    assert (wide.show_edge, tight.show_edge) == (True, False)


def test_what_an_attack_could_not_do_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show_attacks({"privacy": None, "attacks": {}, "skipped": {"tokens": "train[/x].tsv is not [there]"}})
    assert "tokens skipped: train[/x].tsv is not [there]" in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 80])
def test_samples_keep_the_names_of_methods(width: int, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = [make_result("centroid", 1, 20.0, 3.0, 25.0, config=name) for name in NAMES]
    paths = write_runs(found, tmp_path)
    text = shown(samples_table(found, paths), width)
    assert "…" not in text
    first = squeezed([line.split("│")[1] if line.startswith("│") else "" for line in text.splitlines()])
    assert all(name in first for name in NAMES)
