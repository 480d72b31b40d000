# SPDX-License-Identifier: Apache-2.0
"""What a federation refuses before anything is written or sent; clients are named by their place, from 0."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from torch import nn
from torch.nn.parameter import is_lazy

from trustformer.errors import ConfigError
from trustformer.experiment.config import Config
from trustformer.methods import LORA, PRIVATE


def check_settings(config: Config) -> None:
    """Refuse what is out of bounds, which a constructor does not check, and what this library cannot keep to."""
    try:
        msgspec.convert(msgspec.to_builtins(config), Config)
    except (msgspec.ValidationError, TypeError) as error:
        message, _, key = str(error).partition(" - at `$.")
        where = f"Federation, {key[:-1]}" if key else "Federation"
        raise ConfigError(
            f"{where}: {message[:1].lower()}{message[1:]}", "docs/config.md says what it may be"
        ) from None
    method = config.method
    if method.name in PRIVATE:
        raise ConfigError(
            f"method.name {method.name} clips and noises nothing here: the library has no section privacy",
            "use trustformer run with privacy.mechanism",
        )
    if method.name in LORA:
        raise ConfigError(
            f"method.name {method.name} needs model.lora_rank, which the library does not have",
            "choose fedavg, for modules of which only adapters are trainable",
        )
    uses_past = (method.name, method.variant) == ("centroid", "partition") and method.partition in ("drift", "history")
    if uses_past:
        raise ConfigError(
            f"method.partition {method.partition} needs the first common model, which the library does not keep",
            "choose rotating or random",
        )


def check_modules(modules: Sequence[nn.Module], examples: Sequence[int]) -> list[int]:
    """Return the counts of examples as plain integers.

    Raises:
        ConfigError: not one count a module; a count or a tensor that cannot be exchanged; modules that differ in what
            they train, or share it.
    """
    if len(modules) != len(examples) or not len(modules):
        raise ConfigError(f"{len(modules)} modules and the counts {list(examples)}", "give one of each a client")
    counts = [_count(client, value) for client, value in enumerate(examples)]
    first = _trained(0, modules[0])
    owners: dict[tuple[object, int], int] = {}
    for client, module in enumerate(modules):
        own = _trained(client, module)
        for name, parameter in own.items():
            owner = owners.setdefault((parameter.device, parameter.data_ptr()), client)
            if owner != client:
                raise ConfigError(
                    f"clients {owner} and {client} share the tensor {name!r}",
                    "give each a module of its own, such as copy.deepcopy of the first",
                )
        if odd := difference_of(shapes(own), shapes(first)):
            raise ConfigError(
                f"client {client} is of another model than client 0: {odd}",
                "make all modules alike, with the same tensors trainable (requires_grad)",
            )
    return counts


def shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of arrays or parameters by name."""
    return {name: tuple(values.shape) for name, values in tensors.items()}


def difference_of(own: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> str:
    """Name a tensor in which two models' shapes differ; empty where there is none."""
    if odd := sorted(own.keys() ^ other.keys()):
        return f"the tensor {odd[0]!r} is trained in one and not in the other"
    different = (name for name, shape in own.items() if shape != other[name])
    return next((f"the tensor {name!r} has the shape {own[name]}, not {other[name]}" for name in different), "")


def _count(client: int, value: Any) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        count = 0
    if not 1 <= count < 2**63:
        raise ConfigError(
            f"client {client} has {value} examples", "give a whole number from 1, or leave the client out"
        )
    return count


def _trained(client: int, module: nn.Module) -> dict[str, nn.Parameter]:
    """A module's trainable tensors; raises `ConfigError` where one cannot be exchanged."""
    if not isinstance(module, nn.Module):
        raise ConfigError(f"client {client} is no torch.nn.Module: {module!r}", "give one module a client")
    trained = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trained:
        raise ConfigError(f"client {client}: the module has nothing to train", "leave some tensors requires_grad")
    for name, parameter in trained.items():
        if wrong := _unfit(name, parameter):
            said, hint = wrong
            raise ConfigError(f"client {client}: the tensor {name!r} {said}", hint)
    return trained


def _unfit(name: str, parameter: nn.Parameter) -> tuple[str, str] | None:
    """What keeps a tensor from being exchanged, and what to do."""
    if is_lazy(parameter):
        return "has no shape yet", "let the module see a batch first"
    if not parameter.is_floating_point():
        return f"is of {parameter.dtype}", "keep real and imaginary part in tensors of their own"
    if not parameter.ndim:
        return "has no dimension", "make it a vector of one entry"
    if not parameter.numel():
        return "has no entry", "freeze it (requires_grad = False)"
    if "[" in name:  # layouts name rows of a tensor so
        return "has a bracket in its name", "use nn.ModuleList, or rename it"
    return None
