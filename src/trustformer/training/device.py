# SPDX-License-Identifier: Apache-2.0
"""The device a run's model is on."""

from __future__ import annotations

import os

import torch

from trustformer.errors import ConfigError
from trustformer.training.settings import TrainConfig


def device_of(config: TrainConfig) -> torch.device:
    """Return the device a config asks for; on `cuda`, ask torch for sums in one order, so that runs repeat.

    Raises:
        ConfigError: `cuda` is asked for and there is none.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("train.device is cuda, and torch sees no such device", "--set train.device=cpu")
    if config.device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with such a workspace
    torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device("cuda")


def describe_device(device: torch.device) -> str:
    """Name of a device, for a run's record."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type
