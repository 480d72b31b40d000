# SPDX-License-Identifier: Apache-2.0
"""What a federation exchanges. A method is a codec, or none, and how the data is pooled; one small file each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trustformer.message import TensorSpec
from trustformer.methods import centralized, centroid, fedavg, local
from trustformer.methods.base import Codec, Method
from trustformer.methods.config import MethodConfig

__all__ = ["METHODS", "Codec", "Method", "MethodConfig", "build"]

METHODS: dict[str, Callable[[MethodConfig, Sequence[TensorSpec]], Method]] = {
    "centroid": centroid.build,
    "fedavg": fedavg.build,
    "local": local.build,
    "centralized": centralized.build,
}


def build(config: MethodConfig, tensors: Sequence[TensorSpec]) -> Method:
    """Return the method a config names, for a model with these trainable tensors."""
    return METHODS[config.name](config, tensors)
