# SPDX-License-Identifier: Apache-2.0
"""Seconds of a round: of Flower as it comes with empty messages, and of ours with a whole exchange, in turns.

    OMP_NUM_THREADS=1 python benchmarks/flower/latency.py

Three nodes on loopback, all clients answer at once. Flower: a ServerApp that sends an empty message to each node and
waits for the empty replies; its SuperNodes start a process for every message. Ours: `trustformer serve` and three
`join` with a small model and exchanges without training (`method.closing_exchanges`), so that a round is encode, seal,
upload, combine, release, adopt; the seconds are the host's, as in `rounds.jsonl`. The first round of every turn warms
up and is left out. Writes benchmarks/results/latency.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ground import CLIENTS, SETTINGS
from processes import Verb, free_port, load, wait_for
from stock import Stock

RESULT = Path(__file__).parents[1] / "results" / "latency.json"
FAST = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05"}
"""Flower's one setting that shortens a round."""


def flower(folder: Path, rounds: int, *, tls: bool, fast: bool = False) -> list[float]:
    """Rounds of Flower as it comes."""
    with Stock(folder, len(CLIENTS), tls=tls, environment=FAST if fast else {}) as stock:
        return list(stock.run(rounds + 1, limit=400)["rounds"][1:])


def ours(folder: Path, rounds: int) -> list[float]:
    """Rounds of `serve` and three `join`."""
    log, fed, values = folder / "log", folder / "fed", SETTINGS | {"rounds": 1, "method.closing_exchanges": rounds}
    flags = [part for key, value in values.items() for part in ("--set", f"{key}={value}")]
    _done(Verb(["init-federation", str(fed), "--address", f"127.0.0.1:{free_port()}", *flags], log), log)
    verbs = [Verb(["serve", str(fed / "host")], log)]
    verbs += [Verb(["join", str(fed / f"client-{client}")], log) for client in CLIENTS]
    for verb in verbs:
        _done(verb, log)
    lines = (fed / "host" / "rounds.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line)["seconds"]["round"] for line in lines[1:]]


def _done(verb: Verb, log: Path) -> None:
    if not wait_for(lambda: verb.poll() is not None, 600) or verb.code:
        raise RuntimeError(log.read_text("utf-8")[-4000:])


def summary(seconds: list[float]) -> dict[str, Any]:
    """Median, spread, and every one."""
    quarters = statistics.quantiles(seconds, n=4)
    return {
        "median": round(statistics.median(seconds), 3),
        "quartiles": [round(quarters[0], 3), round(quarters[2], 3)],
        "range": [min(seconds), max(seconds)],
        "rounds": seconds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=6, help="of each kind in each turn")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    load()
    kinds = {
        "flower, plain": lambda at: flower(at, options.rounds, tls=False),
        "flower, TLS and node keys": lambda at: flower(at, options.rounds, tls=True),
        "flower, TLS, node keys, polling every 0.05 s": lambda at: flower(at, options.rounds, tls=True, fast=True),
        "ours, TLS and node keys, whole exchange": lambda at: ours(at, options.rounds),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    loads = []
    for turn in range(options.turns):
        for name, measure in kinds.items():
            loads.append(round(os.getloadavg()[0], 1))
            with tempfile.TemporaryDirectory() as folder:
                seconds[name] += measure(Path(folder))
            print(f"turn {turn + 1}: {name}: {seconds[name][-options.rounds :]}", file=sys.stderr, flush=True)
    result = {name: summary(values) for name, values in seconds.items()}
    mine = result["ours, TLS and node keys, whole exchange"]["median"]
    out = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": platform.machine(), "count": os.cpu_count(), "loads": loads},
        "versions": {name: version(name) for name in ("flwr", "numpy", "torch")},
        "clients": len(CLIENTS),
        "seconds_a_round": result,
        "ratio_of_medians": {
            name: round(value["median"] / mine, 2) for name, value in result.items() if not name.startswith("ours")
        },
    }
    options.out.write_text(json.dumps(out, indent=2) + "\n", "utf-8")
    print(json.dumps(out["ratio_of_medians"], indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
