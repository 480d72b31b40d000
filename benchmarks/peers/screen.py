# SPDX-License-Identifier: Apache-2.0
"""Runs what is missing of `runs.toml` or `runs-24.toml`, one after another, and writes the tables of what is there.

TRUSTFORMER_DATA=DIR python benchmarks/peers/screen.py                           # 12 rounds, greedy; hours on one core
TRUSTFORMER_DATA=DIR python benchmarks/peers/screen.py --of 24 --seeds 1 2 3 mid2-every6   # 24 rounds, a beam
python benchmarks/peers/screen.py --table                                        # README.md, from what is committed
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import harness
import numpy as np

from trustformer.reports.summary import local_epochs, recovered
from trustformer.reports.tables import share

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
CONFIGS = HERE.parent / "configs"
Result = dict[str, Any]


@dataclass(frozen=True)
class Screening:
    """Runs of one config.

    Attributes:
        options: file with a name and the options of harness.py for each run.
        config: of training and scores.
        results: folder of what is recorded, `NAME` or `NAME-seedN`.
        ours: name in the table, and the recorded runs of `trustformer run` that it stands for, one a seed.
    """

    options: str
    config: Path
    results: Path
    ours: dict[str, str]


SCREENINGS = {
    "12": Screening(
        "runs.toml",
        CONFIGS / "paper" / "multi30k-fedavg.toml",
        RESULTS / "peers",
        {name: f"paper/multi30k-{name}-seed1" for name in ("local", "fedavg", "codebook")},
    ),
    "24": Screening(
        "runs-24.toml",
        CONFIGS / "multi30k" / "fedavg.toml",
        RESULTS / "peers-24",
        {path.stem: f"multi30k/{path.stem}-seed[0-9]" for path in sorted((CONFIGS / "multi30k").glob("*.toml"))},
    ),
}

INTRO = """# Peers

Other ways to send less, in the harness of the project: same data, tokenizer, G_0, clients, batches, training and
scores, one codec in the place of ours. Written by `python benchmarks/peers/screen.py --table` from
`benchmarks/results/peers/` and `peers-24/`; the same without `--table` makes the runs (`runs.toml`, `runs-24.toml`).
Multi30k German-English, 9,000 pairs, 3 clients iid, {parameters:,} parameters, a vocabulary of 4,000; {hardware}.
"""
LONG = """
## 24 epochs, a beam of 5

Beside the comparison of the README, in equal epochs. `--every N` exchanges after every N-th epoch only.
"""
SHORT = """
## 12 epochs, greedy decoding: a screening

One seed: differences of half a BLEU point are within what seeds do (standard deviation 0.1 to 0.4 over three seeds in
`results/paper`).
"""
COLUMNS = """
| run | seeds | fewer bytes up / down | BLEU | BLEU of G | BLEU of the mean | NLL | recovered, BLEU | recovered, NLL |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
OUTRO = """
Fewer bytes: dense fp32 weights every epoch, over all bytes of a client in one direction; every message is counted as
made, with what sealing adds. BLEU and NLL (nats a token): mean over the clients' models on the 1,000 test pairs; G:
the common model; the mean: of the clients' weights, which nobody holds. Recovered: share of the way from local training
to FedAvg, with the interval of 95 % of all resamples of the seeds. Rows of `trustformer run` are the recorded runs of
`results/multi30k` and, of seed 1 and greedy, of `results/paper`. Options as in `harness.py`.

Not run, only coded, tested and (but for FedCode) measured on single messages: int8 and int4, OpenFL's KC, SKC and STC,
FedCode, a part of the tensors each round (`--parts`, with `kind=e3m0` and `--momentum` Streaming DiLoCo). Feedback is
the project's shift unless `--feedback error` stands in the row. Nothing was tuned.

`results/peers/capture.json` holds what single messages express of real drifts (`offline.py`).
"""


def seed_of(name: str) -> tuple[str, int]:
    """A run's name and seed; one that names none is of seed 1."""
    parts = re.fullmatch(r"(.*)-seed(\d+)", name)
    return (parts[1], int(parts[2])) if parts else (name, 1)


def recorded(pattern: str) -> dict[int, Result]:
    """Runs of `trustformer run`, by seed."""
    files = sorted(RESULTS.glob(f"{pattern}/result.json"))
    return {seed_of(file.parent.name)[1]: json.loads(file.read_text("utf-8")) for file in files}


