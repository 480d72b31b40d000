# SPDX-License-Identifier: Apache-2.0
"""Record-level DP-SGD (Abadi et al., CCS 2016, arXiv 1607.00133): what is protected is one sentence pair.

Each pair's gradient is computed, clipped and added before the next one: beside what plain training holds, a step takes
8 bytes an entry for the sum, and never more than one pair's gradient, however many pairs it has. Opacus would hold a
gradient for each, and its hooks give wrong ones where weights are tied (embedding and output here). Draws, noise and
dropout come from the system, never from the run's seed, which is public: no two runs are the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from trustformer.codec.clipped import noisy
from trustformer.data.batches import Batch, Example
from trustformer.models.seq2seq import Model
from trustformer.training.local import LocalTrainer
from trustformer.training.settings import TrainConfig


class RecordTrainer(LocalTrainer):
    """Trains with clipped, noised gradients on independently drawn pairs.

    `train.clip_norm` and `train.batch_tokens` have no part in it.

    Args:
        model: the architecture; its weights are overwritten.
        config: hyperparameters.
        noise_multiplier: standard deviation of the noise of the sum of gradients, over the clipping norm.
        clipping_norm: largest L2 norm of one pair's gradient.
        batch_pairs: expected pairs of a step.
        rounds: of the run; only `train.cooldown` needs to know.
    """

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        *,
        noise_multiplier: float,
        clipping_norm: float,
        batch_pairs: int,
        rounds: int = 0,
    ) -> None:
        super().__init__(model, config, rounds=rounds)
        self._pairs, self._expected = batch_pairs, batch_pairs
        self._noise, self._clip = noise_multiplier, clipping_norm

    def _batches(self, examples: Sequence[Example], seed: Sequence[int]) -> list[list[int]]:
        """Poisson samples: each pair is in each batch with the same chance, independently; a batch may be empty."""
        rng, count = np.random.default_rng(), len(examples)
        rate, steps = sampling(count, self._pairs, self._config.local_epochs)
        self._expected = min(self._pairs, count)
        return [np.flatnonzero(rng.random(count) < rate).tolist() for _ in range(steps)]

    def _step(self, adam: torch.optim.Optimizer, batch: Batch) -> float:
        parameters, start = self._ends()
        sums = [torch.zeros(p.shape, dtype=torch.float64, device=p.device) for p in parameters]
        losses = []
        for row in range(len(batch.source)):
            adam.zero_grad()
            source, target = (_unpadded(side[row : row + 1], batch.pad_id) for side in (batch.source, batch.target))
            torch.manual_seed(_dropout_seed())  # of one stream, masks of a pair would depend on those before it
            loss = self._rule.backward(partial(self._loss, Batch(source, target, batch.pad_id)), parameters, start)
            if add_clipped(sums, [parameter.grad for parameter in parameters], self._clip):
                losses.append(loss)
        noise = self._noise * self._clip / self._expected
        for parameter, total in zip(parameters, sums, strict=True):
            total /= self._expected
            parameter.grad = torch.from_numpy(noisy(total.cpu().numpy(), noise)).to(parameter)
        adam.step()
        if not losses and len(batch.source):
            return math.nan  # the weights are to blame, not a pair
        return sum(losses) / max(1, len(losses))


@torch.no_grad()
def add_clipped(sums: Sequence[torch.Tensor], gradient: Sequence[torch.Tensor | None], clip: float) -> bool:
    """Add one pair's gradient, scaled down to the norm `clip` over all tensors, to sums (float64, changed in place).

    Returns:
        False, with nothing added, where an entry is NaN or infinite: no clipping would bound it.
    """
    there = [(total, part) for total, part in zip(sums, gradient, strict=True) if part is not None]
    norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for _, part in there]
    norm = float(torch.stack(norms).norm()) if norms else 0.0
    if not math.isfinite(norm):
        return False
    for total, part in there:
        total.add_(part, alpha=clip / max(norm, clip))
    return True


def _dropout_seed() -> int:
    return int.from_bytes(os.urandom(8), "little")


def sampling(pairs: int, batch_pairs: int, passes: float = 1) -> tuple[float, int]:
    """Chance of a pair to be in a step, and steps of so many passes over a client's pairs, at least one."""
    rate = min(1.0, batch_pairs / pairs)
    return rate, max(1, round(max(1, round(1 / rate)) * passes))


def _unpadded(row: torch.Tensor, pad_id: int) -> torch.Tensor:
    return row[:, : int((row != pad_id).sum())]
