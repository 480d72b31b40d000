# SPDX-License-Identifier: Apache-2.0
"""Heads of classifiers that a run continues: which labels their rows are for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from trustformer.data.marian import read_json
from trustformer.models.seq2seq import Model

_UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}
"""What transformers means by a config without `id2label`."""


def label_maps(labels: Sequence[str]) -> dict[str, Any]:
    """Return what a config says of labels in the order of their numbers."""
    return {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}


def stored_labels(folder: Path) -> list[str | None]:
    """Return the labels of a model folder in the order of its head's rows; None for a row without one.

    Raises:
        ConfigError: config.json cannot be read.
    """
    stored = read_json(folder / "config.json").get("id2label") or _UNNAMED
    return [stored.get(str(row)) for row in range(len(stored))] if isinstance(stored, dict) else []


def fit_head(model: Model, stored: Sequence[str | None], labels: Sequence[str], seed: int) -> None:
    """Give a head that was read the rows of a run's labels: its own in their order, or new ones for other labels.

    Args:
        model: changed in place; its head, a linear map `classifier`, has a row for each of `labels`.
        stored: labels of the rows that were read.
        labels: of the run, in the order of their numbers.
        seed: of new rows.
    """
    if list(stored) == list(labels) or len(stored) != len(labels):  # one of another size was made anew when read
        return
    weight, bias = model.classifier.weight, model.classifier.bias
    with torch.no_grad(), torch.random.fork_rng():
        if set(stored) == set(labels):
            rows = [stored.index(label) for label in labels]
            weight.copy_(weight[rows])
            bias.copy_(bias[rows])
        else:
            torch.manual_seed(seed)
            weight.normal_(0.0, model.config.initializer_range)
            bias.zero_()
