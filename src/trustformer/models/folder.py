# SPDX-License-Identifier: Apache-2.0
"""A run that continues from a model folder instead of starting anew."""

from __future__ import annotations

from pathlib import Path

from trustformer.data.marian import read_json
from trustformer.errors import ConfigError
from trustformer.models.seq2seq import Model, ModelConfig, read_marian

LAYERDROP = {"encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0}
"""No layer is left out of a step: Adam counts the steps of all tensors together."""

_LIKE = "only Marian models with one vocabulary for both languages are continued, as Helsinki-NLP/opus-mt-*"


def continue_model(folder: Path, config: ModelConfig, vocab_size: int) -> Model:
    """Load the model of a folder, in 32-bit floats, for further training.

    Its sizes are the folder's, dropout and the longest sequence the config's; `vocab_size` is one more than the
    tokenizer's largest id. Only safetensors are read: other weight files can hold code.

    Raises:
        ConfigError: no such model, another kind of model, or one that does not fit the tokenizer or config.
    """
    _check(folder, config, vocab_size)
    model = read_marian(folder, dropout=config.dropout, **LAYERDROP)
    spare = range(vocab_size, model.config.vocab_size)
    model.generation_config.bad_words_ids = [[model.config.pad_token_id], *([number] for number in spare)]
    return model


def _check(folder: Path, config: ModelConfig, vocab_size: int) -> None:
    """What the folder's own config must say."""
    path = folder / "config.json"
    stored = read_json(path)
    if stored.get("model_type") != "marian":
        raise ConfigError(f"{path}: model_type is {stored.get('model_type')!r}", _LIKE)
    size = stored.get("vocab_size")
    if not stored.get("share_encoder_decoder_embeddings", True) or stored.get("decoder_vocab_size") not in (None, size):
        raise ConfigError(f"{path}: the model has a vocabulary a language", _LIKE)
    if not isinstance(size, int) or size < vocab_size:
        raise ConfigError(f"{path}: vocab_size is {size}, the tokenizer needs {vocab_size}")
    if not isinstance(stored.get("decoder_start_token_id"), int):
        raise ConfigError(f"{path}: decoder_start_token_id is missing")
    longest = stored.get("max_position_embeddings", 0)
    if config.max_length > longest:
        raise ConfigError(
            f"model.max_length is {config.max_length}, the model of {folder} has positions for {longest}",
            f"--set model.max_length={longest}",
        )
