# SPDX-License-Identifier: Apache-2.0
"""What a finished run lost on the way, and what more exchanges at its end could still gain.

    TRUSTFORMER_DATA=DIR python benchmarks/screening/mean.py runs/multi30k-12/centroid-seed1

NLL on the test pairs of the mean of the clients' models, in which closing exchanges without end would meet (but for
what the enclave still holds back), of G and of every client's own. Writes benchmarks/results/screening/mean.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from trustformer.codec.weights import Weights
from trustformer.evaluation.translation import negative_log_likelihood
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.federation.store import ClientStore
from trustformer.models.seq2seq import set_weights

RESULT = Path(__file__).parents[1] / "results" / "screening" / "mean.json"


def distance(one: Weights, other: Weights) -> float:
    """Euclidean, over all tensors."""
    return float(np.sqrt(sum(np.square(one[name] - other[name]).sum(dtype=np.float64) for name in one)))


def main(run: Path) -> None:
    """Score the models of one run and write them."""
    config = load_config(run / "config.toml")
    torch.set_num_threads(config.threads)
    prepared = prepare(config)
    test = prepared.task.examples(prepared.corpus.test[: config.evaluation.test_pairs or None], config.model.max_length)
    states = {folder.name: ClientStore(folder).load() for folder in sorted((run / "clients").iterdir())}
    owned = {f"client {name}": state.weights for name, state in states.items() if state}
    common = next(state.common for state in states.values() if state)
    mean = {name: np.mean([weights[name] for weights in owned.values()], 0, np.float32) for name in common}
    found = {}
    for name, weights in {"mean": mean, "G": common, **owned}.items():
        set_weights(prepared.model, weights)
        nll = negative_log_likelihood(prepared.model, test, objective=prepared.task.objective)
        found[name] = {"nll": round(nll, 4), "from_mean": round(distance(weights, mean), 2)}
    result = json.loads((run / "result.json").read_text("utf-8"))
    RESULT.write_text(json.dumps({"signature": result["signature"], "models": found}, indent=1) + "\n", "utf-8")
    print(RESULT.read_text("utf-8"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
