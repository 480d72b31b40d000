# SPDX-License-Identifier: Apache-2.0
"""Shares of FedAvg's gain where `local` flatters them: some clients alone learned nothing, all learned by heart.

    python benchmarks/screening/alone.py benchmarks/results/multi30k-48 centroid-50x centroid-100x

Reads the runs `local-seed*`, `fedavg-seed*` and those named. `learned`: BLEU and NLL on the test pairs, means of the
seeds, measured from the clients that reach `--learned` BLEU alone. `best`: NLL on the validation pairs of the rounds,
measured from these clients' mean after the epoch in which it is least, seed by seed; `best_of_both`: FedAvg's too.
Writes benchmarks/results/screening/alone-FOLDER.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results" / "screening"


def read(folder: Path, name: str) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Result of every seed, and NLL on the validation pairs: rounds x clients."""
    found = []
    for run in sorted(folder.glob(f"{name}-seed*")):
        result = json.loads((run / "result.json").read_text("utf-8"))
        losses = [json.loads(line)["valid_nll"] for line in (run / "rounds.jsonl").read_text("utf-8").splitlines()]
        clients = [[value for who, value in loss.items() if who != "common"] for loss in losses]
        found.append((result, np.array(clients)))
    return found


def main(folder: Path, names: list[str], learned: float) -> None:
    """Compute and write the shares."""
    local, dense = read(folder, "local"), read(folder, "fedavg")
    kept = [np.array(result["bleu_per_client"]) >= learned for result, _ in local]
    least = [rounds[:, those].mean(1) for (_, rounds), those in zip(local, kept, strict=True)]
    pooled = {}
    for key in ("bleu", "nll"):
        scores = [np.array(result[f"{key}_per_client"]) for result, _ in local]
        pooled[key] = np.concatenate([some[those] for some, those in zip(scores, kept, strict=True)])
    alone = {key: float(values.mean()) for key, values in pooled.items()}
    record: dict[str, Any] = {
        "results": folder.name,
        "learned": {"clients": len(pooled["bleu"]), "of": sum(map(len, kept)), **alone},
        "best_epochs": [int(curve.argmin()) + 1 for curve in least],
        "shares": {},
    }
    for name in names:
        runs = read(folder, name)
        ends = {key: [np.mean([r[key] for r, _ in some]) for some in (runs, dense)] for key in ("bleu", "nll")}
        best, both = (
            [
                float((curve.min() - mine[-1].mean()) / (curve.min() - target(full.mean(1))))
                for curve, (_, mine), (_, full) in zip(least, runs, dense, strict=True)
            ]
            for target in (lambda losses: losses[-1], np.min)
        )
        shares = {key: float((mine - alone[key]) / (full - alone[key])) for key, (mine, full) in ends.items()}
        record["shares"][name] = {"learned": shares, "best": best, "best_of_both": both}
    (RESULTS / f"alone-{folder.name}.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--learned", type=float, default=10.0)
    options = parser.parse_args()
    main(options.folder, options.names, options.learned)
