# SPDX-License-Identifier: Apache-2.0
"""The headline figure: the same file for the same results, every row in it, no colour of its own on a page."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from results_kit import make_result, write_runs

from trustformer.experiment.record import RunDirectory
from trustformer.reports.comparison import write_comparison
from trustformer.reports.figures import LIGHT, page_svg, size_text
from trustformer.reports.headline import draw_headline, headline_text
from trustformer.reports.summary import summarise


def test_a_comparison_leaves_tables_rows_and_figures(results: list[dict[str, Any]], tmp_path: Path) -> None:
    runs = write_runs(results, tmp_path)
    written = write_comparison(results, runs, RunDirectory(tmp_path))
    names = ["table.md", "table.json", "summary.json", "report.html", "bleu.svg", "bleu.png"]
    assert [path.name for path in written] == names
    assert (tmp_path / "bleu.png").read_bytes().startswith(b"\x89PNG")
    rows = json.loads((tmp_path / "summary.json").read_text("utf-8"))["rows"]
    assert [row["config"] for row in rows] == ["local", "fedavg", "every-third", "fine", "coarse"]
    assert rows[3]["recovered"]["bleu"]["share"] == pytest.approx(0.85)
    svg = (tmp_path / "bleu.svg").read_text("utf-8")
    words = " ".join(ElementTree.fromstring(svg).itertext())
    for text in ("fine  25x", "coarse  100x", "every-third  3x", "no communication  20.5", "FedAvg, dense fp32  30.5"):
        assert text in words
    write_comparison(results, runs, RunDirectory(tmp_path / "again"))
    for name in names:
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_runs_that_send_nothing_have_no_figure(results: list[dict[str, Any]], tmp_path: Path) -> None:
    only_local = [result for result in results if result["method"] == "local"]
    runs = write_runs(only_local, tmp_path)
    assert len(write_comparison(only_local, runs, RunDirectory(tmp_path))) == 4
    assert not (tmp_path / "bleu.svg").exists()


@pytest.mark.parametrize("narrow", [False, True])
def test_on_a_page_colours_and_font_are_the_pages(results: list[dict[str, Any]], narrow: bool) -> None:
    rows = summarise(results)
    svg = page_svg(lambda theme, small: draw_headline(rows, theme, small), "headline", narrow=narrow)
    assert svg.startswith('<svg viewBox="0 0 ')
    assert 'aria-hidden="true"' in svg[: svg.index(">")]
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    assert "DejaVu" not in svg
    assert {"var(--ink)", "var(--series-0)", "var(--series-1)", "var(--series-2)"} <= set(
        re.findall(r"var\([^)]*\)", svg)
    )
    assert all(name.startswith("headline-") for name in re.findall(r'\bid="([^"]*)"', svg))
    assert set(re.findall(r"url\(#([^)]*)\)", svg)) <= set(re.findall(r'\bid="([^"]*)"', svg))
    words = headline_text(rows)
    assert "fine: BLEU 29.0 ± 1.4 at 320 kB a client and round" in words
    assert "local: BLEU 20.5 ± 0.7 at nothing sent" in words


def test_dollars_in_names_and_labels_are_no_formula(tmp_path: Path) -> None:
    results = [make_result("centroid", 1, bleu, 3.0, 25.0, config=name) for name, bleu in (("a$_$", 20.0), ("b", 25.0))]
    for result in results:
        result["domains"] = {"$_$ and $^$": {"pairs": 4, "bleu": 20.0}}
    write_comparison(results, write_runs(results, tmp_path), RunDirectory(tmp_path))
    for name, text in (("bleu.svg", "a$_$  25x"), ("report.html", ">$_$ and $^$</text>")):
        assert text in (tmp_path / name).read_text("utf-8")


def test_shares_are_drawn_only_beside_runs_of_one_length(results: list[dict[str, Any]]) -> None:
    longer = make_result("centroid", 1, 33, 1.8, 25.0, config="longer", rounds=6)
    for more, scales in (([], 1), ([longer], 0)):
        figure = draw_headline(summarise([*results, *more]), LIGHT, False)
        assert len(figure.axes[0].child_axes) == scales


def test_sizes_in_words() -> None:
    assert [size_text(value) for value in (12, 1500, 226_000, 5.75e6, 2e9)] == [
        *("12 B", "1.5 kB", "226 kB", "5.75 MB", "2 GB"),
    ]
