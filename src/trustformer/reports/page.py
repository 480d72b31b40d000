# SPDX-License-Identifier: Apache-2.0
"""`report.html`: one file with everything in it, readable offline, on a phone, in the dark and aloud."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from trustformer.reports import sections
from trustformer.reports.attested import attested
from trustformer.reports.charts import Curve, Dots, draw_bytes, draw_curves, draw_dots
from trustformer.reports.collect import Run, runs_of
from trustformer.reports.figures import Draw, Style, page_svg, styles
from trustformer.reports.headline import draw_headline, headline_text
from trustformer.reports.sections import Members, Table
from trustformer.reports.summary import Row, local_epochs, summarise, unit
from trustformer.reports.tables import note, title, visible

_TEMPLATES = Path(__file__).with_name("templates")
_COMPRESSED = 1.5
"""Factor from which a row's bytes by layer are of interest; dense messages are as large as their tensors."""

_TIMES = "Wall time: what else ran on the machine meanwhile is in it."


@dataclass(frozen=True)
class Figure:
    """A figure on the page: twice drawn, wide and narrow, said in words, with its numbers as a table.

    `table` is None where the page has one beside it.
    """

    title: str
    words: str
    wide: Markup
    narrow: Markup
    legend: list[tuple[str, Style]]
    table: Table | None
    note: str = ""


def render(runs: Sequence[Run]) -> str:
    """Return the page of these runs, as HTML; everything that comes from the runs is escaped."""
    rows = summarise([run.result for run in runs])
    members = {row.name: runs_of(row, runs) for row in rows}
    best = sections.focus(rows)
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    first = runs[0].result
    return environment.get_template("report.html.jinja").render(
        title=title([run.result for run in runs]),
        synthetic=first["synthetic"],
        setting=_setting(runs),
        style=Markup((_TEMPLATES / "report.css").read_text("utf-8")),
        best=best,
        facts=sections.facts(best, rows),
        headline=_headline(rows),
        results=visible(rows),
        note=note(rows),
        clients=sections.client_table(rows),
        figures=_figures(rows, members),
        attested=attested(runs),
        translations=sections.translations(members),
        configs=[(name, part[0].config_text) for name, part in members.items()],
        signatures=[run.result["signature"] for run in runs],
        scorer=first["sacrebleu_signature"],
        environments=_environments(runs),
        version=version("trustformer"),
        count=len(runs),
    )


def _listed(numbers: Iterable[float]) -> str:
    return ", ".join(f"{number:.10g}" for number in sorted(set(numbers)))


def _setting(runs: Sequence[Run]) -> list[tuple[str, str]]:
    first = runs[0].result
    seeds = _listed(run.result["seed"] for run in runs)
    clients = runs[0].config.get("clients", {})
    split = "each with its own data" if clients.get("folders") else f"split {clients.get('split', '-')}"
    return [
        ("clients", f"{max(run.result['clients'] for run in runs)}, {split}"),
        ("rounds", _listed(run.result["rounds"] for run in runs)),
        ("local epochs", _listed(run.result["rounds"] * local_epochs(run.result) for run in runs)),
        ("parameters", f"{first['parameters']:,}"),
        ("test pairs", f"{first['test_pairs']:,}"),
        ("seeds" if "," in seeds else "seed", seeds),
    ]


def _headline(rows: Sequence[Row]) -> Figure | None:
    if len(rows) < 2 or not any(row.total for row in rows):
        return None
    words = headline_text(rows)
    return _figure("headline", "BLEU against bytes", words, partial(draw_headline, rows), legend=[], table=None)


