# SPDX-License-Identifier: Apache-2.0
"""Families of models by task: built anew at a preset's size, or continued from a folder in the hub's format."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from trustformer.data.hub_tokenizer import HubTokenizer
from trustformer.data.marian import read_json
from trustformer.data.tokenizer import Tokenizer
from trustformer.errors import ConfigError
from trustformer.models.adapters import add_adapters
from trustformer.models.folder import LAYERDROP, continue_model
from trustformer.models.heads import fit_head, label_maps, stored_labels
from trustformer.models.reading import read_weights
from trustformer.models.seq2seq import PRESETS, Model, ModelConfig, build_model

AUTO_CLASSES = {
    "translation": "AutoModelForSeq2SeqLM",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "classification": "AutoModelForSequenceClassification",
}
"""The class of transformers that loads a task's models."""

_DROPOUTS = {
    "mbart": ("dropout",),
    "t5": ("dropout_rate",),
    "gpt2": ("resid_pdrop", "embd_pdrop"),
    "llama": (),  # has none but that of attention
    "bert": ("hidden_dropout_prob",),
    "distilbert": ("dropout",),
}
"""Model types, with their names of the dropout of embeddings and residual branches."""

_TYPES = {
    "translation": ("marian", "t5", "mbart"),
    "causal-lm": ("gpt2", "llama"),
    "masked-lm": ("bert", "distilbert"),
    "classification": ("bert", "distilbert"),
}
RELATIVE = 512
"""Longest sequence of a model with relative positions, as T5 was trained."""

_KEPT = ("forced_bos_token_id", "forced_eos_token_id", "bad_words_ids")
"""What a model's decoding needs of its folder's generation config, beside the ids that its config has."""

_BUILT = {"translation": "marian", "causal-lm": "gpt2", "masked-lm": "bert", "classification": "bert"}


def architecture_of(config: ModelConfig) -> str:
    """Return the model type of a preset; raises `ConfigError` if it does not do the config's task."""
    if config.architecture == "auto":
        return _BUILT[config.task]
    if config.architecture not in _TYPES[config.task]:
        able = ", ".join(_TYPES[config.task])
        raise ConfigError(f"model.architecture {config.architecture} does no {config.task}", f"choose one of {able}")
    return config.architecture


def make_model(config: ModelConfig, tokenizer: Tokenizer, labels: Sequence[str], seed: int) -> Model:
    """Return the model a config names, with what it freezes frozen; the same bits for the same arguments.

    Args:
        config: of the model.
        tokenizer: whose vocabulary it needs.
        labels: of classification, in the order of their numbers.
        seed: of the first weights, where they are not a folder's.

    Raises:
        ConfigError: no such model, or one that does not fit the task, the tokenizer or the config.
    """
    if config.preset not in PRESETS:
        model = _continue(Path(config.preset), config, tokenizer, labels, seed)
    elif architecture_of(config) == "marian":
        model = build_model(config, tokenizer.vocab_size, seed)
    else:
        assert isinstance(tokenizer, HubTokenizer)
        model = _build(config, tokenizer, labels, seed)
    if config.lora_rank:
        add_adapters(model, config.lora_rank, seed)
    freeze(model, config.freeze)
    return model


def freeze(model: Model, patterns: Sequence[str]) -> None:
    """Freeze tensors whose names match a pattern; raises `ConfigError` if a pattern or the rest is empty."""
    for pattern in patterns:
        chosen = [p for name, p in model.named_parameters() if fnmatch.fnmatchcase(name, pattern)]
        if not chosen:
            known = next(name for name, _ in model.named_parameters())
            raise ConfigError(f"model.freeze: {pattern!r} matches no tensor", f"names are like {known}")
        for parameter in chosen:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError("model.freeze leaves nothing to train", "freeze less")


def load_any(folder: Path, task: str, *, new_head: bool = False, **values: Any) -> Model:
    """Read a model folder as `read_weights` does; raises `ConfigError`, also for a type that does not do the task."""
    _type_of(folder, task)
    loader = getattr(transformers, AUTO_CLASSES[task])
    return read_weights(loader, folder, new_head=new_head, trust_remote_code=False, **values)


def longest(model: Model) -> int | None:
    """Positions the model has; None where they are relative."""
    return getattr(model.config, "max_position_embeddings", None) or getattr(model.config, "n_positions", None)


def _build(config: ModelConfig, tokenizer: HubTokenizer, labels: Sequence[str], seed: int) -> Model:
    kind = architecture_of(config)
    special = {"pad_token_id": tokenizer.pad_id, "eos_token_id": tokenizer.eos_id, "bos_token_id": tokenizer.start_id}
    common: dict[str, Any] = {"vocab_size": tokenizer.vocab_size, **special}
    common |= _dropouts(kind, config)
    if config.task == "classification":
        common |= label_maps(labels)
    architecture = transformers.AutoConfig.for_model(kind, **common, **_sizes(kind, config, tokenizer))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(transformers, AUTO_CLASSES[config.task]).from_config(architecture)
    if config.task in ("translation", "causal-lm"):
        model.config.use_cache = True
        model.generation_config.update(max_length=config.max_length)
    if kind == "mbart":
        _set_language(model, tokenizer)
    return model


def _dropouts(kind: str, config: ModelConfig) -> dict[str, Any]:
    """A model type's names of the dropout; raises `ConfigError` for one that it cannot have."""
    if not _DROPOUTS[kind] and config.dropout not in (0.0, ModelConfig().dropout):
        raise ConfigError(f"model.dropout is {config.dropout:g}, and {kind} has none", "leave it out")
    return dict.fromkeys(_DROPOUTS[kind], config.dropout)


