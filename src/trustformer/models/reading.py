# SPDX-License-Identifier: Apache-2.0
"""Weights of a model folder: from safetensors alone, and all of them or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers.utils import logging

from trustformer.errors import ConfigError
from trustformer.models.adapters import in_head


def read_weights(loader: Any, folder: Path, *, new_head: bool = False, **values: Any) -> Any:
    """Return the model of a folder in 32-bit floats; other weight files than safetensors can hold code.

    Args:
        loader: the class of transformers that reads it.
        folder: has `config.json` and the weights.
        new_head: make a head anew that the folder lacks or that is for other labels.
        values: in place of those of the folder's config.

    Raises:
        ConfigError: no such weights, damaged ones, or a tensor that is missing or of another shape.
    """
    try:
        with _quiet():
            model, info = loader.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the library would only refer to a table; they are told below
                **values,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        what = str(error).strip().partition("\n")[0]
        raise ConfigError(f"the model of {folder} cannot be read: {what}", "restore its safetensors files") from None
    odd = sorted(key for key in info["mismatched_keys"] if not (new_head and in_head(key[0])))
    if odd:
        name, stored, expected = odd[0]
        raise ConfigError(
            f"the weights of {folder} do not fit its config.json: {name!r} has the shape {tuple(stored)}, "
            f"not {tuple(expected)}",
            "restore the config and the weights of one model",
        )
    missing = [name for name in sorted(info["missing_keys"]) if not (new_head and in_head(name))]
    if missing:
        others = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise ConfigError(f"the weights of {folder} lack {missing[0]!r}{others}", "restore its safetensors files")
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's table of missing and new tensors off the screen: it is told in our words, or expected."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
