# SPDX-License-Identifier: Apache-2.0
"""What noise costs in each part of a translation model: where a message should be fine, and where coarse.

TRUSTFORMER_DATA=DIR python benchmarks/screening/sensitivity.py runs/multi30k/fedavg-seed1

Adds Gaussian noise to one part of a finished run's model at a time, and writes how much the negative log-likelihood of
the validation pairs rises: in nats a token, per 100,000 entries.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from trustformer.codec.weights import Weights
from trustformer.data.batches import to_examples
from trustformer.evaluation.translation import negative_log_likelihood
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import load_corpus
from trustformer.experiment.record import RunDirectory, environment
from trustformer.experiment.saved import load_saved
from trustformer.models.seq2seq import get_weights, set_weights

ROWS = (0, 250, 1000, 2000, 4000)
"""The embedding is cut at these rows."""


def parts(weights: Weights) -> dict[str, list[tuple[str, slice]]]:
    """Names and rows by part: side and kind of matrix, rows of the embedding."""
    found: dict[str, list[tuple[str, slice]]] = {}
    for name, values in weights.items():
        if values.ndim == 1:
            found.setdefault("one-dimensional", []).append((name, slice(None)))
        elif len(values) >= ROWS[-1]:
            for first, end in pairwise(ROWS):
                found[f"embedding, rows {first} to {end}"] = [(name, slice(first, end))]
        else:
            side = "decoder" if "decoder" in name else "encoder"
            kind = "feed-forward" if "fc" in name else name.split(".")[-2]
            found.setdefault(f"{side}, {kind}", []).append((name, slice(None)))
    return found


def measure(run: Path, deviation: float, draws: int) -> dict[str, Any]:
    """Return the cost of noise by part."""
    config = load_config(run / "config.toml")
    model, tokenizer = load_saved(run)
    trained = get_weights(model)
    valid = to_examples(load_corpus(config)[0].valid, tokenizer, config.model.max_length)

    def nll(weights: Weights) -> float:
        set_weights(model, weights)
        return negative_log_likelihood(model, valid)

    base, rng, rows = nll(trained), np.random.default_rng(0), []
    for part, places in sorted(parts(trained).items()):
        costs = []
        for _ in range(draws):
            noisy = dict(trained)
            for name, where in places:
                noisy[name] = trained[name].copy()
                noise = rng.normal(0, deviation, noisy[name][where].shape)
                noisy[name][where] += noise.astype(np.float32)
            costs.append(nll(noisy) - base)
        entries = sum(trained[name][where].size for name, where in places)
        scale = 1e5 / entries
        row = {
            "part": part,
            "entries": entries,
            "cost_per_100k": round(float(np.mean(costs)) * scale, 6),
            "standard_error": round(float(np.std(costs, ddof=1)) / draws**0.5 * scale, 6),
        }
        rows.append(row)
        print(f"{part:30} {entries:8,} entries  {row['cost_per_100k']:+.5f} ± {row['standard_error']:.5f}", flush=True)
    result = RunDirectory(run).result() or {}
    return {
        "run": result["signature"],
        "noise": deviation,
        "draws": draws,
        "nll": round(base, 5),
        "parts": rows,
        "environment": environment(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--noise", type=float, default=0.015, help="standard deviation of an entry")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/screening/sensitivity.json"))
    given = parser.parse_args()
    result = measure(given.run, given.noise, given.draws)
    given.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
