# SPDX-License-Identifier: Apache-2.0
"""Tables of what each client gained."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from trustformer.evaluation.bootstrap import RESAMPLES
from trustformer.reports.tables import epsilon
from trustformer.reports.terminal import fill

_NAMES = {"bleu": "BLEU", "chrf": "chrF"}
_SYSTEMS = ("before", "local", "own", "common")
_CAPTION = (
    "before: G_0, untrained or as it was taken up. local: the same rounds alone. own: the client's model W_i. G: the "
    f"common model. In brackets: 95 % intervals of {RESAMPLES:,} paired bootstrap samples of the sentences."
)
_COLUMNS = ("before", "local", "own", "G", "own - local", "G - local")


def gain_tables(report: dict[str, Any], width: int = 80) -> list[Table]:
    """Return a table a metric, a row a client, for a terminal of `width` characters; the last has their caption."""
    tables = []
    for metric, name in _NAMES.items():
        spent = f"; ε {epsilon(report['privacy'])} (docs/privacy-baselines.md)" if report.get("privacy") else ""
        title = f"{name} on {report['part']}{spent}"
        table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        rows = []
        for client in report["clients"]:
            numbers = client[metric]
            differences = [numbers[f"{system}_minus_local"] for system in ("own", "common")]
            cells = (
                " ".join(filter(None, (client["client"], client["folder"]))),
                f"{client['pairs']:,}",
                *(_score(numbers[system]) for system in _SYSTEMS),
                *(_difference(value) for value in differences),
            )
            rows.append(cells)
        fill(table, ("client", "pairs", *_COLUMNS), rows, width)
        tables.append(table)
    tables[-1].caption, tables[-1].caption_justify = Text(_CAPTION, "table.caption"), "left"
    return tables


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _difference(value: dict[str, float] | None) -> str:
    return "-" if value is None else f"{value['mean']:+z.1f}\n[{value['low']:+z.1f}, {value['high']:+z.1f}]"
