# SPDX-License-Identifier: Apache-2.0
"""The seam between a method and the rest: two layouts and two functions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from trustformer.codec.weights import Weights
from trustformer.message import Layout
from trustformer.training.rules import Rule


class Exchange(Protocol):
    """The client's half of one exchange; the enclave's half follows from the layouts alone."""

    def digest(self, common: Weights) -> bytes:
        """Return the digest of all that the cohort's updates must agree on beside the terms: G and what else is used.

        It travels inside the sealed update, and the enclave refuses one that differs from most clients'.
        """
        ...

    def encode(self, weights: Weights, common: Weights, rng: np.random.Generator) -> bytes:
        """Return the body of a client's update."""
        ...

    def adopt(self, weights: Weights, common: Weights, answer: bytes, own: bytes | None) -> tuple[Weights, Weights]:
        """Return the client's weights and the common model after an exchange; `own` if it was part of it."""
        ...


class Codec(Protocol):
    """What is exchanged in a run."""

    @property
    def upload(self) -> Layout:
        """Form of an update's body."""
        ...

    @property
    def answer(self) -> Layout:
        """Form of an aggregate's body."""
        ...

    def at(self, seed: int, number: int) -> Exchange:
        """Return the codec of exchange `number`, from 1, of a run with this seed."""
        ...


@dataclass(frozen=True)
class Method:
    """One way to learn from several clients.

    Attributes:
        codec: what is exchanged; None for no exchange.
        pooled: whether one client holds all data.
        common: whether clients hold a common model G.
        weighted: whether a client counts by its training examples in the mean; all count alike otherwise.
        exchanges: of a round: one after its training, the others at once.
        closing_exchanges: exchanges without training after the last round.
        personal: whether a client's model differs from the common one; all begin each round from it otherwise.
        rule: what local training does beside the gradient of the loss.
    """

    codec: Codec | None
    common: bool = True
    weighted: bool = True
    pooled: bool = False
    exchanges: int = 1
    closing_exchanges: int = 0
    personal: bool = True
    rule: Rule = field(default_factory=Rule)

    def total(self, rounds: int) -> int:
        """Exchanges of a run of so many rounds, closing ones included."""
        return rounds * self.exchanges + self.closing_exchanges

    def trains(self, number: int, rounds: int) -> bool:
        """Whether clients train before exchange `number` of a run of so many rounds."""
        return number <= rounds * self.exchanges and (number - 1) % self.exchanges == 0
