# SPDX-License-Identifier: Apache-2.0
"""What one client with a few sentences would send, in every form: the controlled half of the token attacks.

The same sentences and model each time. `gradient` is what FedSGD sends, and shows that the attacks work here;
the others are the drift of one local epoch as this project trains (AdamW, dropout), as each method codes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import torch.nn.functional as functional

from trustformer.attacks.view import difference
from trustformer.codec.weights import Weights
from trustformer.data.batches import Example, collate
from trustformer.methods import Method
from trustformer.models.seq2seq import Model, logits_of, set_weights
from trustformer.training import LocalTrainer, OptimizerState, TrainConfig

SEED = 7


def gradient(model: Model, weights: Weights, examples: Sequence[Example], label_smoothing: float) -> Weights:
    """Return dL/dW of one batch of all examples, without dropout, by tensor name."""
    set_weights(model, weights)
    model.eval()
    batch = collate(examples, range(len(examples)), model.config.pad_token_id)
    loss = functional.cross_entropy(
        logits_of(model, batch).flatten(0, 1),
        batch.target.flatten(),
        ignore_index=batch.pad_id,
        label_smoothing=label_smoothing,
    )
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    return {  # of a tensor that no step uses there is none
        name: np.zeros(p.shape, np.float32) if p.grad is None else p.grad.numpy().copy() for name, p in named
    }


def whole_epochs(config: TrainConfig) -> TrainConfig:
    """Return the same training in rounds of whole epochs: a few sentences have no parts."""
    return msgspec.structs.replace(config, local_epochs=max(1, config.local_epochs))


def local_epoch(trainer: LocalTrainer, weights: Weights, examples: Sequence[Example]) -> Weights:
    """Return a client's weights after one round on these examples, its optimizer new."""
    return trainer.train(weights, OptimizerState(), examples, seed=(SEED,)).weights


def messages(methods: Mapping[str, Method], weights: Weights, trained: Weights) -> dict[str, Weights]:
    """Return the drift each method's message tells, by name of the method.

    Args:
        methods: of those that exchange something.
        weights: what all started from: W and G alike.
        trained: the client's weights now.
    """
    told = {}
    for name, method in methods.items():
        assert method.codec is not None
        common = weights if method.common else {}
        codec = method.codec.at(SEED, 1)
        own, body = (codec.encode(values, common, np.random.default_rng(SEED)) for values in (weights, trained))
        told[name] = difference(codec.adopt(weights, common, body, own)[0], weights)
    return told
