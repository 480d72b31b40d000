# SPDX-License-Identifier: Apache-2.0
"""Drifts whose message has a bounded norm, and noise where a client adds its own.

What is bounded is the message as the enclave decodes it, not the drift before coding: rounding and shared centroids
change norms. All tensors count, one-dimensional ones too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from trustformer.aggregation import gaussian
from trustformer.codec.drift import DriftCodec
from trustformer.codec.weights import Weights
from trustformer.vq import MAX_ABS, Array, decode

_SLICE = 2**16
"""Entries noised at a time, so that draws stay small beside a model."""


@dataclass(frozen=True)
class ClippedCodec(DriftCodec):
    """Codes drifts clipped to `clipping_norm`.

    Attributes:
        clipping_norm: largest L2 norm of a decoded message, before noise.
        noise: standard deviation of the noise a client adds to every entry before coding; 0 where the enclave does.
        keeps_residual: whether what a message did not express stays in the client's weights. Otherwise a client
            begins each round from the common model, as in the papers of DP-FedAvg and those after it.
    """

    clipping_norm: float
    noise: float = 0.0
    keeps_residual: bool = True

    def encode(self, weights: Weights, common: Weights, rng: np.random.Generator) -> bytes:
        """Return the body of a client's update. With noise, no two calls give the same."""
        drift = {name: weights[name] - common[name] for name in weights}
        if self.noise:
            return self.coded(self._noised(clipped(drift, self.clipping_norm)), rng)
        limit, start = self.clipping_norm, rng.bit_generator.state
        while True:
            rng.bit_generator.state = start  # every try draws the same
            body = self.coded(clipped(drift, limit), rng)
            if norm(decode(self.upload, body)) <= self.clipping_norm:
                return body
            limit *= 1 - 2**-10

    def adopt(self, weights: Weights, common: Weights, answer: bytes, own: bytes | None) -> tuple[Weights, Weights]:
        """Return the client's weights and the common model after an exchange."""
        weights, common = super().adopt(weights, common, answer, own)
        return (weights if self.keeps_residual else dict(common)), common

    def _noised(self, drift: Weights) -> Weights:
        return {name: noisy(values, self.noise).clip(-MAX_ABS, MAX_ABS) for name, values in drift.items()}


def noisy(values: npt.NDArray[np.floating[Any]], noise: float) -> Array:
    """Return values plus noise of this standard deviation, summed in 64 bits and rounded to 32 bits once.

    Of noise that is rounded before it is added, sums would show by their last bits which values they can be of.
    """
    sums = values.astype(np.float64).reshape(-1)
    for at in range(0, sums.size, _SLICE):
        sums[at : at + _SLICE] += noise * gaussian(len(sums[at : at + _SLICE]))
    return sums.astype(np.float32).reshape(values.shape)


def norm(tensors: Weights) -> float:
    """L2 norm of all entries together."""
    return float(np.sqrt(sum(np.square(values, dtype=np.float64).sum() for values in tensors.values())))


def clipped(tensors: Weights, limit: float) -> Weights:
    """Scale tensors down to the norm `limit`, a hair below so that 32-bit rounding keeps it; smaller ones stay."""
    size = norm(tensors)
    if size <= limit:
        return tensors
    scale = np.float32(limit / size * (1 - 2**-22))
    return {name: values * scale for name, values in tensors.items()}
