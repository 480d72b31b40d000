# SPDX-License-Identifier: Apache-2.0
"""`trustformer report`."""

from __future__ import annotations

import argparse
from pathlib import Path

_EPILOG = """\
examples:
  trustformer report runs/mine --out runs/mine
  trustformer report runs/demo --out runs/demo                 all runs of a comparison
  trustformer report runs/a runs/b runs/c --out reports/abc    runs of one model on the same data

report.html is one file that loads nothing: open it anywhere, offline too.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "report",
        help="one page about runs or a comparison: scores, bytes, curves, attestation",
        description="Write report.html: scores, bytes, curves, attestation and translations of finished runs.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, or the --out of compare")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where report.html goes")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.experiment.record import RunDirectory
    from trustformer.reports.collect import collect
    from trustformer.reports.page import render

    page = render(collect(options.runs))
    directory = RunDirectory(options.out)
    directory.make()
    directory.write("report.html", page.encode())
    print(options.out / "report.html")
    return 0
