# SPDX-License-Identifier: Apache-2.0
"""Updates that the enclave refused: the receipt says no more than that, who simulates a run can say why."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from trustformer.errors import ProtocolError
from trustformer.experiment.config import Config
from trustformer.federation.client import Client
from trustformer.federation.host import Host
from trustformer.message import Layout, Update
from trustformer.vq import decode


def combined_of(entry: dict[str, Any]) -> tuple[str, ...]:
    """Clients of a round whose updates were combined; `adopted` says that a run went on after that."""
    told, late = entry["status"], entry["late"]
    return tuple(c for c in entry["present"] if c not in late and told.get(c) in ("accepted", "adopted"))


def refused(entry: dict[str, Any]) -> tuple[str, ...]:
    """Clients of a round whose updates the enclave refused."""
    return tuple(client for client, status in entry["status"].items() if status == "refused")


def count_refused(rounds: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Number of refused updates by client; clients without any are left out."""
    return dict(sorted(Counter(client for entry in rounds for client in refused(entry)).items()))


class Refusals:
    """The updates of one round as they were sent, and the norm that the run's terms allow.

    Args:
        config: the run's config.
        layout: of an update; None where nothing is exchanged.
    """

    def __init__(self, config: Config, layout: Layout | None) -> None:
        clipped = config.privacy.mechanism == "enclave"
        self._key = "privacy.clipping_norm" if clipped else "enclave.max_norm"
        self._limit = config.privacy.clipping_norm if clipped else config.enclave.max_norm
        self._layout = layout
        self._sent: dict[str, Update] = {}

    def sent(self, client: Client) -> None:
        """Note what a client has sent."""
        if client.state.pending is not None:
            self._sent[client.id] = client.state.pending

    @contextmanager
    def explained(self, number: int, host: Host) -> Iterator[None]:
        """Say why updates are missing in a round that cannot be closed.

        Raises:
            ProtocolError: that of the round; where updates of a larger norm were sent, it names them and the limit.
        """
        self._sent.clear()
        try:
            yield
        except ProtocolError as error:
            found = {client: norm for client in self._sent if (norm := self._norm(client)) > self._limit}
            if not found or host.round >= number:
                raise
            told = ", ".join(f"client {client} ({norm:.6g})" for client, norm in found.items())
            raise ProtocolError(
                f"{error.message}; updates over {self._key} = {self._limit:g} were refused, with their norms: {told}",
                f"start a new run with a larger {self._key} if they are honest, or with a smaller train.learning_rate",
            ) from error

    def warnings(self, entry: dict[str, Any]) -> Iterator[str]:
        """Yield a sentence for each refused update of a round that was closed."""
        for client in refused(entry):
            text = f"round {entry['round']}: the enclave refused the update of client {client}"
            norm = self._norm(client)
            yield f"{text}: its norm is {norm:.6g}, over {self._key} = {self._limit:g}" if norm > self._limit else text

    def _norm(self, client: str) -> float:
        """L2 norm of a client's update as the enclave decodes it; 0 where it is not known."""
        if self._layout is None or client not in self._sent:
            return 0.0
        tensors = decode(self._layout, self._sent[client].body)
        return math.sqrt(sum(float(np.square(values, dtype=np.float64).sum()) for values in tensors.values()))
