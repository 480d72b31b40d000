# SPDX-License-Identifier: Apache-2.0
"""Tables of results, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from trustformer.privacy.stated import stated_epsilon
from trustformer.reports.summary import Recovered, Result, Row, Spread, by_name, summarise, unit
from trustformer.reports.terminal import fill, plain

COLUMNS = (
    *("method", "ε", "BLEU", "chrF", "NLL", "G BLEU", "G NLL", "kB up / down", "fewer bytes", "without embeddings"),
    *("BLEU gap kept", "NLL gap kept"),
)
_TOO_WIDE = ("chrF", "G NLL", "without embeddings")
"""Columns that do not fit a terminal of eighty characters."""
_WIDE = 150
"""Characters of a terminal that has room for all columns, cells in one line."""
NOTE = "{scores}: {scored} on the test set, NLL in nats per token{common}."
SENT_NOTE = (
    "kB: sent by and to a client in a {unit}, sealed, as counted: all bytes of the run over its {unit}s of training. "
    "Exchanges without training add bytes but no {unit}, so with them the figure is above what a {unit} itself takes."
)
FEWER_NOTE = "Fewer bytes: against dense fp32 weights, up / down."
PRIVACY_NOTE = (
    "ε: what a run spends on a client (or a pair) to its end, closing exchanges included; in brackets against those "
    "who know the cohorts, as whoever knows the seed does; δ is in the signature. What it protects from whom: "
    "docs/privacy-baselines.md."
)
EMBEDDINGS_NOTE = "Without embeddings: those left out of both messages and weights."
GAP_NOTE = (
    "Gap kept: share of what FedAvg gains over local training, with the interval of 95 % of all resamples of the "
    "seeds, paired; few seeds make a rough interval. In brackets beside G BLEU: that share of the common model."
)
UNEVEN_NOTE = "Clients of one run lie far apart, which a mean hides: own BLEU {told}."
_UNEVEN, _LEAST_BLEU = 0.5, 1.0
"""So it is where the worst has less than this share of the best's BLEU, and the best at least so many points."""


def cells(row: Row) -> tuple[str, ...]:
    """Return a row's cells, one for each of `COLUMNS`; `-` where there is nothing to say."""
    sent = row.total > 0
    return (
        row.name,
        epsilon(_weakest(row.results)),
        _number(row.bleu),
        f"{row.chrf.mean:.1f}",
        _number(row.nll, 2),
        _common(row),
        _number(row.nll_common, 2) if row.nll_common else "-",
        f"{row.bytes_up / 1000:,.0f} / {row.bytes_down / 1000:,.0f}" if sent else "0 / 0",
        factor(row.fewer),
        factor(row.fewer_without_embeddings),
        *(share(row.recovered.get(metric)) for metric in ("bleu", "nll")),
    )


def _common(row: Row) -> str:
    """The common model's BLEU, and in brackets the share of FedAvg's gain that it keeps."""
    if row.bleu_common is None:
        return "-"
    kept = row.recovered.get("bleu_common")
    return f"{row.bleu_common.mean:.1f}" + ("" if kept is None else f" ({100 * kept.share:.0f} %)")


def _number(value: Spread, digits: int = 1) -> str:
    spread = "" if value.sd is None else f" ± {value.sd:.{digits}f}"
    return f"{value.mean:.{digits}f}{spread}"


def _weakest(results: Sequence[Result]) -> dict[str, Any] | None:
    """The weakest promise of a row's runs: cohorts, and with them what is spent, differ from seed to seed."""
    promises: list[dict[str, Any] | None] = [result.get("privacy") for result in results]
    known = [promise for promise in promises if promise and promise["epsilon"] is not None]
    if len(known) < len(promises):
        return next(promise for promise in promises if promise not in known)
    spent = {key: max(promise[key] for promise in known) for key in ("epsilon", "epsilon_known_cohorts")}
    return known[0] | spent


