# SPDX-License-Identifier: Apache-2.0
"""Tables of what attacks found, each figure beside chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from trustformer.reports.tables import epsilon
from trustformer.reports.terminal import fill

Row = dict[str, Any]


@dataclass(frozen=True)
class AttackTable:
    """One table: its title, columns, rows of text, and how to read it."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str

    def rich(self, width: int = 80) -> Table:
        """Return the table for a terminal of `width` characters."""
        table = Table(title=self.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        fill(table, self.columns, self.rows, width, texts=2)
        return table

    def markdown(self) -> str:
        """Return the table as Markdown, without its title."""
        rule = "|" + "|".join(" --- " if index < 2 else " ---: " for index in range(len(self.columns))) + "|"
        lines = [f"| {' | '.join(self.columns)} |", rule, *(f"| {' | '.join(row)} |" for row in self.rows)]
        return "\n".join([*lines, "", self.note])


def attack_notes(report: dict[str, Any]) -> list[str]:
    """Return what the run promises, and why an attack was skipped."""
    promised = epsilon(report["privacy"])
    known = "nothing bounds what its results tell" if promised in ("-", "∞") else "bounds what its results tell"
    return [
        f"ε of this run: {promised} ({known})",
        *(f"{name} skipped: {why}" for name, why in report["skipped"].items()),
    ]


def attack_tables(report: dict[str, Any]) -> list[AttackTable]:
    """Return a table an attack of the report."""
    return [_TABLES[name](rows) for name, rows in report["attacks"].items() if rows]


def _tokens(rows: list[Row]) -> AttackTable:
    shown = [
        (
            *(row["adversary"], row["message"], row["attack"], f"{row['tokens']:,.0f}"),
            *(_share(row.get(key)) for key in ("found", "random", "frequency")),
            *(_two(row.get(key)) for key in ("auc", "frequency_auc")),
        )
        for row in rows
    ]
    columns = ("adversary", "from", "attack", "tokens", "found", "random", "by frequency", "AUC", "AUC by frequency")
    note = (
        "found: share of a text's n distinct tokens among the n ranked first; random: n of the vocabulary; by "
        "frequency: the n most frequent of public text. rows: movement of embedding rows, among those that a message "
        "says anything about; span: distance to the row space of the query gradients; whose: tokens of one client "
        "only, told from the others' messages (chance: 0.50)."
    )
    return AttackTable("Which tokens a text has", columns, shown, note)


def _sentences(rows: list[Row]) -> AttackTable:
    shown = [
        (
            *(row["adversary"], row["message"], f"{row['sentences']}", f"{row['draws']}"),
            *(_share(row["tokens_found"]), f"{row['tokens_wrong']:.1f}"),
            *(_share(row[key]) for key in ("sources_exact", "targets_exact")),
        )
        for row in rows
    ]
    columns = ("adversary", "from", "sentences", "batches", "tokens", "wrong", "sources exact", "targets exact")
    note = (
        "What a client with so few pairs would send. tokens: share recovered, wrong: number besides; exact: share of "
        "sentences recovered word for word. Chance: 0 % (a vocabulary of thousands to the power of the length)."
    )
    return AttackTable("Whole sentences (DAGER)", columns, shown, note)


def _membership(rows: list[Row]) -> AttackTable:
    shown = [
        (
            *(row["adversary"], row["model"], row["attack"], f"{row['members']} / {row['others']}"),
            *(_interval(row["auc"], "{:.2f}"), _interval(row["tpr"], "{:.1%}")),
        )
        for row in rows
    ]
    columns = ("adversary", "model", "attack", "members / others", "AUC", "TPR at 1 % FPR")
    note = (
        "Whether a pair was in the first client's training data. Chance: AUC 0.50, TPR 1 %. Intervals: 95 % bootstrap."
    )
    return AttackTable("Membership", columns, shown, note)


def _inversion(rows: list[Row]) -> AttackTable:
    shown = [
        (
            *(row["adversary"], row["message"], f"{row['length']}"),
            *(_share(row[key]) for key in ("in_place", "present", "chance")),
        )
        for row in rows
    ]
    columns = ("adversary", "from", "length", "in place", "anywhere", "chance in place")
    note = (
        "Source tokens of one short pair, by gradient matching, when the target is known. Chance: the most frequent "
        "token everywhere, and the end at the end."
    )
    return AttackTable("Gradient matching", columns, shown, note)


def _sizes(rows: list[Row]) -> AttackTable:
    shown = []
    for row in rows:
        if row["attack"] == "lengths":
            found = row["lengths"]
            values = f"{found[0]:,}" if len(found) == 1 else f"{found[0]:,} to {found[-1]:,} ({len(found)} values)"
            shown.append((row["adversary"], f"{row['kind']}, {row['direction']}", f"{row['messages']:,}", values))
        elif row["correlation"] is None:
            shown.append(
                (row["adversary"], "time of training", f"{row['clients']} clients", "all have alike many pairs")
            )
        else:
            told = f"r = {row['correlation']:.3f} with example counts; off by {row['error']:.0%}"
            shown.append((row["adversary"], "time of training", f"{row['clients']} clients", told))
    note = (
        "Lengths in bytes as relayed. Time: correlation of a client's training time with its number of examples, and "
        "the mean error of a guess by a host that knows the count of one client."
    )
    return AttackTable("Lengths and times", ("adversary", "of", "messages", "seen"), shown, note)


_TABLES = {
    "tokens": _tokens,
    "sentences": _sentences,
    "membership": _membership,
    "inversion": _inversion,
    "sizes": _sizes,
}


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _interval(interval: dict[str, float], form: str) -> str:
    value, low, high = (form.format(interval[key]) for key in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
