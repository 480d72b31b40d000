# SPDX-License-Identifier: Apache-2.0
"""Centroid exchange: Trustformer (arXiv 2501.11706), here on drifts.

Variant `codebook`: blocks of consecutive entries of the drift are clustered; the centroids travel with their
assignment codes, in both directions. Clusters of different clients need not correspond.

Variant `partition`: rows of the drift are clustered alike by all, so centroids travel alone.

Variant `paper`: the published exchange, kept so that anyone can check what it does.
"""

from __future__ import annotations

from collections.abc import Sequence

from trustformer.codec.drift import DriftCodec
from trustformer.codec.paper import PaperCodec
from trustformer.codec.partition import PartitionCodec
from trustformer.codec.rates import rated_layout
from trustformer.errors import ConfigError
from trustformer.message import Codebook, TensorSpec
from trustformer.methods.base import Method
from trustformer.methods.config import MethodConfig


def build(config: MethodConfig, tensors: Sequence[TensorSpec]) -> Method:
    """Return the centroid exchange of the config's variant; raises `ConfigError` if nothing would be sent."""
    if config.variant == "paper":
        codec = PaperCodec.make(tensors, config.ratio)
        if not codec.upload.tensors:
            raise ConfigError(f"method.ratio {config.ratio:g} leaves no matrix a centroid", "raise method.ratio")
        return Method(codec, common=False, weighted=False)
    if config.variant == "partition":
        partition = PartitionCodec(tuple(tensors), config.ratio, config.partition)
        return Method(partition, exchanges=config.exchanges, closing_exchanges=config.closing_exchanges)
    layout = rated_layout(tensors, Codebook(config.block, config.clusters))
    drift = DriftCodec(layout, layout)
    return Method(drift, exchanges=config.exchanges, closing_exchanges=config.closing_exchanges)
