# SPDX-License-Identifier: Apache-2.0
"""Baselines that send little because little is trained: dense averages of low-rank adapters (`model.lora_rank`).

LoRA-FedAvg: A and B are averaged each by itself, as in "Towards Building the Federated GPT" (Zhang et al., arXiv
2305.05644); the mean of products B A is not the product of means.

FFA-LoRA: "Improving LoRA in Privacy-preserving Federated Learning" (Sun et al., ICLR 2024, arXiv 2403.12313): A stays
as it began, the same at all clients, so that averaging B is exact; half the bytes at the same rank.

Adapters as centroids are no method of their own: `centroid` with `model.lora_rank`.
"""

from __future__ import annotations

from collections.abc import Sequence

from trustformer.message import TensorSpec
from trustformer.methods import fedavg
from trustformer.methods.base import Method
from trustformer.methods.config import MethodConfig

NAMES = ("lora_fedavg", "ffa_lora")


def build(config: MethodConfig, tensors: Sequence[TensorSpec]) -> Method:
    """Return the dense average of what is trained: adapters, and a classifier's head."""
    return fedavg.build(config, tensors)
