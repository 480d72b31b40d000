# SPDX-License-Identifier: Apache-2.0
"""Federated averaging (McMahan et al., AISTATS 2017): dense fp32 drifts, the yardstick of every comparison."""

from __future__ import annotations

from collections.abc import Sequence

from trustformer.codec.drift import DriftCodec
from trustformer.codec.weights import dense_layout
from trustformer.message import TensorSpec
from trustformer.methods.base import Method
from trustformer.methods.config import MethodConfig


def build(config: MethodConfig, tensors: Sequence[TensorSpec]) -> Method:
    """Return federated averaging."""
    layout = dense_layout(tensors)
    return Method(DriftCodec(layout, layout))