def table(screening: Screening) -> str:
    """The recorded runs and every screening run that is committed, from many bytes to few."""
    options = tomllib.loads((HERE / screening.options).read_text("utf-8"))
    runs = {f"`trustformer run`, {name}": recorded(pattern) for name, pattern in screening.ours.items()}
    ends = runs["`trustformer run`, local"], runs["`trustformer run`, fedavg"]
    for file in sorted(screening.results.glob("*/result.json")):
        name, seed = seed_of(file.parent.name)
        if name != "fedavg":  # it is `trustformer run`'s
            runs.setdefault(f"{name}: `{options[name]}`", {})[seed] = json.loads(file.read_text("utf-8"))
    rows = sorted(((name, run) for name, run in runs.items() if run), key=lambda row: -_sent(row[1]))
    return COLUMNS + "".join(_row(name, by_seed, *ends) for name, by_seed in rows)


def _sent(by_seed: dict[int, Result]) -> float:
    """Bytes of a client in a local epoch, both ways."""
    ways = ("bytes_up_per_client_round", "bytes_down_per_client_round")
    return float(np.mean([sum(run[way] for way in ways) / local_epochs(run) for run in by_seed.values()]))


def _row(name: str, by_seed: dict[int, Result], *ends: dict[int, Result]) -> str:
    def numbers(key: str, digits: int) -> str:
        values = [run.get(key) for run in by_seed.values()]
        if None in values:
            return "-"
        deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{deviation}"

    def factor(way: str) -> str:
        values = [run[f"compression_{way}"] for run in by_seed.values()]
        return "-" if None in values else f"{np.mean(values) * local_epochs(next(iter(by_seed.values()))):.1f}"

    seeds = sorted(by_seed.keys() & ends[0].keys() & ends[1].keys())
    kept = []
    for key, better in (("bleu", 1), ("nll", -1)):
        scores = [[better * runs[seed][key] for seed in seeds] for runs in (by_seed, *ends)]
        kept.append("-" if by_seed in ends else share(recovered(*scores)))
    cells = [
        *(name, str(len(by_seed)), f"{factor('up')} / {factor('down')}"),
        *(numbers(key, digits) for key, digits in (("bleu", 1), ("bleu_common", 1), ("bleu_mean", 1), ("nll", 3))),
        *kept,
    ]
    return "| " + " | ".join(cells) + " |\n"


def page() -> str:
    """Return README.md."""
    any_run = json.loads((RESULTS / "peers" / "fedavg" / "result.json").read_text("utf-8"))
    environment = any_run["environment"]
    hardware = f"{environment['processor']}, one thread of {environment['cores']} cores"
    intro = INTRO.format(parameters=any_run["parameters"], hardware=hardware)
    return intro + LONG + table(SCREENINGS["24"]) + SHORT + table(SCREENINGS["12"]) + OUTRO


def run(screening: Screening, names: Sequence[str], seeds: Sequence[int]) -> int:
    """Run what is missing and keep its records; return the exit status."""
    options = tomllib.loads((HERE / screening.options).read_text("utf-8"))
    for seed in seeds:
        for name in names or options:
            out = Path("runs") / screening.results.name / f"{name}-seed{seed}"
            kept = screening.results / (name if screening is SCREENINGS["12"] and seed == 1 else out.name)
            if (kept / "result.json").exists():
                continue
            code = harness.main(
                [str(screening.config), "--out", str(out), "--seed", str(seed), *shlex.split(options[name])]
            )
            if code:
                return code
            keep(out, kept)
    return 0


def keep(out: Path, kept: Path) -> None:
    """Copy a run's record to where it is committed."""
    kept.mkdir(parents=True, exist_ok=True)
    for file in ("result.json", "rounds.jsonl"):
        shutil.copyfile(out / file, kept / file)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of the file of runs; all if none is given")
    parser.add_argument("--of", choices=SCREENINGS, default="12", help="rounds, which choose the file of runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--table", action="store_true", help="write the tables only")
    given = parser.parse_args()
    code = 0 if given.table else run(SCREENINGS[given.of], given.names, given.seeds)
    (HERE / "README.md").write_text(page(), "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
