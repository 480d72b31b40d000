# SPDX-License-Identifier: Apache-2.0
"""Tables of results, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

Result = dict[str, Any]

COLUMNS = ("method", "BLEU", "chrF", "G BLEU", "kB up", "kB down", "fewer bytes")
NOTE = (
    "BLEU, chrF: mean over the clients' own models on the test set; G: the common model. kB: sent by and to a client "
    "in a round, sealed, as counted. Fewer bytes: against dense fp32 weights, up / down."
)


def rows(results: Sequence[Result]) -> list[tuple[str, ...]]:
    """One row a method, in order of appearance; of several seeds the mean, and of BLEU the standard deviation."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(label(result), []).append(result)
    short = names(results)
    return [_row(short[full], group) for full, group in groups.items()]


def names(results: Sequence[Result]) -> dict[str, str]:
    """Return the shortest names that tell the rows apart, by full label."""
    brief = {label(result): _variant(result) for result in results}
    return {full: name if list(brief.values()).count(name) == 1 else full for full, name in brief.items()}


def label(result: Result) -> str:
    """Full name of a row: the method, and for the centroid exchange its variant and what sets its bytes."""
    parts = dict(part.split(":", 1) for part in result["signature"].split("|") if ":" in part)
    shown = [f"{key}={parts[key]}" for key in ("d", "K", "ratio") if key in parts]
    return " ".join([_variant(result), *shown])


def _variant(result: Result) -> str:
    return " ".join(filter(None, (result["method"], result["variant"])))


def _row(name: str, group: Sequence[Result]) -> tuple[str, ...]:
    bleu = [result["bleu"] for result in group]
    spread = f" ± {np.std(bleu, ddof=1):.1f}" if len(bleu) > 1 else ""
    scores = [_mean([result[key] for result in group]) for key in ("chrf", "bleu_common")]
    sizes = [_kilobytes([result[f"bytes_{way}_per_client_round"] for result in group]) for way in ("up", "down")]
    factors = [_mean([result[f"compression_{way}"] for result in group], "x") for way in ("up", "down")]
    return (name, f"{np.mean(bleu):.1f}{spread}", *scores, *sizes, "/".join(factors) if factors[0] != "-" else "-")


def _mean(values: Sequence[float | None], unit: str = "") -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}{unit}" if known else "-"


def _kilobytes(values: Sequence[float]) -> str:
    return f"{np.mean(values) / 1000:,.0f}"


def title(results: Sequence[Result]) -> str:
    """What was translated, and that a synthetic corpus is one."""
    first = results[0]
    kind = " - SYNTHETIC sentences" if first["synthetic"] else ""
    seeds = sorted({result["seed"] for result in results})
    mean = f"; mean ± standard deviation of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    return f"{first['data']}{kind}, {first['test_pairs']:,} test pairs, {first['parameters']:,} parameters{mean}"


def results_table(results: Sequence[Result]) -> Table:
    """Return the table for a terminal."""
    table = Table(
        title=title(results),
        caption=NOTE,
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    for row in rows(results):
        table.add_row(*row)
    return table


def markdown_table(results: Sequence[Result]) -> str:
    """Return the table as Markdown, with every run's signature below it."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "|".join([" --- "] + [" ---: "] * (len(COLUMNS) - 1)) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows(results)]
    signatures = [f"    {result['signature']}" for result in results]
    scored = f"    sacreBLEU {results[0]['sacrebleu_signature']}"
    return "\n".join([f"{title(results)}.", "", *lines, "", NOTE, "", *signatures, scored, ""])


def samples_table(results: Sequence[Result], runs: Sequence[Path], count: int = 3) -> Table:
    """Return `count` test sentences, spread over the test set, with what each method's first client made of them."""
    table = Table(title="Sample translations (first client of each run)", title_justify="left", show_lines=True)
    for column in ("", *(f"sentence {number}" for number in range(1, count + 1))):
        table.add_column(column, ratio=None if not column else 1)
    lines = {}
    for result, run in zip(results, runs, strict=True):
        if label(result) not in lines:
            folder = run / "translations"
            first = min(path for path in folder.glob("*.txt") if path.stem != "common")
            lines[label(result)] = first.read_text("utf-8").splitlines()
    sources = (runs[0] / "translations" / "source.tsv").read_text("utf-8").splitlines()
    chosen = [(2 * index + 1) * len(sources) // (2 * count) for index in range(count)]
    pairs = [sources[index].split("\t") for index in chosen]
    table.add_row("source", *(pair[0] for pair in pairs))
    table.add_row("reference", *(pair[1] for pair in pairs))
    short = names(results)
    for full, translations in lines.items():
        table.add_row(short[full], *(translations[index] for index in chosen))
    return table
