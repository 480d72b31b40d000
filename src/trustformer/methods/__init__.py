# SPDX-License-Identifier: Apache-2.0
"""What a federation exchanges. A method is a codec, or none, and how the data is pooled; one small file each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from trustformer.codec.drift import DriftCodec
from trustformer.codec.partition import PartitionCodec
from trustformer.codec.weights import Weights
from trustformer.message import TensorSpec
from trustformer.methods import centralized, centroid, dp_blur_lus, dp_fedavg, dp_fedsam, fedavg, local, lora
from trustformer.methods.base import Codec, Exchange, Method
from trustformer.methods.config import MethodConfig
from trustformer.methods.private import bounded
from trustformer.privacy.config import PrivacyConfig
from trustformer.vq import Nearest, assign

__all__ = ["LORA", "METHODS", "PRIVATE", "Codec", "Exchange", "Method", "MethodConfig", "build"]

METHODS: dict[str, Callable[[MethodConfig, Sequence[TensorSpec]], Method]] = {
    "centroid": centroid.build,
    "fedavg": fedavg.build,
    "local": local.build,
    "centralized": centralized.build,
    **dict.fromkeys(lora.NAMES, lora.build),
}

LORA = lora.NAMES
"""Methods that need adapters."""

PRIVATE: dict[str, Callable[[MethodConfig, Sequence[TensorSpec], float], Method]] = {
    "dp_fedavg": dp_fedavg.build,
    "dp_fedsam": dp_fedsam.build,
    "dp_blur_lus": dp_blur_lus.build,
}
"""Methods that are only themselves with a clipping norm, the last argument."""


def build(
    config: MethodConfig,
    tensors: Sequence[TensorSpec],
    privacy: PrivacyConfig | None = None,
    noise_multiplier: float = 0.0,
    *,
    start: Weights | None = None,
    nearest: Nearest = assign,
) -> Method:
    """Return the method a config names, for a model with these trainable tensors.

    Args:
        config: the `[method]` section.
        tensors: names and shapes.
        privacy: the `[privacy]` section; none for no privacy.
        noise_multiplier: standard deviation of the noise over the clipping norm.
        start: G_0, for partitions that look at what has moved since.
        nearest: finds the nearest centroid of each block of a drift.

    Raises:
        ConfigError: what the sections ask for does not go together.
    """
    privacy = privacy or PrivacyConfig()
    if config.name in PRIVATE:
        method = PRIVATE[config.name](config, tensors, privacy.clipping_norm)
    else:
        method = METHODS[config.name](config, tensors)
    if isinstance(method.codec, PartitionCodec):
        method = replace(method, codec=replace(method.codec, start=start or {}))
    if isinstance(method.codec, DriftCodec):
        method = replace(method, codec=replace(method.codec, nearest=nearest))
    return bounded(method, privacy, noise_multiplier) if privacy.client_level else method
