# SPDX-License-Identifier: Apache-2.0
"""A model's trainable tensors as plain arrays, and the layouts its messages take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from trustformer.message import Dense, Group, Layout, TensorSpec, digest, enc

Weights = dict[str, npt.NDArray[np.float32]]
"""Trainable tensors by name, float32, C-contiguous; tied weights occur once, frozen ones not at all."""


def specs_of(weights: Mapping[str, npt.NDArray[np.float32]]) -> tuple[TensorSpec, ...]:
    """Names and shapes, in the order of the weights."""
    return tuple(TensorSpec(name, values.shape) for name, values in weights.items())


def weights_digest(weights: Mapping[str, npt.NDArray[np.float32]]) -> bytes:
    """Digest of names, shapes and exact values (32 bytes), independent of the order of the mapping."""
    parts = [
        digest(enc(name, *weights[name].shape) + weights[name].astype("<f4", copy=False).tobytes())
        for name in sorted(weights)
    ]
    return digest(enc("tfl/1 weights", *parts))


def energies(weights: Weights, common: Weights) -> dict[str, float]:
    """Squared norm of each tensor's drift from the common model."""
    drifts = ((name, (weights[name] - common[name]).reshape(-1)) for name in common)
    return {name: float(np.dot(drift, drift)) for name, drift in drifts}


def dense_layout(tensors: Sequence[TensorSpec], dtype: str = "float32") -> Layout:
    """One group of dense tensors."""
    return Layout((Group(Dense("float32" if dtype == "float32" else "float16"), tuple(tensors)),))
