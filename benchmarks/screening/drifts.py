# SPDX-License-Identifier: Apache-2.0
"""What drifts are made of: noise of order and dropout, what one client alone learns, what coding does to their mean.

    TRUSTFORMER_DATA=DIR python benchmarks/screening/drifts.py runs/every3 --block 8 --clusters 128

Takes a finished dense run, in which all clients hold G, and trains every client one round more, the first one twice
with other draws. Cosines between drifts say what they share; NLL on the validation pairs what their mean is worth,
whole, shortened and coded on the way up, down and both. Writes benchmarks/results/screening/drifts.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from trustformer.codec.rates import join, pieces, rated_layout
from trustformer.codec.weights import Weights, specs_of
from trustformer.errors import ConfigError
from trustformer.evaluation.translation import negative_log_likelihood
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.experiment.record import environment
from trustformer.federation.store import ClientStore
from trustformer.message import Codebook
from trustformer.models.seq2seq import set_weights
from trustformer.training import LocalTrainer
from trustformer.vq import decode, encode

RESULT = Path(__file__).parents[1] / "results" / "screening" / "drifts.json"
SHARES = (0.3, 0.5, 0.7, 1.0)


def flat(weights: Weights) -> np.ndarray:
    """All entries, float64."""
    return np.concatenate([values.ravel() for values in weights.values()]).astype(np.float64)


def cosine(one: Weights, other: Weights) -> float:
    """Of the angle between two drifts."""
    a, b = flat(one), flat(other)
    return round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 3)


def coded(drift: Weights, coding: Codebook) -> Weights:
    """What a message says of a drift, as clients and enclave code it."""
    layout = rated_layout(specs_of(drift), coding)
    said = join(decode(layout, encode(layout, pieces(layout, drift), np.random.default_rng(1))))
    return {name: said[name] for name in drift}


def average(drifts: list[Weights]) -> Weights:
    """Of equal clients."""
    return {name: np.mean([drift[name] for drift in drifts], 0, np.float32) for name in drifts[0]}


def main(arguments: argparse.Namespace) -> None:
    """Measure one run and write what was found."""
    config = load_config(arguments.run / "config.toml")
    torch.set_num_threads(config.threads)
    prepared = prepare(config)
    states = [ClientStore(folder).load() for folder in sorted((arguments.run / "clients").iterdir())]
    if config.method.name != "fedavg" or not all(states):
        raise ConfigError(f"{arguments.run} is no finished run of fedavg, whose clients all hold G")
    common = {name: states[0].common[name] for name in prepared.start}
    valid = prepared.task.examples(prepared.corpus.valid, config.model.max_length)
    trainer = LocalTrainer(prepared.model, config.train, rounds=config.rounds)

    def drift(index: int, draw: int) -> Weights:
        examples = list(prepared.clients.values())[index]
        after = trainer.train(common, states[index].optimizer, examples, seed=(draw, index, 1)).weights
        return {name: after[name] - common[name] for name in common}

    def nll(step: Weights, share: float = 1.0) -> float:
        set_weights(prepared.model, {name: common[name] + np.float32(share) * step[name] for name in common})
        return round(negative_log_likelihood(prepared.model, valid, objective=prepared.task.objective), 4)

    drifts, again = [drift(index, 1) for index in range(len(states))], drift(0, 2)
    coding, mean = Codebook(arguments.block, arguments.clusters), average(drifts)
    up = average([coded(one, coding) for one in drifts])
    found = {
        "signature": json.loads((arguments.run / "result.json").read_text("utf-8"))["signature"],
        "block": arguments.block,
        "clusters": arguments.clusters,
        "length": {
            "client": round(float(np.linalg.norm(flat(drifts[0]))), 2),
            "mean": round(float(np.linalg.norm(flat(mean))), 2),
        },
        "cosine": {
            "one client, other draws": cosine(drifts[0], again),
            "two clients": [cosine(one, other) for one, other in combinations(drifts, 2)],
        },
        "nll": {
            "G": nll(mean, 0),
            "client": nll(drifts[0]),
            **{f"G and {share:g} of the mean": nll(mean, share) for share in SHARES},
            "coded on the way up": nll(up),
            "coded on the way down": nll(coded(mean, coding)),
            "coded both ways": nll(coded(up, coding)),
        },
        "environment": environment(),
    }
    RESULT.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(RESULT.read_text("utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--clusters", type=int, default=256)
    try:
        main(parser.parse_args())
    except ConfigError as error:
        sys.exit(f"error: {error.message}")
