# SPDX-License-Identifier: Apache-2.0
"""What the exchange sees of modules that train elsewhere: weights, shapes and counts."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from torch import nn

from trustformer.codec.weights import Weights, specs_of
from trustformer.data.batches import Example
from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError, MessageError
from trustformer.experiment.config import Config
from trustformer.experiment.record import RunDirectory, difference
from trustformer.federation.store import ClientState
from trustformer.library.checks import difference_of, shapes
from trustformer.message import digest, enc
from trustformer.methods import Method, build
from trustformer.models.seq2seq import get_weights, set_weights
from trustformer.training import OptimizerState, TrainResult, nearest_on
from trustformer.vq import MAX_ABS


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
        """Agree on a module's trainable tensors; raises `ConfigError` where the folder holds another federation."""
        start = get_weights(module)
        specs = specs_of(start)
        names = (f"{spec.name} {spec.shape}" for spec in specs)
        agreed = digest(enc("tfl/1 library", config.to_toml(), *examples.values(), *names))
        _refuse_other(directory, agreed, _settings(config, examples, start))
        clients = {client: _Unseen(count) for client, count in examples.items()}
        device = next(module.parameters()).device
        begun = _begun_from(directory, start)
        return cls(clients, build(config.method, specs, nearest=nearest_on(device)), begun, agreed)


@dataclass(frozen=True)
class _Unseen(Sequence[Example]):
    """Examples that only their owner's loop sees: nothing but their number is known."""

    number: int

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: Any) -> Any:
        raise IndexError("examples stay with their owner's loop")


def _settings(config: Config, examples: Mapping[str, int], start: Weights) -> dict[str, Any]:
    """What a federation is made of, under the names of the constructor's arguments."""
    tree = tomllib.loads(config.to_toml())  # as agreed on: newer keys only where they are not the default
    return {
        "modules": len(examples),
        "rounds": config.rounds,
        "method": tree["method"],
        "max_share": config.clients.max_share,
        "seed": config.seed,
        "process": config.enclave.process,
        "examples": dict(examples),
        "tensor": {name: list(shape) for name, shape in shapes(start).items()},
    }


def _refuse_other(directory: RunDirectory, agreed: bytes, settings: dict[str, Any]) -> None:
    """Keep the settings beside new terms; name those that differ from what terms that are there were made of."""
    terms, path = directory.path / "terms.bin", directory.path / "federation.json"
    if not terms.exists():
        directory.write_json(path.name, settings)
        return
    if RunConfig.from_bytes(terms.read_bytes()).experiment == agreed:
        return
    try:
        different = difference(json.loads(path.read_text("utf-8")), settings)
    except (OSError, ValueError, AttributeError):
        different = ""
    different = different or "of another version, or of trustformer run"
    raise ConfigError(
        f"{directory.path} holds another federation: {different}",
        "make it as it was, or begin another in another folder",
    )


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
    if shapes(kept) != shapes(start):
        raise ConfigError(f"{path} is of another federation", "restore it, or begin another in another folder")
    return {name: kept[name] for name in start}


_DIVERGED = "nothing was sent: training has probably diverged; mend that module's weights, then exchange again"


def _rounded(values: npt.NDArray[np.float32], kind: torch.dtype) -> npt.NDArray[np.float32]:
    """What a parameter of a type holds of values: the very same array, no copy, where that is all of them."""
    return values if torch.finfo(kind).bits >= 32 else torch.from_numpy(values).to(kind).float().numpy()


class Own:
    """A module, and the weights of its client (a place, from 0) that it stands for."""

    def __init__(self, client: int, module: nn.Module) -> None:
        self._client, self._module = client, module
        self._held: Weights = {}  # its client's weights, as of the last hand-out or message
        self._kept: Weights = {}  # what the module held of them
        self._sent: tuple[int, Weights, Weights] | None = None

    def begin(self, weights: Weights) -> None:
        """Give the module its client's weights."""
        self._hand_out(weights, weights)

    def check(self, common: Weights, max_norm: float) -> None:
        """Refuse what could not be sent, before anybody sends.

        Args:
            common: G; empty where the method has none.
            max_norm: of the drift from it.

        Raises:
            ConfigError: tensors that are no longer those agreed on.
            MessageError: an entry that is not finite, or a drift that is out of bounds.
        """
        now, where = get_weights(self._module), f"client {self._client}"
        if odd := difference_of(shapes(now), shapes(self._held)):
            raise ConfigError(f"{where}: its module is no longer the one it began with: {odd}", "undo that change")
        energy = 0.0
        for name, values in self._whole(now).items():
            if not np.isfinite(values).all():
                raise MessageError(f"{where}: the tensor {name!r} holds NaN or infinity", _DIVERGED)
            if name in common:
                drift = (values - common[name]).reshape(-1)
                if (largest := float(np.abs(drift).max())) > MAX_ABS:
                    raise MessageError(
                        f"{where}: the tensor {name!r} is {largest:.3g} off the common model, over {MAX_ABS:g}",
                        _DIVERGED,
                    )
                energy += float(np.dot(drift, drift))
        if energy > max_norm**2:
            raise MessageError(
                f"{where}: its module is a norm of {energy**0.5:.6g} off the common model, over {max_norm:g}",
                _DIVERGED,
            )

    def take(self, state: ClientState) -> None:
        """Shift the module as its client was; one not trained since it was sent is its client's, bit for bit."""
        if self._sent is not None and state.trained >= self._sent[0]:
            (_, self._held, self._kept), self._sent = self._sent, None
        if state.weights is self._held:
            return
        weights, now = state.weights, get_weights(self._module)
        if not all(np.array_equal(values, self._kept[name]) for name, values in now.items()):
            whole = self._whole(now)
            weights = {name: whole[name] + (values - self._held[name]) for name, values in weights.items()}
        self._hand_out(weights, state.weights)

    def _hand_out(self, weights: Weights, held: Weights) -> None:
        """Set the module to `weights`; keep its client's, `held`, and what the module can hold of them."""
        set_weights(self._module, weights)
        kinds = {name: parameter.dtype for name, parameter in self._module.named_parameters()}
        self._held = held
        self._kept = {name: _rounded(values, kinds[name]) for name, values in held.items()}

    def _whole(self, now: Weights) -> Weights:
        """The module's weights `now`, and with them what it could not hold of its client's."""
        return {
            name: values if self._kept[name] is self._held[name] else values - (self._kept[name] - self._held[name])
            for name, values in now.items()
        }

    def train(
        self,
        weights: Weights,
        optimizer: OptimizerState,
        examples: Sequence[Example],
        *,
        seed: Sequence[int],
        report: Callable[[int, int], None] | None = None,
    ) -> TrainResult:
        """Return the weights as the module's owner has left them; `seed` ends in the exchange's number.

        A module in half precision holds its client's weights rounded: the rest is added, else it would be taken back.
        """
        now = get_weights(self._module)
        whole = self._whole(now)
        self._sent = (seed[-1], whole, now)
        return TrainResult(whole, OptimizerState(), 0.0, 0)
