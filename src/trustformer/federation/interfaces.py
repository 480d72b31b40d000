# SPDX-License-Identifier: Apache-2.0
"""What a client needs from outside: something that trains, carries its messages and keeps its records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from trustformer.attestation.handshake import VerificationRecord
from trustformer.codec.weights import Weights
from trustformer.data.batches import Example
from trustformer.training import OptimizerState, TrainResult


class Trainer(Protocol):
    """What trains a client's weights: `LocalTrainer`, or a loop of someone else's."""

    def train(
        self,
        weights: Weights,
        optimizer: OptimizerState,
        examples: Sequence[Example],
        *,
        seed: Sequence[int],
        report: Callable[[int, int], None] | None = None,
    ) -> TrainResult:
        """Return new weights; the arguments are not changed."""
        ...


class Journal(Protocol):
    """Keeps what a third party needs to verify a run again."""

    def verification(self, client_id: str, record: VerificationRecord) -> None:
        """Keep the record of one appraisal, accepted or refused."""
        ...

    def welcome(self, client_id: str, signed: bytes) -> None:
        """Keep one welcome with its signature: the first of each boot and round."""
        ...

    def receipt(self, client_id: str, signed: bytes) -> None:
        """Keep one receipt with its signature."""
        ...


class Transport(Protocol):
    """Carries a client's messages to the enclave: `Link` within one process, a network in a deployment."""

    def hello(self, request: bytes) -> bytes:
        """Send a hello, receive a welcome."""
        ...

    def upload(self, request: bytes) -> bytes:
        """Send a sealed update, receive a receipt."""
        ...

    def sync(self, request: bytes, after: int, *, manifests_only: bool = False) -> bytes:
        """Ask for the rounds after `after`; receive keys, manifests and sealed aggregates."""
        ...

    def ask_common(self, request: bytes, answer: Callable[[bytes], bytes]) -> bytes:
        """Ask another client for the dense common model."""
        ...

    def answer_common(self, reply: bytes) -> bytes:
        """Send the sealed common model to another client."""
        ...


class Sponsor(Protocol):
    """Another client as one that is too far behind sees it."""

    @property
    def id(self) -> str:
        """Its id; may be known only after it has answered."""
        ...

    def share_common(self, request: bytes) -> bytes:
        """Answer `ask_common`."""
        ...
