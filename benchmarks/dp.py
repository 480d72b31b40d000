# SPDX-License-Identifier: Apache-2.0
"""Private runs at equal epsilon, and the tables of docs/privacy-baselines.md from those that are recorded.

python benchmarks/dp.py run [--only NAME ...]   # what is recorded is not run again; the most telling runs first
python benchmarks/dp.py page                    # from the committed records alone
"""

import argparse
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from keep import is_recorded, keep

from trustformer.experiment.config import Config, load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run as federate
from trustformer.reports.summary import summarise
from trustformer.reports.tables import note, title, visible

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "benchmarks" / "configs"
RUNS = ROOT / "runs"
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "privacy-baselines.md"
TABLES = ("dp", "dp_bytes", "dp_records")
METHODS = ("centroid", "dp_fedavg", "dp_fedsam", "dp_blur_lus")
EPSILONS = (8, 1, 4, 0)
"""What a run may spend; 0 adds no noise."""
SEEDS = (1, 2, 3)
LEFT_OUT = ("G BLEU", "without embeddings", "chrF")


def jobs() -> Iterator[tuple[str, str, Config]]:
    """Table, name and config of each run."""

    def one(table: str, name: str, epsilon: int, seed: int, *values: str) -> tuple[str, str, Config]:
        config = CONFIGS / ("dp_records" if table == "dp_records" else "dp") / f"{name}.toml"
        values = (f"privacy.epsilon={epsilon}", f"seed={seed}", *values)
        return table, f"{name}-eps{epsilon}-seed{seed}", load_config(config, values)

    for methods in (METHODS[:2], METHODS[2:]):
        for epsilon in EPSILONS:
            for seed in SEEDS:
                yield from (one("dp", method, epsilon, seed) for method in methods)
    yield one("dp", "centroid_client", 8, 1)
    for epsilon in EPSILONS:
        yield from (one("dp_bytes", "dp_fedavg", epsilon, seed, "rounds=1") for seed in SEEDS)
    for epsilon in (8, 0):
        for seed in SEEDS:
            yield from (one("dp_records", method, epsilon, seed) for method in ("fedavg", "centroid"))


def run(only: Sequence[str]) -> None:
    """Run what is missing, one at a time, and keep each record as it is finished."""
    for table, name, config in jobs():
        if (only and not name.startswith(tuple(only))) or is_recorded(RESULTS / table / name, config):
            continue
        print(f"{table}/{name}", flush=True)
        federate(config, RUNS / table / name, PlainReporter(), resume=True)
        keep(RUNS / table, RESULTS / table)


def table(folder: Path) -> str:
    """One row a method and epsilon; the smallest epsilon first, without noise last."""
    results = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/result.json"))]
    results.sort(key=lambda result: (math.inf if result["epsilon"] is None else result["epsilon"], result["method"]))
    rows = summarise(results)
    heads, lines = visible(rows, LEFT_OUT)
    at = heads.index("G NLL") + 1
    heads = (*heads[:at], "seeds", *heads[at:])
    lines = [(*line[:at], str(len(row.results)), *line[at:]) for row, line in zip(rows, lines, strict=True)]
    text = [f"{title(results)}.", ""]
    text += [f"| {' | '.join(heads)} |", "|" + "|".join([" --- "] + [" ---: "] * (len(heads) - 1)) + "|"]
    text += [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*text, "", note(rows, LEFT_OUT), ""])


def replaced(page: str, name: str, text: str) -> str:
    """Put text between the two marks of a name."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    assert after, f"the page has no marks of {name}"
    return before + start + text + end + after


def render() -> str:
    """The page with its tables replaced."""
    page = PAGE.read_text("utf-8")
    for name in TABLES:
        page = replaced(page, name, table(RESULTS / name))
    return page


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="runs whose names begin so")
    options = parser.parse_args()
    if options.what == "run":
        run(options.only)
    temporary = PAGE.with_suffix(".new")
    temporary.write_text(render(), "utf-8")
    os.replace(temporary, PAGE)
