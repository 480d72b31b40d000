# SPDX-License-Identifier: Apache-2.0
"""What is committed of the recorded comparison belongs together: `make figures` was run after `make results`."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from trustformer.reports.summary import summarise
from trustformer.reports.tables import share

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "benchmarks" / "results" / "multi30k"


def test_figure_and_report_show_the_recorded_results() -> None:
    results = json.loads((RECORDED / "table.json").read_text("utf-8"))
    rows = {row.name: row for row in summarise(results)}
    figure = " ".join(ElementTree.parse(ROOT / "docs" / "images" / "bleu.svg").getroot().itertext())
    report = (RECORDED / "report.html").read_text("utf-8")
    assert f"FedAvg, dense fp32  {rows['fedavg'].bleu.mean:.1f}" in figure
    assert f"no communication  {rows['local'].bleu.mean:.1f}" in figure
    for row in rows.values():
        assert f"{row.bleu.mean:.1f} ± {row.bleu.sd:.1f}" in report
        for metric, kept in row.recovered.items():
            shown = share(kept) if metric != "bleu_common" else f" ({share(kept).partition(' [')[0]})"
            assert shown in report
    for result in results:
        assert result["signature"] in report


def test_the_readme_shows_the_picture_of_that_report() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert "](docs/images/report.png)](benchmarks/results/multi30k/report.html)" in readme
    assert (ROOT / "docs" / "images" / "report.png").read_bytes().startswith(b"\x89PNG")
