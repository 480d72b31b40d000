# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a config, in words for whoever wrote it."""

from __future__ import annotations

from difflib import get_close_matches

import msgspec
from msgspec import Struct

_USUAL = {
    "lr": "train.learning_rate",
    "epochs": "train.local_epochs",
    "batch_size": "train.batch_tokens",
    "model.name": "model.preset",
}
"""Names that other programs have for keys."""
_NEAR = 0.7
"""How alike two names must be, of 1, to take one for a slip of the pen."""


def explain(error: msgspec.ValidationError, config: type[Struct]) -> tuple[str, str]:
    """Return message and hint for what does not fit the sections of `config`."""
    message = _readable(error, config)
    return f"config: {message}", _hint(message, config)


def _hint(message: str, config: type[Struct]) -> str:
    """Where the keys are, and of an unknown one that which it may mean."""
    near = _meant(message.removeprefix("unknown key").strip(" '"), config) if "unknown key" in message else ""
    known = "docs/config.md lists the keys, trustformer run --help the most used"
    return f"did you mean {near}? {known}" if near else known


def _meant(key: str, config: type[Struct]) -> str:
    """Return the known key that an unknown one stands for: by a usual name, a slip of the pen or a wrong section.

    Empty where none is near: a wrong guess leads on to the next error.
    """
    section, _, name = key.lower().replace("-", "_").rpartition(".")
    if (usual := _USUAL.get(key) or _USUAL.get(name)) is not None:
        return usual
    keys: dict[str, tuple[str, ...]] = {"": config.__struct_fields__}
    for part in msgspec.structs.fields(config):
        if isinstance(part.type, type) and issubclass(part.type, Struct):
            keys[part.name] = part.type.__struct_fields__
    places = [f"{part}.{name}".lstrip(".") for part, names in keys.items() if name in names]
    near = get_close_matches(name, keys.get(section, ()), 1, _NEAR)
    return places[0] if len(places) == 1 else f"{section}.{near[0]}".lstrip(".") if near else ""


def _readable(error: msgspec.ValidationError, config: type[Struct]) -> str:
    """Turn msgspec's `... - at `$.clients.count`` into `clients.count: ...`."""
    message, _, path = str(error).partition(" - at `$.")
    key = path.rstrip("`")
    if message.startswith("Object contains unknown field"):
        name = message.split("`")[1]
        section = key.removeprefix("$").strip(".`")
        return f"unknown key {f'{section}.{name}' if section else name!r}"
    if message.startswith("Invalid enum value"):
        section, _, name = key.rpartition(".")
        struct = {f.name: f.type for f in msgspec.structs.fields(config)}.get(section, config)
        kind = next(f.type for f in msgspec.structs.fields(struct) if f.name == name)
        return f"{key}: {message.removeprefix('Invalid enum value ')} is none of {', '.join(kind.__args__)}"
    if key == "train.local_epochs":  # of two types, msgspec names the bounds of one
        whole = "a whole number from 1 to 1000, written without a point"
        return f"{key}: expected {whole}, or a part of one from 0.001, such as 0.25"
    if message.startswith("Expected `object`") and key in config.__struct_fields__:
        return f"{key} is a section: its keys are written {key}.KEY, or below [{key}]"
    return f"{key}: {message[0].lower()}{message[1:]}" if key else message
