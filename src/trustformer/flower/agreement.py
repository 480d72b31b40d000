# SPDX-License-Identifier: Apache-2.0
"""What all parties of a deployment hold alike: the files that were agreed on, and their digest."""

from __future__ import annotations

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


def experiment_digest(config: Config, tokenizer: bytes, start: Weights) -> bytes:
    """Digest of what all clients of a deployment agree on: config, tokenizer and G_0 (32 bytes).

    Unlike that of `trustformer run` it cannot cover the data: nobody sees all of them.
    """
    return digest(enc("tfl/1 deployment", config.to_toml(), tokenizer, weights_digest(start)))


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
    """What a client builds: a model that is continued comes from the client's own `folder`."""
    if config.model.preset in PRESETS:
        return config.learner
    return msgspec.structs.replace(config.learner, preset=str(folder / CONTINUED))


def read_start(path: Path) -> Weights:
    """Read G_0; raises `ConfigError` naming the file."""
    try:
        start: Weights = load_file(path)
    except (OSError, SafetensorError):
        raise ConfigError(f"the first model {path} is missing, damaged or something else", _SOURCE) from None
    return start
