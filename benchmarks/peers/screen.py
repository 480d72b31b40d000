# SPDX-License-Identifier: Apache-2.0
"""Runs what is missing of `runs.toml`, one after another, and writes the table of what is there.

TRUSTFORMER_DATA=DIR python benchmarks/peers/screen.py        # the runs, in runs/peers; hours on one core
python benchmarks/peers/screen.py --table                     # README.md of this folder, from what is committed
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import harness

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
CONFIG = HERE.parent / "configs" / "paper" / "multi30k-fedavg.toml"

INTRO = """# Peers

Other ways to send less, in the harness of the project: same data, tokenizer, G_0, clients, batches, training and
scores, one codec in the place of ours. Written by `python benchmarks/peers/screen.py --table` from
`benchmarks/results/peers/`; `python benchmarks/peers/screen.py` makes the runs (`runs.toml`).

**A screening: one seed.** Differences of half a BLEU point are within what seeds do (standard deviation 0.1 to 0.4
over three seeds in `results/paper`). Multi30k German-English, 9,000 pairs, 3 clients iid, 12 rounds, {parameters:,}
parameters, a vocabulary of 4,000, greedy decoding; {hardware}.
"""
COLUMNS = """
| run | fewer bytes up / down | BLEU | BLEU of G | BLEU of the mean | NLL | recovered, BLEU | recovered, NLL |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
"""
OUTRO = """
Fewer bytes: dense fp32 weights every round, over all bytes of a client in one direction; every message is counted as
made, with what sealing adds. BLEU and NLL (nats a token): mean over the clients' models on the 1,000 test pairs; G:
the common model; the mean: of the clients' weights, which nobody holds. Recovered: share of the way from local training
to FedAvg. Rows of `trustformer run` are the recorded greedy runs of seed 1 in `results/paper`. Options as in `harness.py`.

Not run, only coded, tested and (but for FedCode) measured on single messages: int8 and int4, OpenFL's KC, SKC and STC,
FedCode, a part of the tensors each round (`--parts`, with `kind=e3m0` and `--momentum` Streaming DiLoCo). Feedback is
the project's shift unless `--feedback error` stands in the row; no coder was run both ways at one rate and schedule,
and nothing was tuned.

`results/peers/capture.json` holds what single messages express of real drifts (`offline.py`).
"""


def recorded(method: str) -> dict[str, Any]:
    """A run of `trustformer run`, seed 1."""
    return json.loads((RESULTS / "paper" / f"multi30k-{method}-seed1" / "result.json").read_text("utf-8"))


def table() -> str:
    """Return README.md: the recorded runs and every screening run that is committed, from many bytes to few."""
    options = tomllib.loads((HERE / "runs.toml").read_text("utf-8"))
    ends = recorded("local"), recorded("fedavg")
    runs = [(f"`trustformer run`, {method}", recorded(method)) for method in ("local", "fedavg", "codebook")]
    for file in sorted((RESULTS / "peers").glob("*/result.json")):
        name = file.parent.name
        if name != "fedavg":
            runs.append((f"{name}: `{options[name]}`", json.loads(file.read_text("utf-8"))))
    runs.sort(key=lambda run: -(run[1]["bytes_up_per_client_round"] + run[1]["bytes_down_per_client_round"]))
    environment = json.loads((RESULTS / "peers" / "fedavg" / "result.json").read_text("utf-8"))["environment"]
    hardware = f"{environment['processor']}, one thread of {environment['cores']} cores"
    intro = INTRO.format(parameters=ends[0]["parameters"], hardware=hardware)
    return intro + COLUMNS + "".join(_row(name, result, *ends) for name, result in runs) + OUTRO


def _row(name: str, result: dict[str, Any], local: dict[str, Any], fedavg: dict[str, Any]) -> str:
    def number(key: str, digits: int) -> str:
        return "-" if result.get(key) is None else f"{result[key]:.{digits}f}"

    shares = [(result[key] - local[key]) / (fedavg[key] - local[key]) for key in ("bleu", "nll")]
    cells = [
        name,
        f"{number('compression_up', 1)} / {number('compression_down', 1)}",
        *(number(key, digits) for key, digits in (("bleu", 1), ("bleu_common", 1), ("bleu_mean", 1), ("nll", 3))),
        *(f"{round(100 * share) + 0:d} %" for share in shares),
    ]
    return "| " + " | ".join(cells) + " |\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="of runs.toml; all if none is given")
    parser.add_argument("--table", action="store_true", help="write the table only")
    given = parser.parse_args()
    options = tomllib.loads((HERE / "runs.toml").read_text("utf-8"))
    for name in given.names or options:
        out = Path("runs/peers") / name
        if not given.table:
            code = harness.main([str(CONFIG), "--out", str(out), *shlex.split(options[name])])
            if code:
                return code
        if (out / "result.json").exists():
            (RESULTS / "peers" / name).mkdir(parents=True, exist_ok=True)
            for file in ("result.json", "rounds.jsonl"):
                shutil.copyfile(out / file, RESULTS / "peers" / name / file)
    (HERE / "README.md").write_text(table(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
