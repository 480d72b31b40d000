# SPDX-License-Identifier: Apache-2.0
"""What all parties of a deployment hold alike: the files that were agreed on, and their digest."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
from safetensors import SafetensorError
from safetensors.numpy import load_file

from trustformer.codec.weights import Weights, weights_digest
from trustformer.data.marian import stored_tokenizer
from trustformer.data.tokenizer import Tokenizer
from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError, MessageError, ProtocolError
from trustformer.experiment.config import Config
from trustformer.message import digest, enc
from trustformer.models.seq2seq import PRESETS, ModelConfig

CONTINUED = "preset"
"""Beside `node.toml`: the model that a federation continues, where `model.preset` names a folder of one machine."""
_SOURCE = "take it from the folder that init-federation wrote"


def experiment_digest(config: Config, tokenizer: bytes, start: Weights, folder: Path) -> bytes:
    """Digest of what all clients of a deployment agree on: config, tokenizer and G_0 (32 bytes).

    A model that is continued lies in a client's `folder`, and all of it counts: what is frozen and its own config too.
    Unlike that of `trustformer run` the digest cannot cover the data: nobody sees all of them.

    Raises:
        ConfigError: there is no such model.
    """
    fields: list[bytes | str] = ["tfl/1 deployment", config.to_toml(), tokenizer, weights_digest(start)]
    if config.model.preset not in PRESETS:
        fields += [_file_digest(folder / CONTINUED / name) for name in ("config.json", "model.safetensors")]
    return digest(enc(*fields))


def _file_digest(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.new("sha512_256")).digest()
    except OSError as error:
        raise ConfigError(f"the model to continue, {path}, cannot be read: {error.strerror}", _SOURCE) from None


def read_terms(path: Path) -> RunConfig:
    """Read a run's terms; raises `ConfigError` naming the file."""
    try:
        return RunConfig.from_bytes(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the terms {path} cannot be read: {error.strerror}", _SOURCE) from None
    except (MessageError, ProtocolError) as error:
        hint = error.hint or f"{_SOURCE}, and the same version of trustformer everywhere"
        raise ConfigError(f"the terms {path} cannot be used: {error.message}", hint) from None


def read_tokenizer(path: Path) -> Tokenizer:
    """Read the tokenizer; raises `ConfigError` naming the file."""
    try:
        return stored_tokenizer(path)
    except ConfigError:
        raise ConfigError(f"the tokenizer {path} is missing, damaged or something else", _SOURCE) from None


def model_of(folder: Path, config: Config) -> ModelConfig:
    """What a client builds: a model that is continued comes from its `folder`; raises `ConfigError` without one."""
    if config.model.preset in PRESETS:
        return config.learner
    if not (folder / CONTINUED).is_dir():
        raise ConfigError(f"{folder / CONTINUED}, the model that this federation continues, is missing", _SOURCE)
    return msgspec.structs.replace(config.learner, preset=str(folder / CONTINUED))


def read_start(path: Path) -> Weights:
    """Read G_0; raises `ConfigError` naming the file."""
    try:
        start: Weights = load_file(path)
    except (OSError, SafetensorError):
        raise ConfigError(f"the first model {path} is missing, damaged or something else", _SOURCE) from None
    return start