def epsilon(promise: dict[str, Any] | None) -> str:
    """Return what a run spends, rounded up; ∞ for a mechanism without noise, `-` for none."""
    if not promise or promise["epsilon"] is None:
        return "∞" if promise else "-"
    numbers = list(dict.fromkeys(stated_epsilon(promise[key]) for key in ("epsilon", "epsilon_known_cohorts")))
    known = f" [{numbers[1]}]" if len(numbers) > 1 else ""
    return numbers[0] + known + (" a pair" if promise["unit"] == "pair" else "")


def factor(pair: tuple[float, float] | None) -> str:
    """Return how many times fewer bytes, up / down."""
    return "-" if pair is None else f"{pair[0]:.1f}x / {pair[1]:.1f}x"


def share(value: Recovered | None) -> str:
    """Return a recovered share in percent, with its interval."""
    if value is None:
        return "-"
    interval = "" if value.low is None or value.high is None else f" [{100 * value.low:.0f}, {100 * value.high:.0f}]"
    return f"{100 * value.share:.0f} %{interval}"


def visible(rows: Sequence[Row], left_out: Sequence[str] = ()) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return headings and cells without the columns in which no row has anything, and without those of `left_out`.

    The common model's NLL is shown of private runs, whose ε covers that model alone.
    """
    if not any(row.results[0].get("privacy") for row in rows):
        left_out = (*left_out, "G NLL")
    table = [cells(row) for row in rows]
    used = [name == "method" or any(line[i] != "-" for line in table) for i, name in enumerate(COLUMNS)]
    kept = [i for i, name in enumerate(COLUMNS) if used[i] and name not in left_out]
    return tuple(COLUMNS[i] for i in kept), [tuple(line[i] for i in kept) for line in table]


def note(rows: Sequence[Row], left_out: Sequence[str] = ()) -> str:
    """Return what the columns mean, those of `left_out` excepted."""
    refused = refused_note([result for row in rows for result in row.results])
    uneven = uneven_note(rows)
    parts = {
        NOTE.format(
            scores=", ".join(name for name in ("BLEU", "chrF", "NLL") if name not in left_out),
            scored=scored_models(result for row in rows for result in row.results),
            common="; G: the common model" if any(row.bleu_common for row in rows) else "",
        ): True,
        SENT_NOTE.format(unit=unit(rows)): any(row.total for row in rows),
        FEWER_NOTE: any(row.fewer for row in rows),
        EMBEDDINGS_NOTE: "without embeddings" not in left_out and any(row.fewer_without_embeddings for row in rows),
        PRIVACY_NOTE: any(row.results[0].get("privacy") for row in rows),
        GAP_NOTE: any(row.recovered for row in rows),
        uneven: bool(uneven),
        refused: bool(refused),
    }
    return " ".join(text for text, wanted in parts.items() if wanted)


def uneven_note(rows: Sequence[Row]) -> str:
    """Say of which rows the mean hides clients that learned far less than others; empty where of none."""
    told = []
    for row in rows:
        own = [result["bleu_per_client"] for result in row.results if result.get("bleu_per_client")]
        ends = [(min(scores), max(scores)) for scores in own if max(scores) >= _LEAST_BLEU]
        low, high = min(ends, key=lambda pair: pair[0] / pair[1], default=(1.0, 1.0))
        if low < _UNEVEN * high:
            told.append(f"of {row.name} from {low:.1f} to {high:.1f}")
    return UNEVEN_NOTE.format(told=", ".join(told)) if told else ""


def refused_note(results: Sequence[Result]) -> str:
    """Say how many updates of each method the enclave refused, since aggregates lack them; empty where none."""
    counts = {
        name: sum(sum(result.get("refused", {}).values()) for result in group)
        for name, group in by_name(results).items()
    }
    told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
    return f"Updates that the enclave refused and left out: {told}; result.json names the clients." if told else ""


def scored_models(results: Iterable[Result]) -> str:
    """Return in words whose scores are shown: those of all clients, of the first ones, or of the common model."""
    counts = {_scored(result) for result in results}
    own = ["mean over the clients' own models"] if None in counts or not counts else []
    for count in sorted(filter(None, counts)):
        own.append("the first client's own model" if count == 1 else f"mean over the first {count} clients' own models")
    if 0 not in counts:
        return ", ".join(own)
    return f"{', '.join(own)} (where there are none, the common model)" if own else "the common model"


def _scored(result: Result) -> int | None:
    """How many clients' own models were scored; None for those of all clients."""
    scores = result.get(f"{result.get('metrics', ['bleu'])[0]}_per_client")
    return None if scores is None or len(scores) >= result["clients"] else len(scores)


