# SPDX-License-Identifier: Apache-2.0
"""`trustformer gain`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  trustformer gain runs/demo/centroid-seed1 --local runs/demo/local-seed1
  trustformer gain runs/mine --json

Each client's own part of the test set: the test set of its folder, the pairs of its domains weighted as its training
data, or all of it where the clients hold alike data. before: G_0. local: the same rounds alone. own: the client's
model W_i. common: G. Intervals: 95 % of 1,000 paired bootstrap samples of the sentences.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "gain",
        help="what each client gained, on its own test sentences",
        description="Compare before, alone and federated on every client's own part of the test set.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_directory", type=Path, metavar="RUN", help="run directory of a federation")
    parser.add_argument("--local", type=Path, metavar="RUN", help="run of method local with the same data and seed")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON on stdout")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.experiment.gain import gain
    from trustformer.experiment.reporter import reporting

    with reporting() as reporter:
        report = gain(options.run_directory, options.local, reporter)
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        _show(report, options.run_directory)
    return 0


def _show(report: dict[str, Any], run: Path) -> None:
    from rich.console import Console

    from trustformer.reports.gains import gain_tables

    console = Console(markup=False, emoji=False)  # names and paths as they are
    for table in gain_tables(report, console.width):
        console.print(table, crop=False)
    if not report["local"]:
        out = run.with_name(run.name + "-local")
        command = ["trustformer", "run", str(run / "config.toml"), "--set", "method.name=local"]
        if (report["privacy"] or {}).get("unit") == "client":  # local exchanges no drifts that could be noised
            command += ["--set", "privacy.mechanism=none", "--set", "privacy.epsilon=0"]
        command += ["--out", str(out)]
        print("hint: what a client would have had alone is not known; make it with", file=sys.stderr)
        print(f"  {shlex.join(command)}\nand add --local {shlex.quote(str(out))}", file=sys.stderr)
