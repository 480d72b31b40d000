# SPDX-License-Identifier: Apache-2.0
"""The figures of a report beside its headline: curves over rounds, dots on a scale, bars of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from trustformer.reports.figures import Style, Theme, new_figure, size_text

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A line over local epochs.

    Attributes:
        name, style: as in the legend.
        means: (local epoch, value); `low` and `high` bound it, values at the same epochs.
        faint: a companion of the line before it, drawn thin.
    """

    name: str
    style: Style
    means: Points
    low: list[float]
    high: list[float]
    faint: bool = False


@dataclass(frozen=True)
class Dots:
    """One value a category, of one row of the comparison."""

    name: str
    style: Style
    values: dict[str, float]


def draw_curves(curves: Sequence[Curve], label: str, theme: Theme, narrow: bool, *, percent: bool = False) -> Figure:
    """Draw values over local epochs, with bands from the lowest to the highest."""
    figure, axes = new_figure(350, 290) if narrow else new_figure(490, 310)
    for curve in curves:
        colour = theme.series[curve.style.series]
        rounds, means = zip(*curve.means, strict=True)
        width = 1.0 if curve.faint else 2.0
        axes.fill_between(rounds, curve.low, curve.high, color=colour, alpha=0.16, linewidth=0)
        axes.plot(rounds, means, color=colour, linestyle=curve.style.dashes, linewidth=width)
        if not curve.faint:
            axes.plot(rounds[-1], means[-1], color=colour, marker=curve.style.marker, markersize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6))
    if percent:
        axes.set_ylim(min(0.0, *(low for curve in curves for low in curve.low)), 1.02)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.grid(axis="x", visible=False)
    axes.set_xlabel("local epoch")
    axes.set_ylabel(label)
    return figure


def draw_dots(dots: Sequence[Dots], label: str, theme: Theme, narrow: bool, *, log: bool = False) -> Figure:
    """Draw categories downwards and values to the right, one mark a row."""
    categories = list(dict.fromkeys(name for row in dots for name in row.values))
    height = 70 + 34 * len(categories)
    figure, axes = new_figure(350, height) if narrow else new_figure(490, height)
    for row in dots:
        places = [categories.index(name) for name in row.values]
        colour = theme.series[row.style.series]
        axes.scatter(row.values.values(), places, s=64, color=colour, marker=row.style.marker, alpha=0.9, zorder=3)
    axes.set_yticks(range(len(categories)), categories)
    axes.set_ylim(len(categories) - 0.5, -0.5)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(10, numticks=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="y", labelcolor=theme.ink)
    axes.set_xlabel(label)
    return figure


def draw_bytes(groups: Sequence[dict[str, Any]], style: Style, theme: Theme, narrow: bool) -> Figure:
    """Draw bytes up and down of each group of layers, one bar a direction."""
    height = 76 + 40 * len(groups)
    figure, axes = new_figure(350, height) if narrow else new_figure(490, height)
    colour = theme.series[style.series]
    for way, offset, alpha in (("up", -0.19, 1.0), ("down", 0.19, 0.45)):
        sizes = [group[way] for group in groups]
        places = [number + offset for number in range(len(groups))]
        axes.barh(places, sizes, height=0.34, color=colour, alpha=alpha)
        for size, place in zip(sizes, places, strict=True):
            axes.annotate(
                *(f"{way} {size_text(size)}", (size, place)),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=10,
                color=theme.soft,
            )
    axes.set_yticks(range(len(groups)), [group["name"] for group in groups])
    axes.set_ylim(len(groups) - 0.45, -0.55)
    axes.tick_params(axis="y", labelcolor=theme.ink)
    axes.set_xlim(0, 1.34 * max(group[way] for group in groups for way in ("up", "down")))
    axes.xaxis.set_major_locator(MaxNLocator(3 if narrow else 5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value) if value else "0"))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("bytes of one message")
    return figure
