# SPDX-License-Identifier: Apache-2.0
"""Copies what a comparison measured, without models and private state, to where it is committed.

python benchmarks/keep.py runs/multi30k benchmarks/results/multi30k [--runs-only]

`--runs-only` leaves the tables out: of runs that another page puts together.
"""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from trustformer.experiment.config import Config, load_config
from trustformer.reports.sections import SENTENCES
from trustformer.reports.tables import spread

TABLES = ("table.md", "table.json", "summary.json", "report.html")
KEPT = ("config.toml", "environment.json", "result.json", "rounds.jsonl", "layers.json", "attack.json")


def is_recorded(run: Path, config: Config) -> bool:
    """Whether the result of a run of this config is among the records. Delete its folder to have it run again."""
    return (run / "result.json").is_file() and load_config(run / "config.toml") == config


def keep(source: Path, target: Path, tables: Sequence[str] = TABLES) -> None:
    """Copy the tables and, of every finished run, all but models, state and most translations."""
    found = [source / name for name in tables]
    for file in (*found, *(run / name for run in sorted(source.iterdir()) for name in KEPT)):
        if file.is_file() and (file.parent == source or (file.parent / "result.json").is_file()):
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    for file in sorted(source.glob("*/translations/*")):
        if (file.parents[1] / "result.json").is_file():
            lines = file.read_bytes().decode("utf-8").split("\n")[:-1]
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text("".join(f"{lines[index]}\n" for index in spread(len(lines), SENTENCES)), "utf-8")


if __name__ == "__main__":
    keep(Path(sys.argv[1]), Path(sys.argv[2]), () if "--runs-only" in sys.argv else TABLES)