def _figures(rows: Sequence[Row], members: Members) -> dict[str, Figure | list[Figure]]:
    """Return the figures for which the runs hold what they show, by their place on the page."""
    style = styles(rows)
    found: dict[str, Figure | list[Figure]] = {}
    runs = [run for group in members.values() for run in group]
    closing = any(not record["training"] for run in runs for record in run.rounds)
    ends = " The last points are exchanges without training, each drawn as one epoch." if closing else ""
    if domains := sections.domain_dots(rows, style):
        found["domains"] = _dots("domains", "BLEU by domain", "BLEU, mean over clients", domains, 1)
    if curves := sections.learning_curves(members, style):
        band = f"Line: mean over clients and seeds. Band: lowest to highest.{ends}"
        found["learning"] = _curves("learning", "Validation loss", "nats per token", curves, 3, band)
    if times := sections.seconds(rows, members):
        dots = [Dots(name, style[name], {k: v for k, v in kinds.items() if v}) for name, kinds in times.items()]
        label, table = f"seconds a {unit(rows)}, all clients, log scale", sections.seconds_table(rows, times)
        found["times"] = _dots("times", "Where the time goes", label, dots, 3, table, _TIMES)
    if curves := sections.captured_curves(members, style):
        text = f"1 - residual² / drift², mean and range over clients and seeds.{ends}"
        found["captured"] = _curves("captured", "Share of the drift that arrives", "captured", curves, 3, text, True)
    if curves := sections.residual_curves(members, style):
        text = f"Bold: what stays in the client's weights. Thin: the drift before the exchange.{ends}"
        found["residual"] = _curves("residual", "Residual and drift", "norm", curves, 3, text)
    found["layers"] = [
        _figure(
            *(f"layers-{number}", f"Bytes by layer: {row.name}", _layer_words(row, groups)),
            partial(draw_bytes, groups, style[row.name]),
            legend=[],
            table=sections.layer_table(groups),
        )
        for number, row in enumerate(rows)
        if row.fewer and max(row.fewer) > _COMPRESSED and (groups := sections.layer_groups(members[row.name][0]))
    ]
    return found


def _curves(
    name: str, heading: str, label: str, curves: Sequence[Curve], digits: int, text: str, percent: bool = False
) -> Figure:
    ends = [f"{c.name} from {c.means[0][1]:.{digits}f} to {c.means[-1][1]:.{digits}f}" for c in curves if not c.faint]
    return _figure(
        *(name, heading, f"{heading} over local epochs, {label}: {'; '.join(ends)}."),
        partial(draw_curves, curves, label, percent=percent),
        legend=[(curve.name, curve.style) for curve in curves if not curve.faint],
        table=sections.curve_table(curves, digits, percent=percent),
        note=text,
    )


def _dots(
    name: str, heading: str, label: str, dots: Sequence[Dots], digits: int, table: Table | None = None, text: str = ""
) -> Figure:
    categories = list(dict.fromkeys(key for row in dots for key in row.values))
    lines = [[row.name, *(f"{row.values.get(key, 0):.{digits}f}" for key in categories)] for row in dots]
    said = "; ".join(f"{row.name}: {', '.join(f'{k} {v:.{digits}f}' for k, v in row.values.items())}" for row in dots)
    return _figure(
        *(name, heading, f"{heading}, {label}. {said}."),
        partial(draw_dots, dots, label, log=table is not None),
        legend=[(row.name, row.style) for row in dots],
        table=table or ([label, *categories], lines),
        note=text,
    )


def _layer_words(row: Row, groups: Sequence[dict[str, Any]]) -> str:
    parts = [f"{group['name']} {group['up']:,.0f} up, {group['down']:,.0f} down" for group in groups]
    return f"Bytes of one message of {row.name} by layer: {'; '.join(parts)}."


def _figure(
    name: str,
    heading: str,
    words: str,
    draw: Draw,
    *,
    legend: list[tuple[str, Style]],
    table: Table | None,
    note: str = "",
) -> Figure:
    wide, narrow = (Markup(page_svg(draw, f"{name}-{size}", narrow=size == "n")) for size in ("w", "n"))
    return Figure(heading, words, wide, narrow, legend, table, note)


def _environments(runs: Sequence[Run]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return each different environment, with the names of the runs made in it."""
    found: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for run in runs:
        flat = {key: value for key, value in run.environment.items() if key != "packages"}
        flat |= run.environment.get("packages", {})
        if flat:
            found.setdefault(tuple((key, str(value)) for key, value in flat.items()), []).append(run.path.name)
    return [(", ".join(names), list(pairs)) for pairs, names in found.items()]
