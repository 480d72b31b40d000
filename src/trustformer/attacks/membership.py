# SPDX-License-Identifier: Apache-2.0
"""Was this sentence pair in a client's training data?

Loss threshold (Yeom et al., 2018): members have a lower loss. LiRA (Carlini et al., arXiv 2112.03570), offline and with
one variance for all examples, as the paper advises for few shadow models: how far an example's confidence is from what
models say that never saw it. Shadow models learn from public text, which every adversary has, as a client does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as functional

from trustformer.attacks.scores import Floats
from trustformer.codec.weights import Weights
from trustformer.data.batches import Example, collate, make_batches
from trustformer.models.seq2seq import Model, logits_of, set_weights
from trustformer.training import LocalTrainer, OptimizerState

Report = Callable[[int, int], None]

_BATCH_TOKENS = 4096


def losses(model: Model, weights: Weights, examples: Sequence[Example]) -> Floats:
    """Return the mean loss of each example in nats per target token, float64 (N,); no label smoothing."""
    set_weights(model, weights)
    model.eval()
    values = np.empty(len(examples))
    with torch.no_grad():
        for indexes in make_batches(examples, _BATCH_TOKENS):
            batch = collate(examples, indexes, model.config.pad_token_id)
            logits_BVT = logits_of(model, batch).transpose(1, 2)
            token_BT = functional.cross_entropy(logits_BVT, batch.target, ignore_index=batch.pad_id, reduction="none")
            values[indexes] = (token_BT.sum(1) / (batch.target != batch.pad_id).sum(1)).numpy()
    return values


def confidence(loss_N: Floats) -> Floats:
    """Return log(p / (1 - p)) of the mean probability of a token, which is about Gaussian (section V-B)."""
    return -loss_N - np.log(-np.expm1(-np.maximum(loss_N, 1e-6)))


def lira(target_N: Floats, shadows_SN: Floats) -> Floats:
    """Return a score an example, higher for likely members: standard deviations above the models that never saw it.

    Args:
        target_N: losses under the model attacked.
        shadows_SN: losses under S shadow models, none of which saw any example.
    """
    out_SN = confidence(shadows_SN)
    spread = out_SN.std(0, ddof=1).mean() if len(out_SN) > 1 else 1.0
    scores: Floats = (confidence(target_N) - out_SN.mean(0)) / spread
    return scores


def shadow_losses(
    trainer: LocalTrainer,
    model: Model,
    start: Weights,
    public: Sequence[Example],
    examples: Sequence[Example],
    *,
    count: int,
    size: int,
    rounds: int,
    seed: int,
    report: Report | None = None,
) -> Floats:
    """Train shadow models from G_0 and return their losses on the examples, float64 (count, N).

    Args:
        trainer, model, start: as of the clients.
        public: text that no client trains on.
        examples: to score.
        count: of shadow models.
        size: examples each learns from, drawn from `public`.
        rounds: of local training.
        seed: of draws and training.
        report: called with rounds done and in all.
    """
    rows = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        chosen = [public[i] for i in rng.choice(len(public), min(size, len(public)), replace=False)]
        weights, optimizer = start, OptimizerState()
        for number in range(1, rounds + 1):
            result = trainer.train(weights, optimizer, chosen, seed=(seed, 1000 + index, number))
            weights, optimizer = result.weights, result.optimizer
            if report is not None:
                report(index * rounds + number, count * rounds)
        rows.append(losses(model, weights, examples))
    return np.array(rows)
