# SPDX-License-Identifier: Apache-2.0
"""Source sentences from what the encoder's feed-forward layer was given.

That input depends on a token, its position, and through attention on the whole sentence. With small first matrices
attention adds nearly the same vector, the context, at every position. So the search goes:

1. guess the context by that of random sentences of the same length: what a pair (token, position) still lacks to lie in
   the span is then nearly one vector for all pairs of one sentence;
2. at each position keep the tokens that lack least, and look for a vector that one token of every position is near to;
3. replace the guessed context by that of the sentence found, and choose again, until nothing changes.

A sentence counts when its inputs, computed exactly, lie in the span at every position. Nothing is enumerated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as functional

from trustformer.attacks.spans import RowSpace
from trustformer.models.seq2seq import Model

Report = Callable[[int, int], None]
Sentence = tuple[int, ...]

TOLERANCE = 3e-5
"""Largest distance of an exact input. On `tiny` with 12 to 120 tokens true sentences end at 4e-7, those with one wrong
token begin at 1e-3 (`benchmarks/screening/tolerances.py`)."""
_CONTEXTS = 8
_STEPS = 20
_REPAIRS = 4
_DESCENT = 2000
_PULL = 0.01


class SourceSearch:
    """The search for one gradient.

    Args:
        model: weights as they were, float64, in evaluation mode.
        layer: of the encoder, whose feed-forward gradient is known.
        space: the row space of that gradient.
        tokens: that may occur, the end token among them.
        rng: of the guessed contexts.
    """

    def __init__(self, model: Model, layer: int, space: RowSpace, tokens: list[int], rng: np.random.Generator) -> None:
        encoder = model.model.encoder
        self._layers, self._space, self._rng = encoder.layers[: layer + 1], space, rng
        self._tokens_T = torch.tensor(tokens)
        self._end = tokens.index(model.config.eos_token_id)
        self._E_TD = model.model.shared.weight[self._tokens_T] * encoder.embed_scale
        self._P_LD = encoder.embed_positions.weight

    def find(self, count: int, attempts: int, longest: int, report: Report | None = None) -> list[Sentence]:
        """Return up to `count` sentences, with their end token, of at most `longest` tokens.

        Args:
            count: how many there are.
            attempts: starts a length.
            longest: tokens of a sentence, at most.
            report: called with lengths done and in all.
        """
        kept = min(count + 2, len(self._tokens_T) - 1)
        contexts = {length: self._guess(length) for length in range(2, min(longest, len(self._P_LD)) + 1)}
        end_L1 = {length: torch.full((length, 1), self._end) for length in contexts}
        ends = {length: self._lack(guess, end_L1[length])[-1, 0] for length, guess in contexts.items()}
        order = sorted(ends, key=lambda length: float(ends[length].norm()))[:kept]
        settled = []
        for done, length in enumerate(order):
            near_LK, lack_LKC = self._near(contexts[length], length, kept)
            choices = [self._settle(near_LK, start) for start in self._starts(lack_LKC, ends[length], attempts)]
            settled += [(total, near_LK, chosen_L) for total, chosen_L in choices]
            if report is not None:
                report(done + 1, 2 * len(order))
        settled = sorted(settled, key=lambda choice: choice[0])[: 2 * count]
        found: dict[Sentence, torch.Tensor] = {}
        for done, (_, near_LK, chosen_L) in enumerate(settled):
            for _ in range(count - len(found)):
                others = [other_L for other_L in found.values() if len(other_L) == len(chosen_L)]
                sentence, repaired_L, distance = self._repair(near_LK, chosen_L, others)
                if distance > TOLERANCE or sentence in found:
                    break
                found[sentence] = repaired_L
            if report is not None:
                report(len(order) + (done + 1) * len(order) // len(settled), 2 * len(order))
        return list(found)

    def _near(self, contexts: list[torch.Tensor], length: int, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The tokens nearest to the span at every position but the end's, (L, K), and what they lack, (L, K, C)."""
        lack_LTC = self._lack(contexts, torch.arange(len(self._tokens_T)).expand(length, -1))[:-1]
        far_LT = lack_LTC.norm(dim=-1).index_fill(1, torch.tensor([self._end]), torch.inf)
        near_LK = far_LT.argsort(1)[:, :kept]
        return near_LK, lack_LTC.gather(1, _wide(near_LK, lack_LTC[0, 0]))

    def _starts(self, lack_LKC: torch.Tensor, end_C: torch.Tensor, attempts: int) -> list[torch.Tensor]:
        """Choices of one candidate a position, (L,) each, that lack about the same; the likeliest first."""
        length = len(lack_LKC)
        points_SC = torch.cat([end_C[None], lack_LKC.flatten(0, 1)])
        near_SL = torch.cdist(points_SC, lack_LKC.flatten(0, 1)).view(len(points_SC), length, -1).min(2).values
        scores_S = near_SL.mean(1) + (points_SC - end_C).norm(dim=1)
        starts: dict[tuple[int, ...], torch.Tensor] = {}
        for seed in scores_S.argsort()[: 4 * attempts]:
            centre_C = points_SC[seed]
            for _ in range(4):
                chosen_L = (lack_LKC - centre_C).norm(dim=-1).argmin(1)
                centre_C = _centre(lack_LKC, chosen_L, end_C)
            starts.setdefault(tuple(chosen_L.tolist()), chosen_L)
            if len(starts) == attempts:
                break
        return list(starts.values())

    def _settle(self, near_LK: torch.Tensor, chosen_L: torch.Tensor) -> tuple[float, torch.Tensor]:
        """Choose by the context of what was chosen before, until that repeats; the best choice after its lack."""
        seen: set[tuple[int, ...]] = set()
        candidates_LK = torch.cat([near_LK, torch.full_like(near_LK[:1], self._end)])
        best, best_L = np.inf, chosen_L
        while tuple(chosen_L.tolist()) not in seen and len(seen) < _STEPS:
            seen.add(tuple(chosen_L.tolist()))
            contexts, inputs_NLD = self._trace(self._ids(near_LK, chosen_L[None]))
            total = float(self._space.distances(inputs_NLD[0]).square().mean())
            best, best_L = min((best, best_L), (total, chosen_L), key=lambda found: found[0])
            lack_LKC = self._lack([context_NLD[0] for context_NLD in contexts], candidates_LK)
            centre_C = _centre(lack_LKC[:-1], chosen_L, lack_LKC[-1, 0])
            chosen_L = (lack_LKC[:-1] - centre_C).norm(dim=-1).argmin(1)
        return best, best_L

    def _repair(
        self, near_LK: torch.Tensor, chosen_L: torch.Tensor, others: list[torch.Tensor]
    ) -> tuple[Sentence, torch.Tensor, float]:
        """Replace the tokens that still make the context wrong; a sentence, its choice and its largest distance.

        All positions lack about the same then, so none of them tells which token is wrong. What each replacement adds
        to that is computed exactly, and all are chosen at once as if these added up. Sentences of one length are all
        solutions, and so are their mixtures: the one wanted is like the choice and unlike the `others`.
        """
        length, kept = near_LK.shape
        trial_N, place_N = torch.arange(length * kept), torch.arange(length).repeat_interleave(kept)
        for _ in range(_REPAIRS):
            trials_NL = chosen_L.repeat(length * kept, 1)
            trials_NL[trial_N, place_N] = trial_N % kept
            outside_NLC = self._trace(self._ids(near_LK, trials_NL))[1] @ self._space.complement.T
            mean_LKC = outside_NLC.mean(1).view(length, kept, -1)
            now_C = mean_LKC[0, chosen_L[0]]
            wish_LK = functional.one_hot(chosen_L, kept) - 2 * sum(functional.one_hot(other, kept) for other in others)
            before_L, chosen_L = chosen_L, _add_up(now_C, mean_LKC - now_C, wish_LK)
            ids_NL = self._ids(near_LK, chosen_L[None])
            distance = float(self._space.distances(self._trace(ids_NL)[1][0]).max())
            if distance < TOLERANCE or bool((before_L == chosen_L).all()):
                break
        return tuple(self._tokens_T[ids_NL[0]].tolist()), chosen_L, distance

    def _ids(self, near_LK: torch.Tensor, chosen_NL: torch.Tensor) -> torch.Tensor:
        ids_NL = near_LK[torch.arange(len(near_LK)), chosen_NL]
        return functional.pad(ids_NL, (0, 1), value=self._end)

    def _guess(self, length: int) -> list[torch.Tensor]:
        """The mean context of random sentences, (L, D) a layer."""
        words = np.delete(np.arange(len(self._tokens_T)), self._end)
        ids_NL = torch.from_numpy(self._rng.choice(words, (_CONTEXTS, length)))
        ids_NL[:, -1] = self._end
        return [context_NLD.mean(0) for context_NLD in self._trace(ids_NL)[0]]

    def _trace(self, ids_NL: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The contexts of every layer and the last feed-forward inputs, (N, L, D) each; ids count in `tokens`."""
        hidden_NLD = self._E_TD[ids_NL] + self._P_LD[: ids_NL.shape[1]]
        contexts = []
        for layer in self._layers:
            contexts.append(layer.self_attn(hidden_NLD, attention_mask=None)[0])
            inputs_NLD = layer.self_attn_layer_norm(hidden_NLD + contexts[-1])
            hidden_NLD = inputs_NLD if layer is self._layers[-1] else _feed_forward(layer, inputs_NLD)
        return contexts, inputs_NLD

    def _lack(self, contexts: list[torch.Tensor], ids_LK: torch.Tensor) -> torch.Tensor:
        """What is outside the span of the inputs of tokens at positions, before their last scaling, (L, K, C)."""
        hidden_LKD = self._E_TD[ids_LK] + self._P_LD[: len(ids_LK), None]
        for layer, context_LD in zip(self._layers, contexts, strict=True):
            hidden_LKD = hidden_LKD + context_LD[:, None]
            inputs_LKD = layer.self_attn_layer_norm(hidden_LKD)
            scale_LK1 = hidden_LKD.std(-1, unbiased=False, keepdim=True)
            hidden_LKD = inputs_LKD if layer is self._layers[-1] else _feed_forward(layer, inputs_LKD)
        lack_LKC: torch.Tensor = scale_LK1 * (inputs_LKD @ self._space.complement.T)
        return lack_LKC


def _feed_forward(layer: Model, inputs: torch.Tensor) -> torch.Tensor:
    outputs: torch.Tensor = layer.fc2(layer.activation_fn(layer.fc1(inputs)))
    normed: torch.Tensor = layer.final_layer_norm(inputs + outputs)
    return normed


def _add_up(now_C: torch.Tensor, added_LKC: torch.Tensor, wish_LK: torch.Tensor) -> torch.Tensor:
    """One option a position, (L,), so that what they add to `now` cancels it best.

    Least squares over shares of the options that sum to one at each position, by accelerated projected gradients (Beck
    and Teboulle, 2009). The wanted choice is a corner of that set, and where the complement has more than about half
    as many dimensions as there are wrong options, corners are where such solutions lie; so each share is rounded. A
    small pull by `wish` decides between several.
    """
    length, kept, _ = added_LKC.shape
    A_NC = added_LKC.flatten(0, 1)
    gram_NN = A_NC @ A_NC.T
    toward_N = A_NC @ now_C - _PULL * gram_NN.diagonal().mean() * wish_LK.flatten()
    rate = 1 / float(torch.linalg.matrix_norm(gram_NN, 2))
    shares_LK = torch.full((length, kept), 1 / kept, dtype=now_C.dtype)
    ahead_LK, speed = shares_LK, 1.0
    for _ in range(_DESCENT):
        slope_LK = (gram_NN @ ahead_LK.flatten() + toward_N).view(length, kept)
        following_LK = _to_simplex(ahead_LK - rate * slope_LK)
        faster = (1 + (1 + 4 * speed**2) ** 0.5) / 2
        ahead_LK = following_LK + (speed - 1) / faster * (following_LK - shares_LK)
        shares_LK, speed = following_LK, faster
    return shares_LK.argmax(1)


def _to_simplex(X_LK: torch.Tensor) -> torch.Tensor:
    """The nearest rows of shares: not negative, with sum one (Held, Wolfe and Crowder, 1974)."""
    sorted_LK = X_LK.sort(1, descending=True).values
    over_LK = (sorted_LK.cumsum(1) - 1) / torch.arange(1, X_LK.shape[1] + 1)
    last_L1 = (sorted_LK > over_LK).sum(1, keepdim=True) - 1
    return (X_LK - over_LK.gather(1, last_L1)).clamp_min(0)


def _centre(lack_LKC: torch.Tensor, chosen_L: torch.Tensor, end_C: torch.Tensor) -> torch.Tensor:
    """The median of what was chosen and of the end token, entry by entry."""
    chosen_LC = lack_LKC.gather(1, _wide(chosen_L[:, None], end_C))[:, 0]
    return torch.cat([chosen_LC, end_C[None]]).median(0).values


def _wide(ids_LK: torch.Tensor, like_C: torch.Tensor) -> torch.Tensor:
    return ids_LK[..., None].expand(*ids_LK.shape, len(like_C))
