# SPDX-License-Identifier: Apache-2.0
"""Local training: AdamW on label-smoothed cross-entropy, bit-reproducible for one seed and machine.

The learning rate follows the client's own step count over all rounds, and at the end the number of the round, which is
the same for all (`train.cooldown`). Adam's moments stay with the client.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from trustformer.codec.weights import Weights
from trustformer.data.batches import Example, make_batches
from trustformer.errors import TrustformerError
from trustformer.models.objectives import SEQ2SEQ, Objective
from trustformer.models.seq2seq import Model, get_weights, set_weights
from trustformer.training.device import explained
from trustformer.training.rules import Rule
from trustformer.training.settings import TrainConfig

Report = Callable[[int, int], None]
"""Called with target tokens done and in all."""


@dataclass
class OptimizerState:
    """Adam's moments by tensor name and the number of steps so far; empty before the first round."""

    steps: int = 0
    first: Weights = field(default_factory=dict)
    second: Weights = field(default_factory=dict)


@dataclass(frozen=True)
class TrainResult:
    """What one round of local training gives. `loss`: mean smoothed cross-entropy in nats per token."""

    weights: Weights
    optimizer: OptimizerState
    loss: float
    tokens: int


def check_parts(examples: Sequence[Example], config: TrainConfig) -> None:
    """Raise `TrustformerError` where a client's pass has too few batches for a part of it each round."""
    parts = round(1 / config.local_epochs) if config.local_epochs < 1 else 0
    size = config.batch_tokens
    least = sum(min(max(len(one.source), len(one.target)), size) for one in examples) // size
    if least < parts:  # the number of batches differs from pass to pass; this bound does not
        raise TrustformerError(
            f"a pass over {len(examples):,} examples fills only {least:,} batches, too few for {parts:,} parts",
            "raise train.local_epochs, or lower train.batch_tokens",
        )


