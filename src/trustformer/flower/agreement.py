# SPDX-License-Identifier: Apache-2.0
"""What all clients of a deployment hold alike, in one digest."""

from __future__ import annotations

from trustformer.codec.weights import Weights, weights_digest
from trustformer.experiment.config import Config
from trustformer.message import digest, enc


def experiment_digest(config: Config, tokenizer: bytes, start: Weights) -> bytes:
    """Digest of what all clients of a deployment agree on: config, tokenizer and G_0 (32 bytes).

    Unlike that of `trustformer run` it cannot cover the data: nobody sees all of them.
    """
    return digest(enc("tfl/1 deployment", config.to_toml(), tokenizer, weights_digest(start)))
