# SPDX-License-Identifier: Apache-2.0
"""`trustformer compare`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
examples:
  trustformer compare configs/demo/*.toml --out runs/demo
  trustformer compare fedavg.toml centroid.toml --seeds 1 2 3 --jobs 2 --out runs/multi30k

A run that is finished in DIR is not run again, one that was stopped is taken up. DIR gets table.md, table.json (all
results) and one run directory a config and seed; of translation also summary.json (one row a config), report.html
and, if anything was sent, bleu.svg and bleu.png (BLEU against bytes).
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "compare",
        help="run several configs on the same data and seeds, and tabulate",
        description="Run several configs on the same data and seeds and write one table and one report.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG.toml")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the runs and the table go")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one key in all configs"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[], metavar="N", help="default: the configs' seed")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at a time (default: one a core, at most 2)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON on stdout")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.errors import ConfigError
    from trustformer.experiment.compare import execute, plan
    from trustformer.experiment.config import load_config
    from trustformer.experiment.record import RunDirectory
    from trustformer.experiment.reporter import reporting
    from trustformer.reports.comparison import write_comparison

    configs = [(path.stem, load_config(path, options.set)) for path in options.configs]
    jobs = plan(configs, options.seeds, options.out)
    parallel = min(2, os.cpu_count() or 1) if options.jobs is None else options.jobs
    if parallel < 1:
        raise ConfigError(f"--jobs is {parallel}, it must be 1 or more")
    RunDirectory(options.out).make()
    try:
        with reporting() as reporter:
            results = execute(jobs, parallel, reporter)
    except KeyboardInterrupt:
        print("\ninterrupted; the runs are saved. The same command goes on.", file=sys.stderr)
        return 130
    written = write_comparison(results, [job.out for job in jobs], RunDirectory(options.out))
    if options.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        _show(results, written, [job.out for job in jobs])
    return 0


def _show(results: list[dict[str, Any]], written: list[Path], runs: list[Path]) -> None:
    from rich.console import Console

    from trustformer.reports.tables import results_table, samples_table
    from trustformer.reports.task_tables import task_table

    console = Console(markup=False, emoji=False)  # names and paths as they are
    if results[0].get("task", "translation") == "translation":
        console.print(results_table(results, console.width), crop=False)
        console.print(samples_table(results, runs))
    else:
        console.print(task_table(results, console.width), crop=False)
    for what, paths in (("written", written), ("runs", runs)):
        console.print(f"{what + ':':9}" + ("\n" + 9 * " ").join(map(str, paths)), highlight=False, soft_wrap=True)
