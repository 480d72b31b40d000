# SPDX-License-Identifier: Apache-2.0
"""Client-level privacy for any exchange of drifts: bounded messages and equal weights; noise by enclave or client."""

from __future__ import annotations

from dataclasses import replace

from trustformer.codec.clipped import ClippedCodec
from trustformer.codec.drift import DriftCodec
from trustformer.errors import ConfigError
from trustformer.methods.base import Method
from trustformer.privacy.config import PrivacyConfig
from trustformer.training.rules import Rule


def from_common(method: Method, rule: Rule) -> Method:
    """Let clients begin every round from the common model and train by a rule."""
    return replace(method, rule=rule, personal=False)


def bounded(method: Method, privacy: PrivacyConfig, noise_multiplier: float) -> Method:
    """Clip what a method's clients send, and let them weigh the same: a weight would tell how much text they have.

    Where clients add the noise, nothing a message did not express is kept: its noise would come back into the weights.

    Raises:
        ConfigError: the method exchanges no drifts.
    """
    if type(method.codec) is not DriftCodec:
        raise ConfigError(
            f"privacy.mechanism {privacy.mechanism} clips drifts, and this method exchanges none",
            "use centroid with variant codebook, dp_fedavg, dp_fedsam or dp_blur_lus",
        )
    noise = noise_multiplier * privacy.clipping_norm if privacy.mechanism == "client" else 0.0
    personal = method.personal and not noise
    drift = method.codec
    codec = ClippedCodec(drift.upload, drift.answer, privacy.clipping_norm, noise, personal, nearest=drift.nearest)
    return replace(method, codec=codec, weighted=False, personal=personal)
