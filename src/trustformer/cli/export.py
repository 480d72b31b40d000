# SPDX-License-Identifier: Apache-2.0
"""`trustformer export`."""

from __future__ import annotations

import argparse
from pathlib import Path

_EPILOG = """\
examples:
  trustformer export runs/demo/centroid-seed1 --to models/ours
  trustformer export runs/demo/centroid-seed1 --to models/client-2 --client 2

The folder has weights (safetensors), tokenizer, generation config and a model card, README.md. A client's own model
holds what that client never sent: hand it on only if the client agrees.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "export",
        help="write a run's model as a folder that transformers loads",
        description="Write a finished run's model as a folder that transformers loads without trustformer.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_directory", type=Path, metavar="RUN", help="directory of a finished run")
    parser.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder; nothing is overwritten")
    parser.add_argument(
        "--client",
        metavar="N",
        help="the model of client N instead of the common one (client 0's in runs of local and centralized)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.reports.export import export

    export(options.run_directory, options.to, options.client)
    print(f"exported to {options.to}; its README.md says how to load it, and what it is")
    return 0
