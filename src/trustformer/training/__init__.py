# SPDX-License-Identifier: Apache-2.0
"""Local training of one client."""

from trustformer.training.device import device_of, nearest_on
from trustformer.training.local import LocalTrainer, OptimizerState, TrainResult, check_parts
from trustformer.training.records import RecordTrainer, sampling
from trustformer.training.rules import Rule
from trustformer.training.settings import TrainConfig

__all__ = [
    "LocalTrainer",
    "OptimizerState",
    "RecordTrainer",
    "Rule",
    "TrainConfig",
    "TrainResult",
    "check_parts",
    "device_of",
    "nearest_on",
    "sampling",
]
