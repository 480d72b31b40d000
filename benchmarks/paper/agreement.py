# SPDX-License-Identifier: Apache-2.0
"""What one exchange of the published method does to clients whose models it has met for a whole run.

python benchmarks/paper/agreement.py runs/paper/multi30k/multi30k-paper-01-seed1 benchmarks/results/paper/agreement.json

Takes the clients of a finished run of `paper`, trains each for one more round on its own text, and measures for
several ratios, over the matrices that are exchanged: how many rows have the same cluster number at two clients, how
far the mean of the clients' models moves, and how far apart they are afterwards.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from trustformer.codec.paper import PaperCodec, row_clusters
from trustformer.codec.weights import Weights, specs_of
from trustformer.data.marian import stored_tokenizer
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.federation.store import ClientStore
from trustformer.training import LocalTrainer
from trustformer.vq import decode, encode

RATIOS = (0.01, 0.1, 0.5, 1.0)


def trained_once_more(run: Path) -> tuple[list[Weights], str]:
    """Return the weights of a run's clients after a further round of training, and the run's signature."""
    config = load_config(run / "config.toml")
    prepared = prepare(config, stored_tokenizer(run / "tokenizer.model"))
    trainer = LocalTrainer(prepared.model, config.train, prepared.method.rule, objective=prepared.task.objective)
    weights = []
    for index, (client, examples) in enumerate(prepared.clients.items()):
        state = ClientStore(run / "clients" / client).load()
        assert state is not None
        seed = (config.seed, index, state.trained + 1)
        weights.append(trainer.train(state.weights, state.optimizer, examples, seed=seed).weights)
        print(f"client {client} trained", flush=True)
    return weights, json.loads((run / "result.json").read_text("utf-8"))["signature"]


def exchange(codec: PaperCodec, clients: Sequence[Weights]) -> list[Weights]:
    """What clients and aggregator do in a round: average by number, unweighted, then shift."""
    rng = np.random.default_rng(0)
    bodies = [codec.encode(weights, {}, rng) for weights in clients]
    sent = [decode(codec.upload, body) for body in bodies]
    means = {name: np.mean([one[name] for one in sent], 0, dtype=np.float64).astype(np.float32) for name in sent[0]}
    answer = encode(codec.answer, means, rng)
    return [codec.adopt(weights, {}, answer, body)[0] for weights, body in zip(clients, bodies, strict=True)]


def same_numbers(codec: PaperCodec, clients: Sequence[Weights]) -> tuple[float, float]:
    """Share of rows whose cluster has the same number at two clients, and what chance would give; by entries."""
    same = chance = entries = 0.0
    for spec in codec.upload.tensors:
        rows = [client[spec.name].reshape(len(client[spec.name]), -1) for client in clients]
        labels = [row_clusters(values, spec.shape[0])[1] for values in rows]
        sizes = [np.bincount(each, minlength=spec.shape[0]) / len(each) for each in labels]
        for one, other in combinations(range(len(clients)), 2):
            same += rows[0].size * float(np.mean(labels[one] == labels[other]))
            chance += rows[0].size * float(sizes[one] @ sizes[other])
            entries += rows[0].size
    return same / entries, chance / entries


def measure(clients: Sequence[Weights], ratio: float) -> dict[str, float]:
    """What one exchange does; lengths are divided by the distance of the clients from their mean before it."""
    codec = PaperCodec.make(specs_of(clients[0]), ratio)
    names = [spec.name for spec in codec.upload.tensors]
    before, after = (_stacked(each, names) for each in (clients, exchange(codec, clients)))
    centre, moved = before.mean(0), after.mean(0)
    apart = np.sqrt(np.square(before - centre).sum(1).mean())
    same, chance = same_numbers(codec, clients)
    return {
        "same_number": round(same, 4),
        "same_number_by_chance": round(chance, 4),
        "mean_moved": round(float(np.linalg.norm(moved - centre) / apart), 4),
        "apart_after": round(float(np.sqrt(np.square(after - moved).sum(1).mean()) / apart), 4),
    }


def _stacked(clients: Sequence[Weights], names: Sequence[str]) -> np.ndarray:
    return np.array([np.concatenate([each[name].reshape(-1) for name in names]) for each in clients], np.float64)


def main(run: Path, target: Path) -> None:
    """Measure all ratios and write them."""
    clients, signature = trained_once_more(run)
    ratios = {f"{ratio:g}": measure(clients, ratio) for ratio in RATIOS}
    target.write_text(json.dumps({"run": signature, "ratios": ratios}, indent=1) + "\n", "utf-8")
    print(target.read_text("utf-8"), end="")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
