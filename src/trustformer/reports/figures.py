# SPDX-License-Identifier: Apache-2.0
"""How every figure looks, and its two ways out: a file with colours of its own, and SVG that takes the page's."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

from trustformer.experiment.record import RunDirectory
from trustformer.reports.summary import Row

Axes = Any
"""matplotlib's axes; its own types are too loose for strict checks."""

FONT = "DejaVu Sans"
_DPI = {"svg": 72, "png": 160}


@dataclass(frozen=True)
class Theme:
    """Colours of a figure: text, secondary text, rules, ground, and one for each series (Okabe and Ito, 2008)."""

    ink: str
    soft: str
    rule: str
    ground: str
    series: tuple[str, ...]


LIGHT = Theme(
    ink="#1a1c1f",
    soft="#5d646d",
    rule="#e0e3e7",
    ground="#ffffff",
    series=("#6b7280", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
)
_PAGE = Theme(
    ink="#fe0001",
    soft="#fe0002",
    rule="#fe0003",
    ground="#fe0004",
    series=tuple(f"#fe01{number:02d}" for number in range(len(LIGHT.series))),
)
"""Colours that stand for the page's: `page_svg` puts `var(--...)` in their place."""
_VARIABLES = {_PAGE.ink: "ink", _PAGE.soft: "soft", _PAGE.rule: "rule", _PAGE.ground: "ground"} | {
    colour: f"series-{number}" for number, colour in enumerate(_PAGE.series)
}
_MARKERS = ("v", "s", "o", "D", "^", "P", "X")
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))


@dataclass(frozen=True)
class Style:
    """How a row is drawn everywhere: a colour and a marker for its method, other markers and dashes for its next rows.

    Attributes:
        series: number of the theme's colour.
        variant: number among the rows of that colour.
    """

    series: int
    variant: int

    @property
    def marker(self) -> str:
        """Of points."""
        return _MARKERS[(self.series + self.variant) % len(_MARKERS)]

    @property
    def dashes(self) -> Any:
        """Of lines."""
        return _DASHES[self.variant % len(_DASHES)]

    @property
    def pattern(self) -> str:
        """The dashes as SVG has them, for a line as wide as these."""
        return "" if self.dashes == "-" else " ".join(f"{2 * part:g}" for part in self.dashes[1])


def styles(rows: Sequence[Row]) -> dict[str, Style]:
    """Return each row's style by name: local, FedAvg and the centroid exchange have the same in every report."""
    colours = {"local": 0, "fedavg": 1, "centroid": 2}
    others = dict.fromkeys(row.method for row in rows if row.method not in colours)
    colours |= {method: 3 + number % (len(LIGHT.series) - 3) for number, method in enumerate(others)}
    taken: Counter[int] = Counter()
    found = {}
    for row in rows:
        series = colours[row.method]
        found[row.name] = Style(series, taken[series])
        taken[series] += 1
    return found


Draw = Callable[[Theme, bool], Figure]
"""Draws a figure in a theme; the second argument asks for one as narrow as a phone."""


@contextmanager
def _look(theme: Theme) -> Iterator[None]:
    """One unit of an SVG is one pixel: 72 to the inch."""
    with matplotlib.rc_context(
        {
            **{"font.family": FONT, "font.size": 12, "svg.fonttype": "none", "svg.hashsalt": "trustformer"},
            **{"text.color": theme.ink, "axes.labelcolor": theme.soft, "axes.edgecolor": theme.rule},
            **{"xtick.color": theme.soft, "ytick.color": theme.soft, "xtick.labelsize": 11, "ytick.labelsize": 11},
            **{"axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": theme.rule},
            **{"axes.axisbelow": True, "grid.linewidth": 0.8, "xtick.major.size": 0, "ytick.major.size": 0},
            **{"axes.facecolor": "none", "figure.facecolor": theme.ground, "legend.frameon": False},
            **{"xtick.minor.size": 0, "ytick.minor.size": 0, "lines.linewidth": 2, "figure.dpi": 72},
            "text.parse_math": False,  # a label with two $ is what its owner wrote, no formula
        }
    ):
        yield


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many pixels with one pair of axes."""
    figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def write_files(draw: Draw, directory: RunDirectory, name: str, suffixes: Sequence[str] = ("svg", "png")) -> list[Path]:
    """Write NAME.svg and NAME.png, the same figure on a light ground; returns their paths."""
    for suffix in suffixes:
        buffer = io.BytesIO()
        with _look(LIGHT):
            # The same figure gives the same file: no date in it.
            draw(LIGHT, False).savefig(
                buffer, format=suffix, dpi=_DPI[suffix], metadata={"Date": None} if suffix == "svg" else {}
            )
        directory.write(f"{name}.{suffix}", buffer.getvalue())
    return [directory.path / f"{name}.{suffix}" for suffix in suffixes]


def page_svg(draw: Draw, name: str, *, narrow: bool) -> str:
    """Return a figure as an SVG element in the page's colours and font; its ids begin with `name`.

    It is hidden from assistive technology: whoever shows it says in words what it shows.
    """
    buffer = io.StringIO()
    with _look(_PAGE):
        draw(_PAGE, narrow).savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(
        r'<svg .*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1, flags=re.DOTALL
    )
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(rf"'{FONT}'(, [^;\"]*)?", "var(--font)", svg)
    return re.sub(r"#fe0[01]\d\d", lambda match: f"var(--{_VARIABLES[match[0]]})", svg)


def bytes_axis(axis: Any) -> None:
    """Label an axis in kB and MB."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: size_text(value)))
    axis.set_minor_formatter(LogFormatter(labelOnlyBase=True))


def size_text(value: float) -> str:
    """Return bytes in words: 230 kB, 5.8 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"
