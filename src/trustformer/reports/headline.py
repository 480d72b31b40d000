# SPDX-License-Identifier: Apache-2.0
"""The headline figure: BLEU against bytes, FedAvg and no communication as lines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from trustformer.reports.figures import Axes, Theme, bytes_axis, new_figure, size_text, styles
from trustformer.reports.labels import Box, Label, along, beside, put
from trustformer.reports.summary import LEAST_GAP, WAYS, Row, reference, total_epochs, unit

_LINE_NAMES = {"local": "no communication", "fedavg": "FedAvg, dense fp32"}


def headline_text(rows: Sequence[Row]) -> str:
    """Return in words what the figure shows."""
    parts = []
    for row in rows:
        spread = "" if row.bleu.sd is None else f" ± {row.bleu.sd:.1f}"
        sent = f"{size_text(row.total)} a client and {unit(rows)}" if row.total else "nothing sent"
        parts.append(f"{row.name}: BLEU {row.bleu.mean:.1f}{spread} at {sent}")
    return "BLEU against bytes sent and received. " + "; ".join(parts) + "."


def draw_headline(rows: Sequence[Row], theme: Theme, narrow: bool) -> Figure:
    """Draw it; raises `ValueError` when no row sends anything: there is no axis of bytes then."""
    sending = [row for row in rows if row.total]
    if not sending:
        raise ValueError("no row sends anything")
    figure, axes = new_figure(350, 400) if narrow else new_figure(1000, 460)
    style = styles(rows)
    _scale(axes, rows, sending)
    lines = {method: row for method in _LINE_NAMES if (row := reference(rows, method)) is not None}
    for row in lines.values():
        colour = theme.series[style[row.name].series]
        low, high = min(row.bleu.values), max(row.bleu.values)
        axes.axhspan(low, high, color=colour, alpha=0.12, linewidth=0)
        axes.axhline(row.bleu.mean, color=colour, linewidth=1.6, linestyle=(0, (5, 3)))
    for row in sending:
        colour, marker = theme.series[style[row.name].series], style[row.name].marker
        totals = [sum(result[f"bytes_{w}_per_client_round"] for w in WAYS) / row.epochs for result in row.results]
        axes.errorbar(row.total, row.bleu.mean, row.bleu.sd, color=colour, capsize=5, linewidth=1.6, zorder=3)
        axes.scatter(totals, row.bleu.values, s=14, color=colour, alpha=0.55, linewidth=0, zorder=4)
        axes.scatter(row.total, row.bleu.mean, s=74, color=colour, marker=marker, zorder=5)
    if not narrow and len({total_epochs(row.results[0]) for row in rows}) == 1:
        _share_axis(axes, lines)
    _name(axes, sending, lines, theme)
    return figure


def _scale(axes: Axes, rows: Sequence[Row], sending: Sequence[Row]) -> None:
    values = [value for row in rows for value in row.bleu.values]
    room = 0.16 * max(max(values) - min(values), 1.0)
    axes.set_ylim(max(min(values) - room, 0.0), max(values) + room)
    low, high = min(row.total for row in sending), max(row.total for row in sending)
    stretch = max((high / low) ** 0.12, 1.6)
    axes.set_xlim(low / stretch, high * stretch)
    axes.set_xscale("log")
    bytes_axis(axes.xaxis)
    decades = range(int(np.floor(np.log10(low / stretch))), int(np.ceil(np.log10(high * stretch))) + 1)
    steps = (1, 3) if high / low > 20 else (1, 2, 5)
    axes.xaxis.set_major_locator(FixedLocator([step * 10.0**decade for decade in decades for step in steps]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="x", visible=False)
    axes.set_xlabel(f"bytes to and from a client in a {unit(rows)}, log scale")
    axes.set_ylabel("BLEU on the test set")


def _share_axis(axes: Axes, lines: dict[str, Row]) -> None:
    """On the right: the share of the gap between the two lines."""
    if len(lines) < 2:
        return
    low, high = (lines[method].bleu.mean for method in ("local", "fedavg"))
    if high - low <= LEAST_GAP["bleu"]:
        return
    right = axes.secondary_yaxis(
        "right", functions=(lambda bleu: 100 * (bleu - low) / (high - low), lambda s: low + s * (high - low) / 100)
    )
    right.yaxis.set_major_locator(FixedLocator([0, 20, 40, 60, 80, 90, 100]))
    right.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f} %"))
    right.yaxis.set_minor_formatter(NullFormatter())
    right.spines["right"].set_visible(False)
    right.set_ylabel("of FedAvg's gain over local training")


def _name(axes: Axes, rows: Sequence[Row], lines: dict[str, Row], theme: Theme) -> None:
    """Write the names of lines and points, clear of marks and error bars."""
    style = styles([*rows, *lines.values()])
    axes.figure.draw_without_rendering()
    labels = []
    for method, row in lines.items():
        places = along(axes, row.bleu.mean, above=method == "fedavg")
        colour = theme.series[style[row.name].series]
        labels.append(Label(f"{_LINE_NAMES[method]}  {row.bleu.mean:.1f}", colour, places))
    for row in sorted(rows, key=lambda row: row.total):
        if row is not lines.get("fedavg"):
            fewer = f"  {row.fewer[0]:.0f}x" if row.fewer and row.fewer[0] >= 1.5 else ""
            labels.append(Label(row.name + fewer, theme.ink, beside((row.total, row.bleu.mean))))
    put(axes, labels, [_mark(axes, row) for row in rows])


def _mark(axes: Axes, row: Row) -> Box:
    """Where a row's mark and error bar are."""
    spread = row.bleu.sd or 0.0
    x, low = axes.transData.transform((row.total, row.bleu.mean - spread))
    _, high = axes.transData.transform((row.total, row.bleu.mean + spread))
    return x - 8, min(low, high - 8), x + 8, max(high, low + 8)
