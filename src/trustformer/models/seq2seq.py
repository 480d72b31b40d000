# SPDX-License-Identifier: Apache-2.0
"""Encoder-decoder Transformers of the Marian family, from Hugging Face transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta, Struct
from transformers import MarianConfig, MarianMTModel
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from trustformer.codec.weights import Weights
from trustformer.data.batches import Batch
from trustformer.data.tokenizer import EOS_ID, PAD_ID
from trustformer.errors import ConfigError
from trustformer.models.reading import read_weights

transformers_logging.disable_progress_bar()  # its bars would cut through ours

Model = Any
"""A transformers model; the library ships no types that mypy can use."""

PRESETS: dict[str, dict[str, int]] = {
    # name: width, layers on each side, attention heads, feed-forward width
    "micro": {"d_model": 32, "layers": 1, "heads": 2, "ffn": 64},
    "tiny": {"d_model": 128, "layers": 2, "heads": 4, "ffn": 512},
    "small": {"d_model": 256, "layers": 3, "heads": 4, "ffn": 768},
    "base": {"d_model": 512, "layers": 6, "heads": 8, "ffn": 2048},
}


class ModelConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[model]` section of a config.

    Attributes:
        preset: `micro` (37,000 parameters at a vocabulary of 500: for hundreds of clients), `tiny` (1.4 M at 4,000),
            `small` (5.8 M), `base` (60 M at 32,000), or a folder with a model and its tokenizer, from which the run
            continues.
        task: `translation`, `causal-lm` (next token), `masked-lm` (hidden tokens), `classification` (domain labels).
        architecture: of a preset: `auto` is `marian` for translation, `gpt2` for causal-lm, `bert` for the others;
            `t5` and `mbart`, `llama`, and `distilbert` do these too. A folder's own is in its config.
        freeze: name patterns (`*` matches anything) of tensors that are neither trained nor exchanged.
        lora_rank: train adapters of this rank on every linear map and a classifier's head, freeze all else; 0: none.
        dropout: of embeddings and residual branches.
        init_std: standard deviation of the initial matrices. Larger ones learn free word order sooner (positions
            are of fixed size), smaller ones are better where both languages have much the same order. T5 has its own.
        max_length: longest sequence in tokens; longer sentences are cut.
    """

    preset: str = "tiny"
    task: Literal["translation", "causal-lm", "masked-lm", "classification"] = "translation"
    architecture: Literal["auto", "marian", "t5", "mbart", "gpt2", "llama", "bert", "distilbert"] = "auto"
    freeze: tuple[str, ...] = ()
    lora_rank: Annotated[int, Meta(ge=0, le=1024)] = 0
    dropout: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    init_std: Annotated[float, Meta(gt=0, le=1)] = 0.02
    max_length: Annotated[int, Meta(ge=8, le=1024)] = 128


def build_model(config: ModelConfig, vocab_size: int, seed: int) -> Model:
    """Return a freshly initialised model; the same bits for the same arguments."""
    size = PRESETS[config.preset]
    sides = {
        f"{side}_{key}": value
        for side in ("encoder", "decoder")
        for key, value in (
            ("layers", size["layers"]),
            ("attention_heads", size["heads"]),
            ("ffn_dim", size["ffn"]),
        )
    }
    architecture = MarianConfig(
        vocab_size=vocab_size,
        decoder_vocab_size=vocab_size,
        d_model=size["d_model"],
        **sides,
        max_position_embeddings=config.max_length,
        dropout=config.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        activation_function="relu",
        scale_embedding=True,
        init_std=config.init_std,
        share_encoder_decoder_embeddings=True,
        pad_token_id=PAD_ID,
        eos_token_id=EOS_ID,
        bos_token_id=None,
        decoder_start_token_id=PAD_ID,
        forced_eos_token_id=EOS_ID,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MarianMTModel(architecture)
    model.generation_config.update(max_length=config.max_length, num_beams=1, bad_words_ids=[[PAD_ID]])
    return model


def get_weights(model: Model) -> Weights:
    """Return a copy of the trainable tensors in 32-bit floats; tied ones once, frozen ones (positions) not at all.

    A matrix has a row for each output. GPT-2 stores its own the other way round; here they are transposed.
    """
    turned = _turned(model)
    return {
        name: (parameter.T if name in turned else parameter).detach().to(torch.float32).cpu().numpy().copy()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def frozen_weights(model: Model) -> Weights:
    """Return a copy of the tensors that are not trained."""
    frozen = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    return {name: p.detach().to(torch.float32).cpu().numpy().copy() for name, p in frozen.items()}


def set_weights(model: Model, weights: Weights) -> None:
    """Copy weights into the model; raises `ConfigError` when they are another model's."""
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if parameters.keys() != weights.keys():
        odd = sorted(parameters.keys() ^ weights.keys())[0]
        raise ConfigError(f"the weights are of another model: {odd!r} is in one and not in the other")
    turned = _turned(model)
    parameters = {name: parameter.T if name in turned else parameter for name, parameter in parameters.items()}
    for name, parameter in parameters.items():
        if tuple(parameter.shape) != weights[name].shape:  # copy_ would broadcast
            raise ConfigError(
                f"the weights are of another model: {name!r} has the shape {weights[name].shape}, "
                f"not {tuple(parameter.shape)}"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.ascontiguousarray(weights[name])))


def _turned(model: Model) -> set[str]:
    """Names of matrices stored with a row for each input."""
    return {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Conv1D)}


def save_model(model: Model, folder: Path) -> None:
    """Write config, generation config and safetensors weights, as `from_pretrained` reads them."""
    model.save_pretrained(folder, safe_serialization=True)


def load_model(folder: Path) -> Model:
    """Read a model folder from disk; raises `ConfigError` if there is none, as `read_weights` does."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is not a model folder: it has no config.json")
    return read_marian(folder)


def read_marian(folder: Path, **values: Any) -> Model:
    """Read a Marian model with `values` in place of its config's, positions frozen; raises as `read_weights` does."""
    model = read_weights(MarianMTModel, folder, **values)
    for side in (model.model.encoder, model.model.decoder):
        side.embed_positions.requires_grad_(False)  # as in a model that was built: loading forgets it
    return model


def logits_of(model: Model, batch: Batch) -> torch.Tensor:
    """Return logits (B, T, vocabulary) of the target given the source; the decoder reads the target shifted right."""
    start = torch.full_like(batch.target[:, :1], model.config.decoder_start_token_id)
    logits: torch.Tensor = model(
        input_ids=batch.source,
        attention_mask=(batch.source != batch.pad_id).long(),
        decoder_input_ids=torch.cat([start, batch.target[:, :-1]], 1),
        use_cache=False,
    ).logits
    return logits
