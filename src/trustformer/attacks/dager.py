# SPDX-License-Identifier: Apache-2.0
"""Tokens and whole sentences from the gradients of linear layers (DAGER, Petrov et al., arXiv 2405.15586).

Adapted to an encoder-decoder. The first self-attention of each side is given sqrt(D) E[token] + P[position], so a token
was in the batch if that lies in the row space of its query gradient (`RowSpace`). The cross-attention of the first
decoder layer is given what depends on the target up to a position and on nothing else, not even the source: its
gradient decides every next token, and target sentences are read from left to right. What the encoder's layers are given
depends on the whole source sentence; source sentences are searched for (`sources`, where the paper enumerates).

Positions are fixed and additive: with (a, 1), (a, 2) and (b, 1) in a span (b, 2) is, too. So the first layer tells
which tokens there were, and a later one where: the input of a feed-forward layer. In full batches its gradient
separates true inputs from rounding a hundred times better than that of the next queries, and behind one feed-forward
layer nothing is additive.
"""

from __future__ import annotations

from collections.abc import Collection
from copy import deepcopy

import numpy as np
import torch

from trustformer.attacks.sources import Report, Sentence, SourceSearch
from trustformer.attacks.spans import RowSpace
from trustformer.codec.weights import Weights
from trustformer.errors import ConfigError
from trustformer.models.seq2seq import Model, set_weights

TOLERANCES = {"source": 5e-3, "target": 5e-3, "target 2": 3e-5}
"""Largest distance of what counts as in a span. On `tiny` with 12 to 120 tokens true inputs end at 4e-4, 3e-6 and 7e-6,
wrong ones begin at 0.03, 0.07 and 2e-3 (`benchmarks/screening/tolerances.py`)."""
_BEAM = 64
"""Most prefixes kept at a position."""
_DEEP = 1
"""Encoder layer, from 0, whose feed-forward gradient places tokens; the last one in a shallower encoder."""


def lacking(model: Model, sent: Collection[str]) -> str:
    """Return what keeps `Dager` from a model whose tensors of these names are sent; empty where nothing does."""
    if model.config.model_type != "marian":
        return f"DAGER reads models of the type marian, and this is {model.config.model_type}"
    absent = [name for name in _read(model).values() if name not in sent]
    return f"DAGER reads {absent[0]}, which is not sent: it is frozen, or has an adapter in its place" if absent else ""


def _deep(model: Model) -> int:
    return min(_DEEP, int(model.config.encoder_layers) - 1)


def _read(model: Model) -> dict[str, str]:
    """Names of the tensors whose gradients are read, by the space they give."""
    names = {
        "source": "encoder.layers.0.self_attn.q_proj",
        "source 2": f"encoder.layers.{_deep(model)}.fc1",
        "target": "decoder.layers.0.self_attn.q_proj",
        "target 2": "decoder.layers.0.encoder_attn.q_proj",
    }
    return {space: f"model.{name}.weight" for space, name in names.items()}


class Dager:
    """One gradient under attack.

    Args:
        model: the architecture; a copy is made.
        weights: where the gradient was taken.
        gradient: dL/dW by tensor name, or anything that may hold one, such as a drift.

    Raises:
        ConfigError: the model is no Marian model, so that its layers are not these, or a gradient is not there.
    """

    def __init__(self, model: Model, weights: Weights, gradient: Weights) -> None:
        if why := lacking(model, gradient):
            raise ConfigError(why)
        set_weights(model, weights)
        self._model = deepcopy(model).eval().double().requires_grad_(False)
        inner = self._model.model
        self._decoder, self._deep = inner.decoder.layers[0], _deep(model)
        self._E_VD = inner.shared.weight * inner.encoder.embed_scale
        self._P_LD = inner.encoder.embed_positions.weight
        self._pad, self._end = self._model.config.pad_token_id, self._model.config.eos_token_id
        self._spaces = {space: RowSpace.of(gradient[name]) for space, name in _read(model).items()}
        self._grids: dict[str, torch.Tensor] = {}

    def exact(self, side: str) -> bool:
        """Whether the first layer's gradient of a side has a null space at all."""
        return not self._spaces[side].full

    def token_distances(self, side: str) -> np.ndarray:
        """Return how far each token is from the span at its best position, float64 (V,); the pad token is at 1."""
        nearest_V = self._grid(side).min(0).values.numpy()
        nearest_V[self._pad] = 1.0
        return nearest_V

    def tokens(self, side: str) -> list[int]:
        """Return the tokens within the tolerance, nearest first; none where the gradient has no null space."""
        if not self.exact(side):
            return []
        distances_V = self.token_distances(side)
        found = np.flatnonzero(distances_V < TOLERANCES[side])
        return [int(token) for token in found[np.argsort(distances_V[found], kind="stable")]]

    def _grid(self, side: str) -> torch.Tensor:
        """Distances of every token at every position, (L, V); computed once."""
        if side not in self._grids:
            space = self._spaces[side]
            self._grids[side] = torch.stack([space.distances(self._E_VD + position_D) for position_D in self._P_LD])
        return self._grids[side]

    def targets(self, report: Report | None = None) -> list[Sentence]:
        """Return target sentences without their end token, from left to right."""
        tokens, space = self.tokens("target"), self._spaces["target 2"]
        if not tokens or space.full:
            return []
        found: list[Sentence] = []
        prefixes: list[Sentence] = [()]
        for length in range(1, len(self._P_LD)):
            longer = [(*prefix, token) for prefix in prefixes for token in tokens]
            distances = space.distances(self._decoder_inputs(longer)).tolist() if longer else []
            kept = sorted(
                (distance, ids)
                for distance, ids in zip(distances, longer, strict=True)
                if distance < TOLERANCES["target 2"]
            )
            extended = {ids[:-1] for _, ids in kept}
            found += [prefix for prefix in prefixes if prefix and prefix not in extended]
            prefixes = [ids for _, ids in kept[:_BEAM]]
            if report is not None:
                report(length, len(self._P_LD))
            if not prefixes:
                break
        return found

    def _decoder_inputs(self, prefixes: list[Sentence]) -> torch.Tensor:
        """What the cross-attention is given at the last position of each prefix, (N, D)."""
        ids = torch.tensor([[self._model.config.decoder_start_token_id, *prefix] for prefix in prefixes])
        X_NLD = self._E_VD[ids] + self._P_LD[: ids.shape[1]]
        mask = torch.full((1, 1, ids.shape[1], ids.shape[1]), -torch.inf, dtype=X_NLD.dtype).triu(1)
        attended, _ = self._decoder.self_attn(X_NLD, attention_mask=mask)
        hidden: torch.Tensor = self._decoder.self_attn_layer_norm(X_NLD + attended)[:, -1]
        return hidden

    def sources(
        self, count: int, attempts: int, rng: np.random.Generator, report: Report | None = None
    ) -> list[Sentence]:
        """Return source sentences with their end token that explain the feed-forward gradient.

        Args:
            count: how many there are.
            attempts: starts of a search.
            rng: of contexts that are guessed.
            report: called with steps done and in all.
        """
        tokens, space = self.tokens("source"), self._spaces["source 2"]
        if not tokens or not count or space.full or self._end not in tokens:
            return []
        nearest_L = self._grid("source")[:, tokens].min(1).values
        search = SourceSearch(self._model, self._deep, space, tokens, rng)
        return search.find(count, attempts, int((nearest_L < TOLERANCES["source"]).sum()), report)
