# SPDX-License-Identifier: Apache-2.0
"""`trustformer doctor`."""

from __future__ import annotations

import argparse
import json

_EPILOG = """\
examples:
  trustformer doctor
  trustformer doctor --json

Exit code 1 if something must be fixed before a run can work, else 0.
"""
_MARKS = {"ok": ("ok", "green"), "note": ("note", "yellow"), "fix": ("FIX", "red bold")}


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "doctor",
        help="check this machine and installation, and say what to fix",
        description="Check versions, torch, threads, disk, temporary folder, corpora, SGX and ports; say what to fix.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the checks as JSON on stdout")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.experiment.doctor import examine

    findings = examine()
    if options.json:
        print(json.dumps([vars(finding) for finding in findings], indent=2, ensure_ascii=False))
    else:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for _ in range(3):
            table.add_column(overflow="fold")
        for finding in findings:
            table.add_row(Text(*_MARKS[finding.verdict]), Text(finding.what), Text(finding.found))
            if finding.advice:
                table.add_row("", "", Text(finding.advice, "dim"))
        Console().print(table)
    return int(any(finding.verdict == "fix" for finding in findings))
