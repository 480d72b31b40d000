# SPDX-License-Identifier: Apache-2.0
"""Record-level DP-SGD (Abadi et al., CCS 2016, arXiv 1607.00133): what is protected is one sentence pair.

Clipping is Opacus' `DPOptimizer`. Per-example gradients are not: its own come from hooks on modules, which give wrong
ones where weights are tied (embedding and output here), so each pair's gradient is computed by itself. Nor is noise: on
a CPU torch's generator takes 32 bits of a seed and no more. Draws and noise come from the system, never from the run's
seed, which is public: no two runs are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from trustformer.data.batches import Batch, Example
from trustformer.errors import ConfigError
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

    Raises:
        ConfigError: Opacus is not installed.
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
        try:
            from opacus.optimizers import DPOptimizer
        except ImportError:
            raise ConfigError(
                "privacy needs the package opacus", "pip install -e '.[dp]' in the repository's folder"
            ) from None
        self._make, self._pairs, self._expected = DPOptimizer, batch_pairs, batch_pairs
        self._noise, self._clip = noise_multiplier, clipping_norm
        self._rng = np.random.default_rng()

    def _batches(self, examples: Sequence[Example], seed: Sequence[int]) -> list[list[int]]:
        """Poisson samples: each pair is in each batch with the same chance, independently; a batch may be empty."""
        rng, count = np.random.default_rng(), len(examples)
        rate, steps = sampling(count, self._pairs, self._config.local_epochs)
        self._expected = min(self._pairs, count)
        return [np.flatnonzero(rng.random(count) < rate).tolist() for _ in range(steps)]

    def _step(self, adam: torch.optim.Optimizer, batch: Batch) -> float:
        private = self._make(
            adam,
            noise_multiplier=self._noise,
            max_grad_norm=self._clip,
            expected_batch_size=self._expected,
        )
        private.zero_grad()
        parameters, start = self._ends()
        samples = [torch.zeros(len(batch.source), *p.shape, device=p.device) for p in parameters]
        loss = 0.0
        for row in range(len(batch.source)):
            adam.zero_grad()
            source, target = (_unpadded(side[row : row + 1], batch.pad_id) for side in (batch.source, batch.target))
            one = Batch(source, target, batch.pad_id)
            loss += self._rule.backward(partial(self._loss, one), parameters, start) / len(batch.source)
            for sample, parameter in zip(samples, parameters, strict=True):
                if parameter.grad is not None:
                    sample[row] = parameter.grad
        for sample, parameter in zip(samples, parameters, strict=True):
            parameter.grad_sample = sample  # type: ignore[attr-defined]
        private.clip_and_accumulate()
        for parameter in parameters:
            noise = torch.from_numpy(self._rng.normal(0, self._noise * self._clip, parameter.shape))
            parameter.grad = parameter.summed_grad + noise.to(parameter)  # type: ignore[attr-defined]
        private.scale_grad()
        adam.step()
        private.zero_grad()
        return loss


def sampling(pairs: int, batch_pairs: int, passes: float = 1) -> tuple[float, int]:
    """Chance of a pair to be in a step, and steps of so many passes over a client's pairs, at least one."""
    rate = min(1.0, batch_pairs / pairs)
    return rate, max(1, round(max(1, round(1 / rate)) * passes))


def _unpadded(row: torch.Tensor, pad_id: int) -> torch.Tensor:
    return row[:, : int((row != pad_id).sum())]
