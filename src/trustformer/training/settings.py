# SPDX-License-Identifier: Apache-2.0
"""The `[train]` section of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class TrainConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[train]` section of a config.

    Attributes:
        local_epochs: passes over a client's data in one round: a whole number, or a part of one, such as 0.5, 0.25 or
            0.1. The parts of a pass follow each other, round by round; who misses a round misses its part. Of
            DP-SGD, which draws each step's pairs anew, as many steps as come closest, at least one.
        learning_rate: at the end of the warmup; then falls with the square root of the steps.
        warmup_steps: optimizer steps of a client, counted over rounds.
        cooldown: share of the run's rounds, the last ones, in which the learning rate falls to zero besides, in a line;
            0: it does not.
        batch_tokens: padded tokens of the longer side in a batch, at most.
        label_smoothing: mass spread over the vocabulary.
        weight_decay: decoupled, as in AdamW.
        clip_norm: largest norm of a gradient.
        device: where the model is, and a client's search for nearest centroids: `auto` is `cuda` where there is one.
        precision: of activations in training; weights, optimizer, exchange and scores are 32-bit floats either way.
    """

    local_epochs: Annotated[int, Meta(ge=1, le=1000)] | Annotated[float, Meta(ge=0.001, lt=1)] = 1
    learning_rate: Annotated[float, Meta(gt=0, le=1)] = 3e-3
    warmup_steps: Annotated[int, Meta(ge=1)] = 300
    cooldown: Annotated[float, Meta(ge=0, le=1)] = 0.0
    batch_tokens: Annotated[int, Meta(ge=16)] = 512
    label_smoothing: Annotated[float, Meta(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Meta(ge=0, le=1)] = 0.01
    clip_norm: Annotated[float, Meta(gt=0)] = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
