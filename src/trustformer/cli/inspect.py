# SPDX-License-Identifier: Apache-2.0
"""`trustformer inspect`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

_EPILOG = """\
examples:
  trustformer inspect runs/mine
  trustformer inspect runs/mine --json

vectors: biases and norms of a layer, together (--json has each). group: tensors of one group share a codebook, and its
bytes are shared out by their entries. drift: norm before an exchange, root mean square over rounds. captured: share of
the drift's energy that the clients' messages expressed.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "inspect",
        help="a run's layers: how they travel, their bytes, what arrives of them",
        description="Show a run's layers: shape, coding, bytes of a message up and down, drift and captured share.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_directory", type=Path, metavar="RUN", help="run directory, also of a run that goes on")
    parser.add_argument("--json", action="store_true", help="print the layers as JSON on stdout")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from rich.console import Console

    from trustformer.reports.layers import inspect_layers, layers_table

    layers = inspect_layers(options.run_directory)
    if options.json:
        print(json.dumps(layers, indent=2))
    else:
        console = Console(markup=False, emoji=False)  # names as they are
        console.print(layers_table(layers, console.width), crop=False)
    return 0
