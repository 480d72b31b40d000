# SPDX-License-Identifier: Apache-2.0
"""Writes docs/paper.md and its figure from the recorded runs, whichever are there.

python benchmarks/paper/page.py
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure
from record import NAMES, RESULTS, Gain, Row, gain, load, read, spread

from trustformer.experiment.record import RunDirectory
from trustformer.reports.figures import Theme, new_figure, write_files

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "paper.md"
RATIOS = {"paper-001": 0.01, "paper-01": 0.1, "paper-05": 0.5, "paper-1": 1.0}
SCORES = {"bleu": "BLEU", "chrf": "chrF", "nll": "NLL", "meteor": "METEOR"} | {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "bertscore": "BERTScore",
}
CORPORA = ("multi30k", "ruen", "ruen_iid")
"""By the prefix of their configs."""
CHOICES = ("rotating", "drift", "history", "random")


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return Markdown; the first column is text, the others are numbers."""
    rule = "|" + "|".join([" --- ", *[" ---: "] * (len(heads) - 1)]) + "|"
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def scores(rows: dict[str, Row]) -> str:
    """All metrics of all rows, with the number of seeds behind each; columns that no row has are left out."""
    shown = [key for key in SCORES if any(row.values(key) for row in rows.values())]
    lines = []
    for row in rows.values():
        cells = [spread(row.values(key), 2 if key == "nll" else 1) for key in shown]
        lines.append([row.name, str(len(row.results)), *cells])
    return table(["method", "seeds", *(SCORES[key] for key in shown)], lines)


def costs(rows: dict[str, Row]) -> str:
    """BLEU against training alone and against FedAvg, and what a client sends and gets in the whole run."""
    lines = []
    for row in rows.values():
        sent = row.megabytes("up") > 0
        fewer = [
            f"{rows['fedavg'].megabytes(way) / row.megabytes(way):.1f}x" if sent and "fedavg" in rows else "-"
            for way in ("up", "down")
        ]
        lines.append(
            [
                row.name,
                *(_gain(row, rows.get(base)) if row.config != base else "" for base in ("local", "fedavg")),
                f"{row.megabytes('up'):.1f} / {row.megabytes('down'):.1f}" if sent else "0",
                " / ".join(fewer) if sent else "-",
            ]
        )
    heads = ["method", "BLEU − `local`", "BLEU − `fedavg`", "MB up / down a client, whole run", "fewer than `fedavg`"]
    return table(heads, lines)


def _gain(row: Row, base: Row | None) -> str:
    found = gain(row, base) if base else None
    return signed(found) if found else "-"


def signed(found: Gain) -> str:
    """A difference with its interval, if there is one."""
    interval = f" [{found.interval[0]:+.1f}, {found.interval[1]:+.1f}]" if found.interval else ""
    return f"{found.mean:+.1f}{interval}".replace("-", "−")


def domains(rows: dict[str, Row]) -> str:
    """BLEU of the test pairs of each domain, mean over clients and seeds; empty without domains."""
    first = next(iter(rows.values()), Row("")).results
    names = next(iter(first.values()))["domains"] if first else {}
    if not names:
        return ""
    lines = []
    for row in rows.values():
        each = [[result["domains"][name]["bleu"] for result in row.results.values()] for name in names]
        lines.append([row.name, *(spread(values) for values in each)])
    pairs = [f"{name} ({names[name]['pairs']})" for name in names]
    return table(["method", *pairs], lines)


def choices() -> str:
    """The screening of partitions: NLL decides, since BLEU of 200 sentences moves by a point with nothing."""
    rows = {name: row for name, row in read(RESULTS / "partition").items() if name in CHOICES}
    lines = []
    for row in sorted(rows.values(), key=lambda row: row.mean("nll")):
        likelihood = [spread(row.values(key), 2) for key in ("nll", "nll_common")]
        sent = f"{row.megabytes('up'):.1f}"
        lines.append([f"`{row.config}`", str(len(row.results)), *likelihood, spread(row.values("bleu")), sent])
    return table(["choice", "seeds", "NLL", "NLL of G", "BLEU", "MB up a client"], lines)


