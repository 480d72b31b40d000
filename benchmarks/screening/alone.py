# SPDX-License-Identifier: Apache-2.0
"""Shares of FedAvg's gain where `local` flatters them: some clients alone learned nothing, all learned by heart.

    python benchmarks/screening/alone.py benchmarks/results/multi30k-48 centroid-50x centroid-100x

Reads the runs `local-seed*`, `fedavg-seed*` and those named. `learned`: BLEU and NLL on the test pairs, means of the
seeds, measured from the clients that reach `LEARNED` BLEU alone. `best`: NLL on the validation pairs of the rounds,
measured from these clients' mean after the epoch in which it is least, seed by seed. Writes
benchmarks/results/screening/alone-FOLDER.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parents[1] / "results" / "screening"
LEARNED = 10.0


def read(folder: Path, name: str) -> list[tuple[dict[str, Any], np.ndarray]]:
    """Result of every seed, and NLL on the validation pairs: rounds x clients."""
    found = []
    for run in sorted(folder.glob(f"{name}-seed*")):
        result = json.loads((run / "result.json").read_text("utf-8"))
        losses = [json.loads(line)["valid_nll"] for line in (run / "rounds.jsonl").read_text("utf-8").splitlines()]
        clients = [[value for who, value in loss.items() if who != "common"] for loss in losses]
        found.append((result, np.array(clients)))
    return found


def main(folder: Path, names: list[str]) -> None:
    """Compute and write the shares."""
    local, dense = read(folder, "local"), read(folder, "fedavg")
    kept = [np.array(result["bleu_per_client"]) >= LEARNED for result, _ in local]
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
        best = [
            (curve.min() - mine[-1].mean()) / (curve.min() - full[-1].mean())
            for curve, (_, mine), (_, full) in zip(least, runs, dense, strict=True)
        ]
        shares = {key: float((mine - alone[key]) / (full - alone[key])) for key, (mine, full) in ends.items()}
        record["shares"][name] = {"learned": shares, "best": [float(share) for share in best]}
    (RESULTS / f"alone-{folder.name}.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
