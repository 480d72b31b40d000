# SPDX-License-Identifier: Apache-2.0
"""The device a run's model is on, and the search for nearest centroids there."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from trustformer.errors import ConfigError
from trustformer.training.settings import TrainConfig
from trustformer.vq import Array, Nearest, assign
from trustformer.vq.kmeans import Codes

_SCORES = 2**26
"""Scores worked on at a time: 256 MiB of the device's memory."""
_SHARE = 2**22
"""Scores a thread works on at a time, whatever the number of threads: so that it does not change a byte."""


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
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cuda")


def nearest_on(device: torch.device) -> Nearest:
    """Return the search for the nearest centroid where the model is.

    On a CPU it is numpy's, faster there than torch's, in as many threads as torch uses now.
    """
    return partial(share, torch.get_num_threads()) if device.type == "cpu" else partial(search, device)


def share(threads: int, X_ND: Array, C_KD: Array) -> Codes:
    """Return what `trustformer.vq.assign` does, computed in `threads` threads."""
    points = max(1, _SHARE // len(C_KD))
    parts = [X_ND[start : start + points] for start in range(0, len(X_ND), points)]
    if min(threads, len(parts)) == 1:
        return np.concatenate([assign(part_BD, C_KD) for part_BD in parts])
    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(lambda part_BD: assign(part_BD, C_KD), parts)))


def search(device: torch.device, X_ND: Array, C_KD: Array) -> Codes:
    """Return what `trustformer.vq.assign` does, computed on `device`: nearest by the same score, scaled alike.

    A point as near to two centroids, but for the rounding of a product, may get either.
    """
    largest = max(X_ND.max(), -X_ND.min(), np.abs(C_KD).max())
    scale = float(2.0 ** -np.clip(np.frexp(largest)[1], -126, 126))
    points_ND = torch.from_numpy(np.ascontiguousarray(X_ND)).to(device)
    weights_DK = torch.from_numpy(np.ascontiguousarray(C_KD)).to(device).T * scale
    offsets_K = -0.5 * weights_DK.square().sum(0)
    blocks = torch.split(points_ND, max(1, _SCORES // len(C_KD)))
    codes = [torch.addmm(offsets_K, block_BD * scale, weights_DK).argmax(1) for block_BD in blocks]
    return torch.cat(codes).cpu().numpy()


def describe_device(device: torch.device) -> str:
    """Name of a device, for a run's record."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type
