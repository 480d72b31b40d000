# SPDX-License-Identifier: Apache-2.0
"""What a report shows of its runs, as text, tables and curves; nothing here knows how a page looks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from trustformer.reports.charts import Curve, Dots
from trustformer.reports.collect import Run
from trustformer.reports.figures import Style, size_text
from trustformer.reports.summary import Row, local_epochs, unit
from trustformer.reports.tables import scored_models, share, spread

KINDS = ("training", "encoding", "sealing", "aggregating", "decoding")
SENTENCES = 6
_MANY_CLIENTS = 8

Members = dict[str, list[Run]]
"""Runs of each row, by the row's name."""
Styles = dict[str, Style]
Table = tuple[list[str], list[list[str]]]
"""Headings and rows; the first cell of a row is its heading."""


def facts(row: Row, rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return the figures at the top: number, what it is, and what to hold it against."""
    bleu = f"{row.bleu.mean:.1f}" + ("" if row.bleu.sd is None else f" ± {row.bleu.sd:.1f}")
    others = [f"{other.name} {other.bleu.mean:.1f}" for other in rows if other.method in ("local", "fedavg")]
    found = [(bleu, "BLEU", ", ".join(others[:3]) or scored_models(row.results))]
    for metric, name in (("bleu", "BLEU"), ("nll", "likelihood")):
        if (kept := row.recovered.get(metric)) is not None:
            number, _, interval = share(kept).partition(" [")
            beside = (
                f"95 % of resampled seeds: {interval.rstrip(']').replace(', ', ' to ')} %" if interval else "one seed"
            )
            found.append((number, f"of FedAvg's {name} gain kept", beside))
    if "bleu" not in row.recovered:
        found.append((f"{row.nll.mean:.2f}", "nats per token", "on the test set, lower is better"))
    if row.fewer is not None:
        sent = f"{size_text(row.bytes_up)} up, {size_text(row.bytes_down)} down per client and {unit(rows)}, sealed"
        found.append((f"{row.fewer[0]:.1f}x", f"fewer bytes up, {row.fewer[1]:.1f}x down", sent))
    return found


def focus(rows: Sequence[Row]) -> Row:
    """Return the row whose figures stand at the top: the centroid exchange that keeps most, else the best."""
    ours = [row for row in rows if row.method == "centroid"] or [row for row in rows if row.total] or list(rows)
    return max(ours, key=lambda row: row.bleu.mean)


def client_table(rows: Sequence[Row]) -> Table:
    """Return BLEU of each client's own model, means over seeds; of many clients the lowest, median and highest."""
    most = max(len(row.results[0]["bleu_per_client"]) for row in rows)
    many = most > _MANY_CLIENTS
    heading = ["lowest", "median", "highest"] if many else [f"client {number}" for number in range(most)]
    lines = []
    for row in rows:
        scores = np.mean([result["bleu_per_client"] for result in row.results], axis=0)
        values = [f"{score:.1f}" for score in (np.quantile(scores, [0, 0.5, 1]) if many and len(scores) else scores)]
        common = f"{row.bleu_common.mean:.1f}" if row.bleu_common else "-"
        lines.append([row.name, *values, *["-"] * (len(heading) - len(values)), f"{row.bleu.mean:.1f}", common])
    return ["BLEU", *heading, "mean", "common model G"], lines


def domain_dots(rows: Sequence[Row], style: Styles) -> list[Dots]:
    """Return BLEU by domain, means over clients and seeds; empty without labels."""
    found = []
    for row in rows:
        domains = row.results[0].get("domains") or {}
        values = {name: float(np.mean([r["domains"][name]["bleu"] for r in row.results])) for name in domains}
        found.append(Dots(row.name, style[row.name], values))
    return [dots for dots in found if dots.values]


def learning_curves(members: Members, style: Styles) -> list[Curve]:
    """Return validation NLL over local epochs; of a single row the common model too."""
    curves = []
    for name, runs in members.items():
        curves += _curve(name, style[name], runs, lambda record: _clients(record.get("valid_nll")))
        if len(members) == 1 and curves:
            dashed = Style((style[name].series + 1) % 7, 1)
            curves += _curve("common model G", dashed, runs, lambda record: _common(record.get("valid_nll")))
    return curves


def captured_curves(members: Members, style: Styles) -> list[Curve]:
    """Return the share of the drift's energy that messages expressed, 1 - residual² / drift²."""
    curves = []
    for name, runs in members.items():
        curves += _curve(name, style[name], runs, _captured)
    return curves


def residual_curves(members: Members, style: Styles) -> list[Curve]:
    """Return the norm of the residual, and faint that of the drift before the exchange."""
    curves = []
    for name, runs in members.items():
        curves += _curve(name, style[name], runs, lambda record: list(record.get("residual", {}).values()))
        faint = _curve(name, style[name], runs, lambda record: list(record.get("drift", {}).values()))
        curves += [Curve(c.name, c.style, c.means, c.low, c.high, faint=True) for c in faint]
    return curves


def _clients(scores: dict[str, float] | None) -> list[float]:
    return [value for key, value in (scores or {}).items() if key != "common"]


def _common(scores: dict[str, float] | None) -> list[float]:
    return [scores["common"]] if scores and "common" in scores else []


def _captured(record: dict[str, Any]) -> list[float]:
    pairs = [(drift, record["residual"][client]) for client, drift in record.get("drift", {}).items()]
    return [1 - (residual / drift) ** 2 for drift, residual in pairs if drift > 0]


def _curve(
    name: str, style: Style, runs: Iterable[Run], values_of: Callable[[dict[str, Any]], list[float]]
) -> list[Curve]:
    """One curve: mean, lowest and highest over clients and seeds; none where nothing is recorded."""
    by_epoch: dict[float, list[float]] = {}
    for run in runs:
        for record in run.rounds:
            epoch = _epoch(run, record["round"])
            if epoch is not None:
                by_epoch.setdefault(epoch, []).extend(values_of(record))
    known = {number: values for number, values in sorted(by_epoch.items()) if values}
    if not known:
        return []
    means = [(number, float(np.mean(values))) for number, values in known.items()]
    return [Curve(name, style, means, [min(v) for v in known.values()], [max(v) for v in known.values()])]


def _epoch(run: Run, number: int) -> float | None:
    """Local epochs after an exchange that ends a round, None within one.

    A closing exchange counts as an epoch, or as a round where that is shorter.
    """
    method = run.config.get("method", {})
    repeats = run.result["method"] == "centroid" and method.get("variant") != "paper"
    exchanges: int = method.get("exchanges", 1) if repeats else 1
    rounds: int = run.result["rounds"]
    epochs, closing = local_epochs(run.result), number - rounds * exchanges
    if closing > 0:
        return round(epochs * rounds + min(epochs, 1) * closing, 3)
    return round(epochs * number / exchanges, 3) if number % exchanges == 0 else None


def curve_table(curves: Sequence[Curve], digits: int, *, percent: bool = False) -> Table:
    """Return the numbers of a figure, a line a local epoch."""
    rounds = sorted({number for curve in curves for number, _ in curve.means})
    lines = []
    for number in rounds:
        values = [dict(curve.means).get(number, math.nan) for curve in curves]
        shown = [f"{100 * v:.1f} %" if percent else f"{v:.{digits}f}" for v in values]
        lines.append([f"{number:g}", *("-" if math.isnan(v) else text for v, text in zip(values, shown, strict=True))])
    return ["local epoch", *(f"{curve.name}, drift" if curve.faint else curve.name for curve in curves)], lines


def seconds(rows: Sequence[Row], members: Members) -> dict[str, dict[str, float]]:
    """Return seconds by kind, over all clients, of each row: means over rounds with training and seeds.

    They are of a round, or of a local epoch where rounds of the rows differ in length.
    """
    found = {}
    for row in rows:
        records = [record["seconds"] for run in members[row.name] for record in run.rounds if record["training"]]
        if records:
            found[row.name] = {kind: float(np.mean([part[kind] for part in records])) / row.epochs for kind in KINDS}
    return found


def seconds_table(rows: Sequence[Row], times: dict[str, dict[str, float]]) -> Table:
    """Return these seconds, and what share of them is no training."""
    lines = []
    for name, kinds in times.items():
        rest = sum(kinds.values()) - kinds["training"]
        lines.append([name, *(f"{kinds[kind]:.2f}" for kind in KINDS), f"{100 * rest / sum(kinds.values()):.1f} %"])
    return [f"seconds a {unit(rows)}", *KINDS, "not training"], lines


def layer_groups(run: Run) -> list[dict[str, Any]]:
    """Return layers, each with its parameters and bytes `up` and `down` of one message; empty if nothing travels."""
    groups: dict[str, dict[str, Any]] = {}
    for layer in run.layers:
        name = layer_name(layer["name"], embedding=layer["embedding"])
        group = groups.setdefault(name, {"name": name, "parameters": 0, "up": 0.0, "down": 0.0, "codings": {}})
        group["parameters"] += layer["parameters"]
        for way in ("up", "down"):
            group[way] += layer[way]["bytes"]
            if layer[way]["coding"]:
                group["codings"][layer[way]["coding"]] = None
    return list(groups.values()) if any(group["up"] + group["down"] for group in groups.values()) else []


def layer_name(name: str, *, embedding: bool) -> str:
    """Return which layer a tensor belongs to: `encoder 0`, `embedding`, `other`."""
    if embedding:
        return "embedding"
    match = re.match(r"(.*?)\.(\d+)\.", name)
    if match is None:
        return "other"
    words = [word for word in match[1].split(".") if word not in ("model", "transformer", "layers", "layer")]
    return " ".join([*words, match[2]]) if words else f"layer {match[2]}"


def layer_table(groups: Sequence[dict[str, Any]]) -> Table:
    """Return the bytes of a message by layer, beside dense fp32."""
    lines = [
        [
            *(group["name"], f"{group['parameters']:,}", f"{4 * group['parameters']:,}"),
            *(f"{group['up']:,.0f}", f"{group['down']:,.0f}"),
            "; ".join(group["codings"]),
        ]
        for group in groups
    ]
    total = [sum(group[key] for group in groups) for key in ("parameters", "up", "down")]
    lines.append(["all", f"{total[0]:,}", f"{4 * total[0]:,}", f"{total[1]:,.0f}", f"{total[2]:,.0f}", ""])
    return ["layer", "parameters", "dense fp32 bytes", "bytes up", "bytes down", "coding"], lines


def translations(members: Members) -> list[list[tuple[str, str]]]:
    """Return sentences spread over the test set: source, reference and what each row's first client made of it."""
    known = {name: runs[0] for name, runs in members.items() if runs and runs[0].translations("source")}
    if not known:
        return []
    pairs = next(iter(known.values())).translations("source")
    lines = {name: run.own_translations for name, run in known.items()}
    if len(known) == 1:
        (run,) = known.values()
        lines |= {"common model G": common} if (common := run.translations("common")) else {}
    chosen = spread(len(pairs), SENTENCES)
    same = {name: text for name, text in lines.items() if len(text) == len(pairs)}
    found = []
    for index in chosen:
        source, _, target = pairs[index].partition("\t")
        found.append([("source", source), ("reference", target), *((name, text[index]) for name, text in same.items())])
    return found
