# SPDX-License-Identifier: Apache-2.0
"""The device a run's model is on, and the search for nearest centroids there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from trustformer.errors import ConfigError, TrustformerError
from trustformer.training.settings import TrainConfig
from trustformer.vq import Array, Nearest, assign
from trustformer.vq.kmeans import Codes

_SCORES = 2**26
"""Scores worked on at a time: 256 MiB of the device's memory."""
_SHARE = 2**22
"""Scores a thread works on at a time, whatever the number of threads: so that it does not change a byte."""
_WIDE = 2**15
"""Entries of centroids beyond which numpy's products run on several threads."""


def device_of(config: TrainConfig) -> torch.device:
    """Return the device a config asks for; on `cuda`, ask torch for sums in one order, so that runs repeat.

    An operation that has no such form is an error there from then on.

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

    On CUDA it is torch's, else numpy's, faster on a CPU than torch's, in as many threads as torch uses now.
    """
    return partial(search, device) if device.type == "cuda" else partial(share, torch.get_num_threads())


def share(threads: int, X_ND: Array, C_KD: Array) -> Codes:
    """Return what `trustformer.vq.assign` does, computed in `threads` threads; the same codes whatever their number.

    Each part of the points is scaled by itself, so where entries differ by a factor of 2^60 or more in size, points
    that are nearly zero may get other centroids that are.
    """
    codes = np.empty(len(X_ND), np.int64)
    points = max(1, _SHARE // len(C_KD))
    starts = range(0, len(X_ND), points)

    def work(start: int) -> None:
        codes[start : start + points] = assign(X_ND[start : start + points], C_KD)

    if min(threads, len(starts)) == 1 or C_KD.size > _WIDE:  # such products use the threads themselves
        for start in starts:
            work(start)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, starts))
    return codes


@torch.no_grad()
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
    with torch.autocast(device.type, enabled=False):  # the caller's
        codes = [torch.addmm(offsets_K, block_BD * scale, weights_DK).argmax(1) for block_BD in blocks]
    return torch.cat(codes).cpu().numpy()


def describe_device(device: torch.device) -> str:
    """Name of a device, for a run's record."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type


@contextmanager
def explained(config: TrainConfig) -> Iterator[None]:
    """Say of an error of torch in training what the config can do about it.

    Raises:
        TrustformerError: the device ran out of memory, or has no repeatable form of an operation.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise TrustformerError(
            f"the device ran out of memory in training, with batches of {config.batch_tokens:,} tokens",
            "lower train.batch_tokens",
        ) from error
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise TrustformerError(
            f"torch cannot repeat this model's training on its device: {operation} has no deterministic form",
            "--set train.device=cpu",
        ) from error
