# SPDX-License-Identifier: Apache-2.0
"""How far true and false inputs of a layer are from the row space of its gradient: where the attacks' tolerances stand.

OMP_NUM_THREADS=1 python benchmarks/screening/tolerances.py [--draws 3]

Random sentences, a new `tiny` model of 128 columns and a vocabulary of 1,000 a draw. Of each gradient space that DAGER
reads, over all batches of one size: the largest distance of what was in the batch and the smallest of what was not,
the wrong ones differing from a true one in a single token; and the smallest true singular value beside the largest that
is rounding, as shares of the largest. `source 2, queries` is the layer that the paper reads and DAGER here does not.
At the end, how many tokens of a batch the movement of embedding rows ranks first.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trustformer.attacks import rows
from trustformer.attacks.dager import TOLERANCES, Dager
from trustformer.attacks.probe import gradient
from trustformer.attacks.scores import ranking
from trustformer.attacks.sources import TOLERANCE, SourceSearch
from trustformer.attacks.spans import NOISE
from trustformer.data.batches import Example
from trustformer.experiment.record import environment
from trustformer.models.seq2seq import ModelConfig, build_model, get_weights

OUT = Path(__file__).parents[1] / "results" / "screening" / "tolerances.json"
VOCABULARY = 1000
BATCHES = ((12,), (12, 17), (9, 12, 17, 14), (9, 12, 17, 14, 20, 11, 16, 8), (9, 12, 17, 14, 20, 11, 16, 8, 13))
"""Tokens of each source with its end token; a target has one fewer. The last has 120, of a width of 128."""
WRONG = 50
"""Wrong inputs drawn for each true one."""

LAYERS = {
    "source": "encoder.layers.0.self_attn.q_proj",
    "source 2": "encoder.layers.1.fc1",
    "source 2, queries": "encoder.layers.1.self_attn.q_proj",
    "target": "decoder.layers.0.self_attn.q_proj",
    "target 2": "decoder.layers.0.encoder_attn.q_proj",
}
RNG = np.random.default_rng(0)


def sentences(lengths: tuple[int, ...], rng: np.random.Generator) -> list[Example]:
    """Pairs of random tokens, each with the end token 1."""
    return [
        Example(*([*rng.integers(3, VOCABULARY, words).tolist(), 1] for words in (length - 1, length - 2)))
        for length in lengths
    ]


def prefixes(dager: Dager, few: list[Example], rng: np.random.Generator) -> Iterator[tuple[float, list[float]]]:
    """Distances of every true target prefix, and of those with another last token of the batch."""
    tokens = sorted({token for one in few for token in one.target[:-1]})
    true = {tuple(one.target[:end]) for one in few for end in range(1, len(one.target))}
    for prefix in sorted(true):
        others = [(*prefix[:-1], int(token)) for token in rng.choice(tokens, WRONG)]
        inputs = dager._decoder_inputs([prefix, *(other for other in others if other not in true)])
        distance, *wrong = dager._spaces["target 2"].distances(inputs).tolist()
        yield distance, wrong


def whole(dager: Dager, few: list[Example], rng: np.random.Generator) -> Iterator[tuple[float, list[float]]]:
    """The largest distance over a true source, and over those with one other token of the batch."""
    tokens = sorted({token for one in few for token in one.source})
    search = SourceSearch(dager._model, dager._deep, dager._spaces["source 2"], tokens, rng)
    at = {token: index for index, token in enumerate(tokens)}
    for one in few:
        ids_NL = torch.tensor([[at[token] for token in one.source]] * (WRONG + 1))
        ids_NL[torch.arange(1, WRONG + 1), torch.from_numpy(rng.integers(0, len(one.source) - 1, WRONG))] = (
            torch.from_numpy(rng.integers(0, len(tokens), WRONG))
        )
        distances_N = dager._spaces["source 2"].distances(search._trace(ids_NL)[1]).amax(1)
        changed_N = (ids_NL != ids_NL[0]).any(1)
        yield float(distances_N[0]), distances_N[changed_N].tolist()


def given(dager: Dager, few: list[Example], space: str) -> torch.Tensor:
    """What the layer of a space was given, exactly, (N, D)."""
    if space == "target 2":
        ends = [one.target[:end] for one in few for end in range(len(one.target))]
        return torch.cat([dager._decoder_inputs([tuple(prefix)]) for prefix in ends])
    if space == "source 2":
        search = SourceSearch(dager._model, dager._deep, dager._spaces[space], list(range(VOCABULARY)), RNG)
        return torch.cat([search._trace(torch.tensor([one.source]))[1][0] for one in few])
    if space == "source 2, queries":
        encoder = dager._model.model.encoder
        ids = [torch.tensor([one.source]) for one in few]
        return torch.cat([encoder(one, output_hidden_states=True).hidden_states[1][0] for one in ids])
    if space == "target":  # all but the first: attention to a single position has no gradient
        return torch.cat([(dager._E_VD[one.target[:-1]] + dager._P_LD[1 : len(one.target)]) for one in few])
    return torch.cat([dager._E_VD[one.source] + dager._P_LD[: len(one.source)] for one in few])


def strengths(gradient_OD: np.ndarray, inputs_ND: torch.Tensor) -> tuple[float, float]:
    """The largest singular value of a gradient that is rounding and the smallest that is not, over the largest."""
    rank = int(torch.linalg.matrix_rank(inputs_ND, rtol=1e-9))
    values = np.linalg.svd(gradient_OD.astype("f8"), compute_uv=False)
    return float(values[rank] / values[0]), float(values[rank - 1] / values[0])


def one_batch(lengths: tuple[int, ...], seed: int) -> dict[str, tuple[float, float]]:
    """What is to be kept and what is to be refused: distances of each space, and its singular values."""
    rng = np.random.default_rng(seed)
    few = sentences(lengths, rng)
    model = build_model(ModelConfig(max_length=24), VOCABULARY, seed)
    weights = get_weights(model)
    sent = gradient(model, weights, few, 0.1)
    dager = Dager(model, weights, sent)
    found = {}
    for side, texts in (("source", [one.source for one in few]), ("target", [one.target[:-1] for one in few])):
        present = sorted({token for text in texts for token in text})
        distances_V = dager.token_distances(side)
        found[side] = float(distances_V[present].max()), float(np.delete(distances_V, present).min())
    for space, pairs in (("target 2", prefixes(dager, few, rng)), ("source 2", whole(dager, few, rng))):
        true, wrong = zip(*pairs, strict=True)
        found[space] = max(true), min(min(others) for others in wrong if others)
    for space, name in LAYERS.items():
        found[f"singular values, {space}"] = strengths(sent[f"model.{name}.weight"], given(dager, few, space))
    return found


def ranked_first(lengths: tuple[int, ...], seed: int) -> dict[str, float]:
    """Share of a batch's tokens ranked first by the movement of embedding rows, by the directions taken away."""
    few = sentences(lengths, np.random.default_rng(seed))
    model = build_model(ModelConfig(max_length=24), VOCABULARY, seed)
    drift_VD = rows.embedding_of(gradient(model, get_weights(model), few, 0.1), VOCABULARY)
    present = {token for one in few for token in (*one.source, *one.target)} - {1}
    return {str(count): ranking(rows.token_scores(drift_VD, count), present, {0, 1}).found for count in (0, 1, 2, 4, 8)}


def main(draws: int) -> dict[str, Any]:
    """Largest of what is to be kept and smallest of what is to be refused, by number of tokens."""
    by_tokens = {}
    for lengths in BATCHES:
        seen = [one_batch(lengths, seed) for seed in range(1, draws + 1)]
        by_tokens[str(sum(lengths))] = {
            key: {"kept": max(one[key][0] for one in seen), "refused": min(one[key][1] for one in seen)}
            for key in seen[0]
        }
        print(sum(lengths), json.dumps(by_tokens[str(sum(lengths))]), flush=True)
    shares = [ranked_first(lengths, seed) for lengths in BATCHES[:3] for seed in range(1, draws + 1)]
    return {
        "draws": draws,
        "wrong inputs a true one": WRONG,
        "tolerances": {**TOLERANCES, "source 2": TOLERANCE, "singular values": NOISE},
        "by tokens of the sources": by_tokens,
        "tokens first by directions taken away": {
            key: float(np.mean([share[key] for share in shares])) for key in shares[0]
        },
        "environment": environment(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    options.out.write_text(json.dumps(main(options.draws), indent=2) + "\n", "utf-8")