def _sizes(kind: str, config: ModelConfig, tokenizer: HubTokenizer) -> dict[str, Any]:
    """A preset's sizes; one stack has as many layers as the encoder and decoder of a translation model together."""
    size = PRESETS[config.preset]
    layers, heads, ffn, std = 2 * size["layers"], size["heads"], size["ffn"], {"initializer_range": config.init_std}
    sides = {"attention_heads": heads, "layers": size["layers"], "ffn_dim": ffn}
    own: dict[str, dict[str, Any]] = {
        "t5": {
            **{"d_model": size["d_model"], "d_kv": size["d_model"] // heads, "d_ff": ffn, "num_heads": heads},
            **{"num_layers": size["layers"], "decoder_start_token_id": tokenizer.pad_id},
        },
        "mbart": {
            **{f"{side}_{key}": value for side in ("encoder", "decoder") for key, value in sides.items()},
            **{"d_model": size["d_model"], "max_position_embeddings": config.max_length, "init_std": config.init_std},
            **{"attention_dropout": 0.0, "scale_embedding": True, "forced_eos_token_id": tokenizer.eos_id},
        },
        "gpt2": {
            **{"n_embd": size["d_model"], "n_layer": layers, "n_head": heads, "n_inner": ffn},
            **{"n_positions": config.max_length, "attn_pdrop": 0.0, **std},
        },
        "llama": {
            **{"hidden_size": size["d_model"], "num_hidden_layers": layers, "num_attention_heads": heads},
            **{"intermediate_size": ffn, "max_position_embeddings": config.max_length, "tie_word_embeddings": True},
            **std,
        },
        "bert": {
            **{"hidden_size": size["d_model"], "num_hidden_layers": layers, "num_attention_heads": heads},
            **{"intermediate_size": ffn, "max_position_embeddings": config.max_length, "type_vocab_size": 1},
            **{"attention_probs_dropout_prob": 0.0, **std},
        },
        "distilbert": {
            **{"dim": size["d_model"], "n_layers": layers, "n_heads": heads, "hidden_dim": ffn},
            **{"max_position_embeddings": config.max_length, "attention_dropout": 0.0},
            **{"seq_classif_dropout": config.dropout, **std},
        },
    }
    return own[kind]


def _continue(folder: Path, config: ModelConfig, tokenizer: Tokenizer, labels: Sequence[str], seed: int) -> Model:
    kind = _type_of(folder, config.task)
    if kind == "marian":
        model = continue_model(folder, config, tokenizer.vocab_size)
    else:
        assert isinstance(tokenizer, HubTokenizer)
        model = _continue_other(kind, folder, config, tokenizer, labels, seed)
    if model.config.is_encoder_decoder:
        model.generation_config = _plain_generation(model)
    if kind == "mbart":
        assert isinstance(tokenizer, HubTokenizer)
        _set_language(model, tokenizer)
    return model


def _continue_other(
    kind: str, folder: Path, config: ModelConfig, tokenizer: HubTokenizer, labels: Sequence[str], seed: int
) -> Model:
    values = _dropouts(kind, config) | (LAYERDROP if kind == "mbart" else {})
    if config.task == "classification":
        values |= label_maps(labels)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of a head that the folder does not have
        model = load_any(folder, config.task, new_head=config.task == "classification", **values)
    _check_fit(folder, config, model, tokenizer)
    if config.task == "classification":
        fit_head(model, stored_labels(folder), labels, seed)
    return model


def _plain_generation(model: Model) -> transformers.GenerationConfig:
    """How a continued model decodes: its ids and its whole length; no other limits, scores or samples of its folder."""
    ids = {}
    for name in ("pad_token_id", "eos_token_id", "bos_token_id", "decoder_start_token_id"):
        own = getattr(model.config, name, None)  # training begins a target with that of the config
        ids[name] = getattr(model.generation_config, name) if own is None else own
    kept = {name: getattr(model.generation_config, name) for name in _KEPT}
    return transformers.GenerationConfig(max_length=longest(model) or RELATIVE, num_beams=1, **ids, **kept)


def _type_of(folder: Path, task: str) -> str:
    """The model type of a folder; raises `ConfigError` if it does not do the task."""
    kind = read_json(folder / "config.json").get("model_type")
    if kind not in _TYPES[task]:
        able = ", ".join(_TYPES[task])
        raise ConfigError(f"{folder / 'config.json'}: model_type {kind!r} does no {task} here", f"{able} do")
    return str(kind)


def _check_fit(folder: Path, config: ModelConfig, model: Model, tokenizer: HubTokenizer) -> None:
    size = model.get_input_embeddings().num_embeddings
    if size < tokenizer.vocab_size:
        raise ConfigError(f"{folder}: the model has {size} tokens, its tokenizer {tokenizer.vocab_size}")
    positions = longest(model)
    if positions is not None and config.max_length > positions:
        raise ConfigError(
            f"model.max_length is {config.max_length}, the model of {folder} has positions for {positions}",
            f"--set model.max_length={positions}",
        )


def _set_language(model: Model, tokenizer: HubTokenizer) -> None:
    """Let the decoder begin with what ends a target in training: the language's token, or the end token before it."""
    (empty,) = tokenizer.encode([""], 8, target=True)
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = empty[-1]
    framed = len(empty) > 1 and empty[-1] == tokenizer.eos_id
    model.generation_config.forced_bos_token_id = empty[0] if framed else None