def agreement() -> str:
    """What one exchange does to trained clients, by ratio; empty if it was not measured."""
    path = RESULTS / "paper" / "agreement.json"
    if not path.is_file():
        return ""
    lines = []
    for ratio, found in json.loads(path.read_text("utf-8"))["ratios"].items():
        same, chance = (f"{100 * found[key]:.0f} %" for key in ("same_number", "same_number_by_chance"))
        lines.append([ratio, same, chance, f"{found['mean_moved']:.2f}", f"{found['apart_after']:.2f}"])
    heads = ("ratio", "rows with the same number", "by chance", "the mean moves by", "apart afterwards")
    return table(heads, lines)


def draw_curve(rows: dict[str, Row], theme: Theme, narrow: bool) -> Figure:
    """BLEU of `paper` against its ratio, between the lines of no communication and of FedAvg."""
    figure, axes = new_figure(560, 320)
    points = [(RATIOS[name], rows[name]) for name in RATIOS if name in rows]
    means = [row.mean("bleu") for _, row in points]
    low, high = ([abs(bound(row.values("bleu")) - row.mean("bleu")) for _, row in points] for bound in (min, max))
    style = {"color": theme.series[2], "marker": "o", "capsize": 3, "markersize": 7}
    axes.errorbar([ratio for ratio, _ in points], means, yerr=[low, high], **style)
    for (ratio, _), mean in zip(points, means, strict=True):
        axes.annotate(f"{mean:.1f}", (ratio, mean), (0, 9), textcoords="offset points", ha="center", color=theme.ink)
    for name, label, series, dash in (("local", "no communication", 0, (0, (5, 2))), ("fedavg", "FedAvg", 1, "-")):
        if name in rows:
            level = rows[name].mean("bleu")
            axes.axhline(level, color=theme.series[series], linestyle=dash)
            axes.annotate(f"{label}  {level:.1f}", (0.0085, level), (0, 4), textcoords="offset points", color=theme.ink)
    axes.set_xscale("log")
    axes.set_xlim(0.008, 1.25)
    axes.set_ylim(0, max([*means, *(rows[name].mean("bleu") for name in ("fedavg",) if name in rows)]) + 3)
    axes.set_xticks(list(RATIOS.values()), [f"{ratio:g}" for ratio in RATIOS.values()])
    axes.set_xlabel("centroids as a share of a matrix's rows (k / R)")
    axes.set_ylabel("BLEU")
    return figure


def losing(rows: dict[str, Row]) -> list[tuple[Row, Gain]]:
    """The rows of `paper` with less than all rows as centroids that end below training alone, with by how much."""
    found = [(rows[name], gain(rows[name], rows["local"])) for name in RATIOS if name in rows and RATIOS[name] < 1]
    return [(row, difference) for row, difference in found if difference and difference.mean < 0]


def render() -> str:
    """Return the page."""
    corpora = {name: load(name) for name in CORPORA}
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, keep_trailing_newline=True,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    used = (scores, costs, domains, choices, agreement, signed, spread, gain, losing)
    return environment.get_template("page.md.jinja").render(
        **corpora, names=NAMES, ratios=RATIOS, **{each.__name__: each for each in used}
    )


def main() -> None:
    """Write the figure, then the page as a whole."""
    rows = load("multi30k")
    images = RunDirectory(ROOT / "docs" / "images")
    write_files(lambda theme, narrow: draw_curve(rows, theme, narrow), images, "paper-curve", ["svg"])
    temporary = PAGE.with_suffix(".new")
    temporary.write_text(render(), "utf-8")
    os.replace(temporary, PAGE)


if __name__ == "__main__":
    main()
