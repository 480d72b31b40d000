# SPDX-License-Identifier: Apache-2.0
"""What the exchange sees of modules that train elsewhere: weights, shapes and counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn

from trustformer.codec.weights import Weights, specs_of
from trustformer.data.batches import Example
from trustformer.errors import ConfigError
from trustformer.experiment.config import Config
from trustformer.experiment.record import RunDirectory
from trustformer.federation.store import ClientState
from trustformer.message import digest, enc
from trustformer.methods import Method, build
from trustformer.models.seq2seq import get_weights, set_weights
from trustformer.training import OptimizerState, TrainResult, nearest_on


@dataclass(frozen=True)
class Shared:
    """What the clients agree on."""

    clients: Mapping[str, Sequence[Example]]
    method: Method
    start: Weights
    digest: bytes
    guarantee: None = None

    @property
    def common(self) -> Weights:
        """G_0 where the method has a common model."""
        return self.start if self.method.common else {}

    @classmethod
    def make(cls, config: Config, module: nn.Module, examples: Mapping[str, int], directory: RunDirectory) -> Shared:
        """Agree on a module's trainable tensors; raises `ConfigError` where one cannot be exchanged."""
        start = get_weights(module)
        for name, values in start.items():
            if not values.ndim:
                raise ConfigError(f"the tensor {name!r} has no dimension", "make it a vector of one entry")
            if "[" in name:  # layouts name rows of a tensor so
                raise ConfigError(f"the name of the tensor {name!r} has a bracket", "use nn.ModuleList, or rename it")
        if not start:
            raise ConfigError("the module has nothing to train", "leave some tensors requires_grad")
        specs = specs_of(start)
        names = (f"{spec.name} {spec.shape}" for spec in specs)
        agreed = digest(enc("tfl/1 library", config.to_toml(), *examples.values(), *names))
        clients = {client: [_UNSEEN] * count for client, count in examples.items()}
        device = next(module.parameters()).device
        begun = _begun_from(directory, start)
        return cls(clients, build(config.method, specs, nearest=nearest_on(device)), begun, agreed)


_UNSEEN = Example([], [])
"""In the place of an example that only its owner's loop sees."""


def _begun_from(directory: RunDirectory, start: Weights) -> Weights:
    """The first common model: once agreed that of the folder, since a script made again has other random modules."""
    path = directory.path / "start.safetensors"
    if not (directory.path / "terms.bin").exists():
        directory.write(path.name, save(start))
        return start
    try:
        kept = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path} is damaged: {error}", "begin another federation in another folder") from None
    same = {name: values.shape for name, values in kept.items()} == {name: own.shape for name, own in start.items()}
    return {name: kept[name] for name in start} if same else start  # the terms refuse another model


class Own:
    """A module, and the weights of its client that it stands for."""

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._held: Weights = {}
        self._sent: tuple[int, Weights] | None = None

    def begin(self, weights: Weights) -> None:
        """Give the module its client's weights."""
        set_weights(self._module, weights)
        self._held = weights

    def take(self, state: ClientState) -> None:
        """Shift the module as its client was; one not trained since it was sent is its client's, bit for bit."""
        if self._sent is not None and state.trained >= self._sent[0]:
            self._held, self._sent = self._sent[1], None
        if state.weights is self._held:
            return
        weights, now = state.weights, get_weights(self._module)
        if not self._holds(now):
            weights = {name: now[name] + (values - self._held[name]) for name, values in weights.items()}
        set_weights(self._module, weights)
        self._held = state.weights

    def _holds(self, now: Weights) -> bool:
        """Whether the module is as it was handed out or sent, to the precision of its parameters."""
        kinds = {name: parameter.dtype for name, parameter in self._module.named_parameters()}
        as_kept = {name: torch.from_numpy(values).to(kinds[name]).float() for name, values in self._held.items()}
        return all(np.array_equal(values, as_kept[name].numpy()) for name, values in now.items())

    def train(
        self,
        weights: Weights,
        optimizer: OptimizerState,
        examples: Sequence[Example],
        *,
        seed: Sequence[int],
        report: Callable[[int, int], None] | None = None,
    ) -> TrainResult:
        """Return the weights as the module's owner has left them; `seed` ends in the exchange's number."""
        self._sent = (seed[-1], get_weights(self._module))
        return TrainResult(self._sent[1], OptimizerState(), 0.0, 0)
