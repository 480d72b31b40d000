# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters (LoRA, Hu et al., ICLR 2022, arXiv 2106.09685), made by peft.

A matrix W stays as it is and the model computes with W + 2 B A; only A (r, in) and B (out, r) are trained, so they are
all that an exchange sees. B begins at zero.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from trustformer.errors import ConfigError

FACTORS_A = "*.lora_A.*"
"""Matches the names of all A."""


def add_adapters(model: Any, rank: int, seed: int) -> None:
    """Give every linear map an adapter and freeze all else; output embedding and new heads have none, heads train.

    Args:
        model: changed in place.
        rank: r of every adapter.
        seed: of A.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise ConfigError(
            "model.lora_rank needs the package peft", "pip install -e '.[lora]' in the repository's folder"
        ) from None
    output = model.get_output_embeddings()
    linear = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not output and not in_head(name)
    }
    turned = any(isinstance(module, Conv1D) for module in linear.values())
    how = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(linear), fan_in_fan_out=turned)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(how, model)
    for name, parameter in model.named_parameters():
        if in_head(name):
            parameter.requires_grad_(True)


def in_head(name: str) -> bool:
    """Whether a tensor or module belongs to what a classifying model has beside the model it may begin from."""
    return name.startswith(("classifier", "pre_classifier", "bert.pooler."))


def merged(model: Any, *, adapted: bool = True) -> Any:
    """Return a copy whose adapters are added to their matrices, or left out; the model itself where it has none."""
    if not any(hasattr(module, "get_base_layer") for module in model.modules()):
        return model
    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if hasattr(module, "get_base_layer"):
            if adapted:
                module.merge()
            plain.set_submodule(name, module.get_base_layer())
    return plain
