# SPDX-License-Identifier: Apache-2.0
"""All data in one place: what could be reached if nothing had to stay in the building."""

from __future__ import annotations

from collections.abc import Sequence

from trustformer.message import TensorSpec
from trustformer.methods.base import Method
from trustformer.methods.config import MethodConfig


def build(config: MethodConfig, tensors: Sequence[TensorSpec]) -> Method:
    """Return centralized training."""
    return Method(None, pooled=True)
