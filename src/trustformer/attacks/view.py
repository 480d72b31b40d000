# SPDX-License-Identifier: Apache-2.0
"""What each adversary sees. The attacks take a view and nothing else of a run.

    host      every sealed message: round, client, direction, kind, length, time; the public config
    client    G_0, its own updates, every aggregate: so the common model after every round. No other client's update
    enclave   what an enclave that is broken, or was never one, reads: every client's opened update, every aggregate;
              and G_0, which the enclave itself is never given, from any client that helps

The attacks are told the truth only to be scored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from trustformer.codec.weights import Weights
from trustformer.message import Update
from trustformer.methods import Codec

Adversary = Literal["host", "client", "enclave"]
ADVERSARIES: tuple[Adversary, ...] = ("host", "client", "enclave")


@dataclass(frozen=True)
class Relayed:
    """One sealed message as the host carries it; of what the host sees of it, what the attacks use."""

    direction: str
    kind: str
    bytes: int


@dataclass(frozen=True)
class Record:
    """Everything recorded of a run; no adversary sees all of it.

    Attributes:
        relayed: sealed messages in order.
        busy: seconds of local training by (round, client): in a deployment the time between two messages of a client.
        updates: opened updates by (round, client).
        aggregates: opened bodies of aggregates by round.
        combined: clients whose updates are in the aggregate, by round.
        start: G_0.
        codec, common, seed: how to read bodies; `common` is whether the method has a common model.
    """

    relayed: tuple[Relayed, ...]
    busy: Mapping[tuple[int, str], float]
    updates: Mapping[tuple[int, str], Update]
    aggregates: Mapping[int, bytes]
    combined: Mapping[int, Collection[str]]
    start: Weights
    codec: Codec
    common: bool
    seed: int


@dataclass(frozen=True)
class HostView:
    """Sizes, kinds and times; all else is ciphertext."""

    relayed: tuple[Relayed, ...]
    busy: Mapping[tuple[int, str], float]


@dataclass
class ModelView:
    """Updates and aggregates in the clear, and the model they belong to.

    Attributes:
        updates: those this adversary can open.
    """

    updates: Mapping[tuple[int, str], Update]
    _record: Record
    _last: tuple[int, Weights] | None = None

    @property
    def combined(self) -> Mapping[int, Collection[str]]:
        """Whose updates are in the aggregate, by round: every client reads it in the manifest."""
        return self._record.combined

    def reference(self, number: int) -> Weights:
        """The model before round `number`: G, or where there is none what a client without text would hold.

        The last one asked for is kept: later ones are computed from it, earlier ones from G_0.
        """
        at, weights = self._last if self._last and self._last[0] <= number else (1, self._record.start)
        for earlier in range(at, number):
            weights = apply_body(self._record, weights, earlier, self._record.aggregates[earlier])
        self._last = (number, weights)
        return weights

    @property
    def final(self) -> Weights:
        """The model after the last round."""
        return self.reference(max(self._record.aggregates) + 1)

    def after(self, number: int, body: bytes) -> Weights:
        """The reference before round `number`, changed as `body`, an update or an aggregate of it, says."""
        return apply_body(self._record, self.reference(number), number, body)

    def drift(self, number: int, client: str) -> Weights:
        """What one opened update says about its client's drift."""
        return difference(self.after(number, self.updates[number, client].body), self.reference(number))


def as_host(record: Record) -> HostView:
    """Return what the host sees."""
    return HostView(record.relayed, record.busy)


def as_client(record: Record, client: str) -> ModelView:
    """Return what one client sees: of updates its own only."""
    own = {key: update for key, update in record.updates.items() if key[1] == client}
    return ModelView(own, record)


def as_enclave(record: Record) -> ModelView:
    """Return what a broken enclave sees."""
    return ModelView(record.updates, record)


def apply_body(record: Record, reference: Weights, number: int, body: bytes) -> Weights:
    """Return `reference` changed as a body of round `number` says.

    The codec does what it does at a client without any drift of its own: of a drift this is G + decode(body), and of
    `paper` each row moves by (centroid - own centroid) of the cluster it is in.
    """
    codec = record.codec.at(record.seed, number)
    common = reference if record.common else {}
    own = codec.encode(reference, common, np.random.default_rng([record.seed, number]))
    weights, _ = codec.adopt(reference, common, body, own)
    return weights


def difference(weights: Weights, reference: Weights) -> Weights:
    """Return weights - reference, tensor by tensor."""
    return {name: values - reference[name] for name, values in weights.items()}
