# SPDX-License-Identifier: Apache-2.0
"""Tables of results of tasks other than translation: one column a metric of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from trustformer.reports.summary import WAYS, Result, by_name, lengths_differ, local_epochs
from trustformer.reports.tables import FEWER_NOTE, SENT_NOTE, factor, refused_note, scored_models, title
from trustformer.reports.terminal import fill


@dataclass(frozen=True)
class Metric:
    """How a metric is shown: heading and digits."""

    name: str
    digits: int

    def show(self, value: float) -> str:
        """Return the value as text."""
        return f"{value:.{self.digits}f}" if abs(value) < 1e9 else f"{value:.1e}"


METRICS = {
    "accuracy": Metric("accuracy", 3),
    "macro_f1": Metric("macro F1", 3),
    "perplexity": Metric("perplexity", 1),
    "nll": Metric("NLL", 3),
    "bleu": Metric("BLEU", 1),
    "chrf": Metric("chrF", 1),
}
_NOTE = f"Scores: {{scored}} on the test set; G: the common model. NLL in nats per target. {SENT_NOTE} {FEWER_NOTE}"


def columns(results: Sequence[Result]) -> tuple[str, ...]:
    """Headings for results of one task."""
    metrics = results[0]["metrics"]
    headline = METRICS[metrics[0]].name
    return ("method", *(METRICS[metric].name for metric in metrics), f"G {headline}", "kB up / down", "fewer bytes")


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row a config, in order of appearance; of several seeds the mean, with the standard deviation."""
    mixed = lengths_differ(results)
    return [(name, *_cells(group, local_epochs(group[0]) if mixed else 1)) for name, group in by_name(results).items()]


def note(results: Sequence[Result]) -> str:
    """Return what the columns mean."""
    told = _NOTE.format(scored=scored_models(results), unit="local epoch" if lengths_differ(results) else "round")
    return f"{told} {refused_note(results)}".rstrip()


def _cells(group: Sequence[Result], epochs: float) -> list[str]:
    first = group[0]
    cells = [_number([result[metric] for result in group], metric) for metric in first["metrics"]]
    headline = first["metrics"][0]
    common = [result[f"{headline}_common"] for result in group]
    cells.append("-" if common[0] is None else _number(common, headline))
    up, down = (float(np.mean([result[f"bytes_{way}_per_client_round"] for result in group])) / epochs for way in WAYS)
    if not up:
        return [*cells, "0 / 0", "-"]
    fewer = [float(np.mean([result[f"compression_{way}"] for result in group])) * epochs for way in WAYS]
    return [*cells, f"{up / 1000:,.0f} / {down / 1000:,.0f}", factor((fewer[0], fewer[1]))]


def _number(values: Sequence[float], metric: str) -> str:
    show = METRICS[metric].show
    spread = f" ± {show(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
    return f"{show(float(np.mean(values)))}{spread}"


def task_table(results: Sequence[Result], width: int = 80) -> Table:
    """Return the table for a terminal of `width` characters."""
    table = Table(
        title=Text(title(results), "table.title"),
        caption=Text(note(results), "table.caption"),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    fill(table, columns(results), rows(results), width)
    return table


def task_markdown(results: Sequence[Result]) -> str:
    """Return the table as Markdown, with every run's signature below it."""
    headings = columns(results)
    lines = [f"| {' | '.join(headings)} |", "|" + "|".join([" --- "] + [" ---: "] * (len(headings) - 1)) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(results)]
    signatures = [f"    {result['signature']}" for result in results]
    return "\n".join([f"{title(results)}.", "", *lines, "", note(results), "", *signatures, ""])