class LocalTrainer:
    """Trains weights in a model that serves all clients of a process in turn.

    Args:
        model: the architecture; its weights are overwritten.
        config: hyperparameters.
        rule: what the method changes in a step; plain training without.
        objective: what the model is trained on.
        rounds: of the run; only `train.cooldown` needs to know.
    """

    def __init__(
        self,
        model: Model,
        config: TrainConfig,
        rule: Rule | None = None,
        *,
        objective: Objective = SEQ2SEQ,
        rounds: int = 0,
    ) -> None:
        self._model, self._config, self._rule, self._objective = model, config, rule or Rule(), objective
        self._rounds = rounds
        self._start: list[torch.Tensor] = []

    def train(
        self,
        weights: Weights,
        optimizer: OptimizerState,
        examples: Sequence[Example],
        *,
        seed: Sequence[int],
        report: Report | None = None,
    ) -> TrainResult:
        """Train for `local_epochs` and return new weights; the arguments are not changed.

        Args:
            weights, optimizer: where training begins.
            examples: what is trained on.
            seed: of order and dropout; the last number is the round's, from 1: it tells what part of a pass is due, and
                how much of the run is left.
            report: called with target tokens done and in all.

        Raises:
            TrustformerError: the loss became NaN or infinite, and at which step; a pass has fewer batches than parts;
                there is a cooldown, and the round comes after the last; the device ran out of memory, or torch cannot
                repeat the model's training there.
        """
        with explained(self._config):
            return self._train(weights, optimizer, examples, seed, report)

    def _train(
        self,
        weights: Weights,
        optimizer: OptimizerState,
        examples: Sequence[Example],
        seed: Sequence[int],
        report: Report | None,
    ) -> TrainResult:
        if self._config.cooldown and seed[-1] > self._rounds:
            raise TrustformerError(f"round {seed[-1]} of {self._rounds}: the learning rate has fallen to zero")
        set_weights(self._model, weights)
        self._model.train()
        adam = self._optimizer(optimizer)
        batches = self._batches(examples, seed)
        total = sum(len(examples[i].target) for batch in batches for i in batch)
        steps, seen, done, loss_sum = optimizer.steps, 0, 0, 0.0
        self._start = [parameter.detach().clone() for _, parameter in self._named()]
        with torch.random.fork_rng():
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1))
            for index, indexes in enumerate(batches):
                batch = self._objective.collate(examples, indexes, self._model).to(self._model.device)
                steps += 1
                self._schedule(adam, steps, seed[-1] - 1 + index / len(batches))
                loss = self._step(adam, batch)
                if not math.isfinite(loss):
                    raise TrustformerError(
                        f"training diverged: the loss is {loss} at step {steps}", "lower train.learning_rate"
                    )
                done += batch.target_tokens
                loss_sum += loss * batch.target_tokens
                seen += sum(len(examples[i].target) for i in indexes)
                if report is not None:
                    report(seen, total)
            if batches:
                self._rule.after_round(partial(self._loss, batch), *self._ends())
        return TrainResult(get_weights(self._model), self._state_of(adam, steps), loss_sum / max(done, 1), done)

    def _batches(self, examples: Sequence[Example], seed: Sequence[int]) -> list[list[int]]:
        passes, size = self._config.local_epochs, self._config.batch_tokens
        if passes >= 1:
            rng = np.random.default_rng(seed)
            return [batch for _ in range(int(passes)) for batch in make_batches(examples, size, rng)]
        parts = round(1 / passes)
        check_parts(examples, self._config)
        epoch, part = divmod(seed[-1] - 1, parts)
        batches = make_batches(examples, size, np.random.default_rng([*seed[:-1], epoch + 1]))
        return [batches[i] for i in np.array_split(np.arange(len(batches)), parts)[part]]

    def _step(self, adam: torch.optim.Optimizer, batch: Any) -> float:
        adam.zero_grad()
        loss = self._rule.backward(partial(self._loss, batch), *self._ends())
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._config.clip_norm)
        adam.step()
        self._rule.after_step(*self._ends())
        return loss

    def _schedule(self, adam: torch.optim.Optimizer, step: int, done: float) -> None:
        """Set the learning rate of a client's step; `done`: rounds of the run before it, with a part of this one."""
        factor = rate(step, self._config.warmup_steps)
        if self._config.cooldown:
            factor *= min(1.0, (1 - done / self._rounds) / self._config.cooldown)
        for group in adam.param_groups:
            group["lr"] = self._config.learning_rate * factor

    def _loss(self, batch: Any) -> torch.Tensor:
        coarse = self._config.precision == "bfloat16"
        with torch.autocast(self._model.device.type, torch.bfloat16, enabled=coarse):
            return self._objective.loss(self._model, batch, label_smoothing=self._config.label_smoothing)

    def _ends(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Trainable parameters, and what they were when the round began."""
        return [parameter for _, parameter in self._named()], self._start

    def _named(self) -> list[tuple[str, torch.nn.Parameter]]:
        return [(name, p) for name, p in self._model.named_parameters() if p.requires_grad]

    def _optimizer(self, state: OptimizerState) -> torch.optim.AdamW:
        device = self._model.device
        fused = device.type == "cuda"  # one kernel a step in place of a thousand
        adam = torch.optim.AdamW(
            [parameter for _, parameter in self._named()],
            lr=self._config.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-9,
            weight_decay=self._config.weight_decay,
            fused=fused,
        )
        if state.steps:
            for name, parameter in self._named():
                adam.state[parameter] = {
                    "step": torch.tensor(float(state.steps), device=device if fused else "cpu"),
                    "exp_avg": torch.tensor(state.first[name], device=device),
                    "exp_avg_sq": torch.tensor(state.second[name], device=device),
                }
        return adam

    def _state_of(self, adam: torch.optim.AdamW, steps: int) -> OptimizerState:
        return OptimizerState(steps, self._moments(adam, "exp_avg"), self._moments(adam, "exp_avg_sq"))

    def _moments(self, adam: torch.optim.AdamW, key: str) -> Weights:
        """Zeros where Adam has none: of a tensor that the forward pass does not use."""
        held = {name: adam.state[parameter].get(key, torch.zeros_like(parameter)) for name, parameter in self._named()}
        return {name: values.cpu().numpy().copy() for name, values in held.items()}


def rate(step: int, warmup_steps: int) -> float:
    """Factor of the learning rate: linear warmup, then inverse square root (Vaswani et al., 2017, eq. 3)."""
    return min(step / warmup_steps, math.sqrt(warmup_steps / step))