def title(results: Sequence[Result]) -> str:
    """What was translated, and that a synthetic corpus is one."""
    first = results[0]
    kind = " - SYNTHETIC sentences" if first["synthetic"] else ""
    task = "" if first.get("task", "translation") == "translation" else f", {first['task']}"
    seeds = sorted({result["seed"] for result in results})
    mean = f"; mean ± standard deviation of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    beams = first.get("beams")
    decoded = "" if task or beams is None else f", beam {beams}" if beams > 1 else ", greedy decoding"
    pairs = f"{first['test_pairs']:,} test pairs{task}{decoded}"
    return f"{first['data']}{kind}, {pairs}, {first['parameters']:,} parameters{mean}"


def results_table(results: Sequence[Result], width: int = 80) -> Table:
    """Return the table for a terminal of `width` characters: a narrow one gets fewer columns, cells in two lines."""
    rows, narrow = summarise(results), width < _WIDE
    left_out = _TOO_WIDE if narrow else ()
    table = Table(
        title=Text(title(results), "table.title"),
        caption=Text(note(rows, left_out), "table.caption"),
        title_justify="left",
        caption_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    columns, lines = visible(rows, left_out)
    fold = _folded if narrow else str
    fill(table, [fold(column) for column in columns], [[line[0], *map(fold, line[1:])] for line in lines], width)
    return table


def _folded(text: str) -> str:
    for mark in (" ± ", " / ", " [", " (", " bytes", " gap", " kept", " BLEU"):
        text = text.replace(mark, f"{mark.rstrip()}\n" if mark == " / " else f"\n{mark.lstrip()}")
    return text


def markdown_table(results: Sequence[Result]) -> str:
    """Return the table as Markdown, with every run's signature below it."""
    rows = summarise(results)
    columns, table = visible(rows)
    lines = [f"| {' | '.join(columns)} |", "|" + "|".join([" --- "] + [" ---: "] * (len(columns) - 1)) + "|"]
    lines += [f"| {' | '.join(line)} |" for line in table]
    signatures = [f"    {result['signature']}" for result in results]
    scored = f"    sacreBLEU {results[0]['sacrebleu_signature']}"
    return "\n".join([f"{title(results)}.", "", *lines, "", note(rows), "", *signatures, scored, ""])


def samples_table(results: Sequence[Result], runs: Sequence[Path], count: int = 3) -> Table:
    """Return `count` test sentences, spread over the test set, with what each method's first client made of them."""
    table = Table(title="Sample translations (first client of each run)", title_justify="left", show_lines=True)
    for column in ("", *(f"sentence {number}" for number in range(1, count + 1))):
        table.add_column(column, overflow="fold", min_width=12 if not column else None)
    run_of = {result["signature"]: run for result, run in zip(results, runs, strict=True)}
    rows = summarise(results)
    lines = {}
    for row in rows:
        folder = run_of[row.results[0]["signature"]] / "translations"
        first = min(folder.glob("*.txt"), key=lambda path: (path.stem == "common", path))
        lines[row.name] = _lines(first)
    sources = _lines(runs[0] / "translations" / "source.tsv")
    chosen = spread(len(sources), count)
    pairs = [sources[index].split("\t") for index in chosen]
    table.add_row("source", *plain(pair[0] for pair in pairs))
    table.add_row("reference", *plain(pair[1] for pair in pairs))
    for name, translations in lines.items():
        table.add_row(*plain([name, *(translations[index] for index in chosen)]))
    return table


def _lines(path: Path) -> list[str]:
    """Lines ended by a line feed alone: texts may hold every other separator."""
    return path.read_bytes().decode("utf-8").split("\n")[:-1]


def spread(total: int, count: int) -> list[int]:
    """Return at most `count` of `total` places, spread evenly."""
    count = min(count, total)
    return [(2 * index + 1) * total // (2 * count) for index in range(count)]
