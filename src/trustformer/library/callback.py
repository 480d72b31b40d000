# SPDX-License-Identifier: Apache-2.0
"""The exchange in `transformers.Trainer`."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from trustformer.errors import ConfigError
from trustformer.library.federation import Federation


class ExchangeCallback(TrainerCallback):  # type: ignore[misc]
    """Exchanges after every so many epochs; one for each client's `Trainer`, each running in a thread of its own.

    Args:
        federation: of the trainers' models.
        every: epochs between exchanges, from 1.

    Raises:
        ConfigError: `every` is less.
    """

    def __init__(self, federation: Federation, every: int = 1) -> None:
        if every < 1:
            raise ConfigError(f"ExchangeCallback, every: expected 1 or more, got {every}", "give whole epochs")
        self._federation, self._every, self._epochs = federation, every, 0

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the other clients and exchange."""
        self._epochs += 1
        if self._epochs % self._every == 0:
            self._federation.meet()
