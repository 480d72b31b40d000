# SPDX-License-Identifier: Apache-2.0
"""`trustformer attack`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

_NAMES = ("tokens", "sentences", "membership", "inversion", "sizes")
_ADVERSARIES = ("host", "client", "enclave")
_EPILOG = """\
examples:
  trustformer run config.toml --set record_messages=true --out runs/audit
  trustformer attack runs/audit
  trustformer attack runs/audit --attack membership --as client

--as host: sealed messages, their lengths and times. client: aggregates and its own updates. enclave: what an enclave
that is broken would read, every client's update in the clear. tokens and sentences also attack what a client with
one to four sentences would send, and its plain gradient, where they must succeed. docs/privacy.md explains the figures.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "attack",
        help="audit what a run's messages leak",
        description="Attack a run's recorded messages as the host, another client or a broken enclave.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_directory", type=Path, metavar="RUN", help="run directory made with record_messages=true")
    parser.add_argument("--attack", choices=(*_NAMES, "all"), default="all", help="default: all")
    parser.add_argument("--as", dest="adversary", choices=_ADVERSARIES, help="default: each in turn")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON on stdout")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.experiment.attack import attack
    from trustformer.experiment.reporter import reporting

    names = _NAMES if options.attack == "all" else (options.attack,)
    adversaries: Any = (options.adversary,) if options.adversary else _ADVERSARIES
    with reporting() as reporter:
        report = attack(options.run_directory, names, adversaries, reporter)
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _show(report)
    return 0


def _show(report: dict[str, Any]) -> None:
    from rich.console import Console

    from trustformer.reports.attacks import attack_notes, attack_tables

    console = Console(markup=False, emoji=False)  # names and paths as they are
    for table in attack_tables(report):
        console.print(table.rich(console.width), crop=False)
        console.print(table.note, highlight=False)
        console.print()
    for note in attack_notes(report):
        console.print(note, highlight=False)
