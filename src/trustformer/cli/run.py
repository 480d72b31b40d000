# SPDX-License-Identifier: Apache-2.0
"""`trustformer run`."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import Any

_EPILOG = """\
keys for --set (SECTION.KEY=VALUE): all, with their defaults, are in docs/config.md; the most used:
  seed, rounds                          integers
  data.source                           toy | tsv | tmx | jsonl | text | lines | folder | hf (docs/data.md)
  data.train, data.valid, data.test     FILE.tsv[.gz] with source<TAB>target; also looked up in $TRUSTFORMER_DATA
  data.train_domains, data.test_domains one label a line
  data.limit                            use the first N training pairs
  clients.count, clients.split          N; iid | domain | dirichlet (clients.alpha)
  model.preset                          micro | tiny | small | base | a model FOLDER to continue from
  train.local_epochs, train.learning_rate, train.batch_tokens
  method.name                           centroid | fedavg | local | centralized | dp_fedavg | dp_fedsam | dp_blur_lus
  privacy.mechanism, privacy.epsilon    none | enclave | client | records; what the run may spend

examples:
  trustformer run --set rounds=3 --out runs/try
  trustformer run --set data.source=tsv --set data.train=multi30k/train.tsv.gz \\
      --set data.valid=multi30k/valid.tsv.gz --set data.test=multi30k/test.tsv.gz --out runs/multi30k
  trustformer run config.toml --out runs/mine
  trustformer run --out runs/mine --resume
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "run",
        help="run a federation on one machine",
        description="Run a federation on one machine. Without CONFIG and data.source: the quick start, three clients "
        "with synthetic sentences.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", nargs="?", type=Path, metavar="CONFIG.toml", help="see docs/config.md")
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: a new one in runs/)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key; repeatable")
    parser.add_argument(
        "--resume", action="store_true", help="go on with the run in --out, by its own config unless one is given"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON on stdout")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.errors import ConfigError
    from trustformer.experiment.config import QUICKSTART, load_config
    from trustformer.experiment.deployed import check_not_deployed

    if options.resume and options.out is None:
        raise ConfigError("--resume needs --out", "name the run directory to go on with")
    if options.out is not None:
        check_not_deployed(options.out)
    own_data = any(item.startswith("data.source=") and item != "data.source=toy" for item in options.set)
    path = options.config or (None if own_data else QUICKSTART)
    if options.resume and not options.config:
        path = options.out / "config.toml"
        if not path.is_file():
            raise ConfigError(
                f"{options.out} holds no run to go on with", "correct the name, or start one without --resume"
            )
    config = load_config(path, options.set)
    out = options.out or _new_directory(config.method.name)
    try:
        result = run_with_progress(config, out, resume=options.resume)
    except KeyboardInterrupt:
        if not (out / "config.toml").is_file():
            print("\ninterrupted before anything was saved; the same command starts again", file=sys.stderr)
            return 130
        command = shlex.join(["trustformer", "run", "--out", str(out), "--resume"])
        print(f"\ninterrupted; state saved. Go on with:\n  {command}", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
    else:
        _show(result, out)
    return 0


def run_with_progress(config: Any, out: Path, *, resume: bool) -> dict[str, Any]:
    """Run with a live display in a terminal and plain lines elsewhere."""
    from trustformer.experiment.reporter import reporting
    from trustformer.experiment.runner import run

    with reporting() as reporter:
        return run(config, out, reporter, resume=resume)


def _new_directory(method: str) -> Path:
    number = 1
    while (path := Path("runs") / f"{method}-{number}").exists():
        number += 1
    return path


def _show(result: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    from trustformer.reports.tables import results_table
    from trustformer.reports.task_tables import task_table

    console = Console(markup=False, emoji=False)  # names and paths as they are
    translation = result.get("task", "translation") == "translation"
    make = results_table if translation else task_table
    console.print(make([result], console.width), crop=False)
    console.print(f"record: {out}", highlight=False, soft_wrap=True)
    console.print(f"signature: {result['signature']}", highlight=False, soft_wrap=True)
    use = (
        f"translate with it: trustformer translate {shlex.quote(str(out))}"
        if translation
        else f"use it: trustformer export {shlex.quote(str(out))} --to DIR"
    )
    console.print(use, highlight=False, soft_wrap=True)
