# SPDX-License-Identifier: Apache-2.0
"""Local training of one client."""

from trustformer.training.local import LocalTrainer, OptimizerState, TrainConfig, TrainResult

__all__ = ["LocalTrainer", "OptimizerState", "TrainConfig", "TrainResult"]
