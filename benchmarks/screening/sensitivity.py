# SPDX-License-Identifier: Apache-2.0
"""What noise costs in each part of a translation model in training: where a message should be fine, and where coarse.

TRUSTFORMER_DATA=DIR python benchmarks/screening/sensitivity.py runs/peers/codebook benchmarks/configs/multi30k/fedavg.toml

Reads the state of a run of `benchmarks/peers/harness.py`, adds Gaussian noise to one part of the clients' mean at a time,
and writes how much the negative log-likelihood of the validation pairs rises: in nats a token, per 100,000 entries.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
import harness

from trustformer.codec.weights import Weights
from trustformer.data.batches import to_examples
from trustformer.evaluation.translation import negative_log_likelihood
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.experiment.record import environment
from trustformer.models.seq2seq import set_weights

ROWS = (0, 250, 1000, 2000, 4000)
"""The embedding is cut at these rows."""


def parts(weights: Weights) -> dict[str, list[tuple[str, slice]]]:
    """Names and rows by part: side and kind of matrix, rows of the embedding."""
    found: dict[str, list[tuple[str, slice]]] = {}
    for name, values in weights.items():
        if values.ndim == 1:
            found.setdefault("one-dimensional", []).append((name, slice(None)))
        elif len(values) >= ROWS[-1]:
            for first, end in zip(ROWS, ROWS[1:], strict=False):
                found[f"embedding, rows {first} to {end}"] = [(name, slice(first, end))]
        else:
            side = "decoder" if "decoder" in name else "encoder"
            kind = "feed-forward" if "fc" in name else name.split(".")[-2]
            found.setdefault(f"{side}, {kind}", []).append((name, slice(None)))
    return found


def measure(run: Path, config_file: Path, deviation: float, draws: int) -> dict[str, Any]:
    """Return the cost of noise by part."""
    config = load_config(config_file)
    prepared = prepare(config)
    count = len(prepared.clients)
    empty = [harness.Party(dict(prepared.start)) for _ in range(count)]
    state = harness.State(empty, dict(prepared.start), {}, [{} for _ in range(count + 1)])
    harness.load(run / "state.safetensors", state)
    mean = {name: sum(p.weights[name] for p in state.parties) / np.float32(count) for name in state.common}
    valid = to_examples(prepared.corpus.valid, prepared.tokenizer, config.model.max_length)

    def nll(weights: Weights) -> float:
        set_weights(prepared.model, weights)
        return negative_log_likelihood(prepared.model, valid)

    base, rng, rows = nll(mean), np.random.default_rng(0), []
    for part, places in sorted(parts(mean).items()):
        costs = []
        for _ in range(draws):
            noisy = dict(mean)
            for name, where in places:
                noisy[name] = mean[name].copy()
                noise = rng.normal(0, deviation, noisy[name][where].shape)
                noisy[name][where] += noise.astype(np.float32)
            costs.append(nll(noisy) - base)
        entries = sum(mean[name][where].size for name, where in places)
        scale = 1e5 / entries
        row = {
            "part": part,
            "entries": entries,
            "cost_per_100k": round(float(np.mean(costs)) * scale, 6),
            "standard_error": round(float(np.std(costs, ddof=1)) / draws**0.5 * scale, 6),
        }
        rows.append(row)
        print(f"{part:30} {entries:8,} entries  {row['cost_per_100k']:+.5f} ± {row['standard_error']:.5f}", flush=True)
    options = json.loads((run / "options.json").read_text("utf-8"))
    return {
        "run": {key: options[key] for key in ("codec", "answer", "feedback")} | {"rounds": len(state.rounds)},
        "noise": deviation,
        "draws": draws,
        "nll": round(base, 5),
        "parts": rows,
        "environment": environment(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--noise", type=float, default=0.015, help="standard deviation of an entry")
    parser.add_argument("--draws", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/screening/sensitivity.json"))
    given = parser.parse_args()
    result = measure(given.run, given.config, given.noise, given.draws)
    given.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
