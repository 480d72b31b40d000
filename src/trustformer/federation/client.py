# SPDX-License-Identifier: Apache-2.0
"""One data owner: trains on private text, sends coded drifts, adopts what the enclave releases.

Every method may be called again after a crash; what was done already is read from the store and not redone.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from trustformer.codec.weights import Weights, energies
from trustformer.data.batches import Example
from trustformer.enclave.protocol import NO_HASH, Manifest, Welcome
from trustformer.errors import ProtocolError, RoundsGoneError, TrustformerError
from trustformer.federation.channel import Channel, Position
from trustformer.federation.common import CommonReply, CommonRequest
from trustformer.federation.interfaces import Sponsor, Trainer
from trustformer.federation.store import ClientState, ClientStore
from trustformer.message import MAX_EXAMPLES, Aggregate, Update
from trustformer.methods import Codec, Exchange

Report = Callable[[str, int, int], None]
"""Called with what the client is doing, and how much of how much is done."""


class BehindError(TrustformerError):
    """The client missed more rounds than it may catch up: it needs the dense common model."""


class ForeignUpdateError(ProtocolError):
    """A round combined an update in this client's name that is not the one it holds."""


class Client:
    """One client of a federation.

    Args:
        client_id: as on the roster.
        index: position on the roster; with `seed` it fixes every random draw.
        examples: the private text, tokenised.
        trainer: trains weights; may be shared by clients of one process.
        store: keeps the state between messages.
        start: G_0, used when the store is empty.
        common: G_0 again, or nothing where the method has no common model.
        codec: what is exchanged; None for no exchange.
        channel: conversation with the enclave; None for no exchange.
        weighted: whether the client counts by its examples; all count alike otherwise.
        seed: of the run.
        max_lag: most rounds to catch up one by one.
    """

    def __init__(
        self,
        client_id: str,
        index: int,
        examples: Sequence[Example],
        *,
        trainer: Trainer,
        store: ClientStore,
        start: Weights,
        common: Weights,
        codec: Codec | None,
        channel: Channel | None,
        weighted: bool,
        seed: int,
        max_lag: int,
    ) -> None:
        self.id, self._index, self._examples = client_id, index, examples
        self._trainer, self._store, self._codec, self._channel = trainer, store, codec, channel
        self._seed, self._max_lag = seed, max_lag
        self._shares = min(len(examples), MAX_EXAMPLES) if weighted else 1
        self.state = store.load() or ClientState(dict(start), dict(common))
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.exchanged: dict[str, tuple[float, float]] = {}
        """Squared norms of each tensor's drift before and after the last exchange that combined this client's."""
        self._next: tuple[int, Exchange, bytes] | None = None

    @property
    def channel(self) -> Channel:
        """The conversation with the enclave; raises `ProtocolError` where nothing is exchanged."""
        if self._channel is None:
            raise ProtocolError("this method exchanges nothing")
        return self._channel

    @property
    def position(self) -> Position:
        """Last round adopted, its manifest's hash, and the digest of what the next exchange rests on."""
        return Position(self.state.round, self.state.manifest_hash, self._upcoming[1])

    @property
    def _upcoming(self) -> tuple[Exchange, bytes]:
        """The exchange after the last one adopted, and the digest of what it rests on."""
        assert self._codec is not None
        number = self.state.round + 1
        if self._next is None or self._next[0] != number:
            exchange = self._codec.at(self._seed, number)
            self._next = (number, exchange, exchange.digest(self.state.common))
        return self._next[1:]

    @property
    def _standing(self) -> Position:
        """What the enclave is told: the newest round this client has seen, be it adopted yet or not."""
        if self.state.acknowledged <= self.state.round:
            return self.position
        return Position(self.state.acknowledged, self.state.acknowledged_hash, NO_HASH)

    def greet(self) -> None:
        """Verify the enclave and catch up with rounds this client missed.

        Raises:
            BehindError: too many rounds missed, or their keys are gone.
            AttestationError, ProtocolError: this client sends nothing.
        """
        welcome = self.channel.hello(self._standing)
        if welcome.round - self.state.round > self._max_lag:
            raise BehindError(f"client {self.id} is {welcome.round - self.state.round} rounds behind")
        if welcome.round > self.state.round:
            try:
                self.adopt()
            except RoundsGoneError as error:
                raise BehindError(f"client {self.id} cannot catch up: {error.message}") from error
            self.channel.hello(self._standing)

    def train(self, number: int, *, epochs: bool = True, report: Report | None = None) -> None:
        """Train for round `number` and store the coded drift, unless that was done before a crash.

        `epochs=False` skips training: an exchange of what earlier exchanges left. Where anything fails, weights that
        cannot be coded or a full disk, this client is as before.
        """
        if self.state.trained >= number:
            return
        started = time.perf_counter()
        state = replace(self.state, trained=number)
        if epochs:
            result = self._trainer.train(
                *(state.weights, state.optimizer, self._examples),
                seed=(self._seed, self._index, number),
                report=partial(report, "training") if report else None,
            )
            state.weights, state.optimizer, state.loss = result.weights, result.optimizer, result.loss
        self.seconds["training"] += time.perf_counter() - started
        if self._codec is not None:
            if report:
                report("encoding", 0, 1)
            state.pending = self._encode(number, state.weights)
            if report:
                report("encoding", 1, 1)
        self._store.save(state)
        self.state = state

    def _encode(self, number: int, weights: Weights) -> Update:
        started = time.perf_counter()
        rng = np.random.default_rng([self._seed, number])  # the same for all: equal drifts give equal messages
        exchange, digest = self._upcoming
        body = exchange.encode(weights, self.state.common, rng)
        self.seconds["encoding"] += time.perf_counter() - started
        return Update(number, digest, self._shares, os.urandom(32), body)

    def contribute(self) -> str:
        """Seal and send the stored update; return the receipt's status.

        An update that is not accepted stays stored: until the next manifest nobody knows whether it counts. An enclave
        that was verified too long ago is verified again first.
        """
        if self.state.pending is None:
            return "adopted"  # a crash came after adoption
        if self.state.pending.round <= self.state.acknowledged:
            return "late"  # whoever has it repeated could subtract the one result from the other
        if self.channel.stale:  # training took longer than evidence counts
            self.channel.hello(self._standing)
        started = time.perf_counter()
        status = self.channel.upload(self.state.pending)
        self.seconds["sealing"] += time.perf_counter() - started
        return status

    def adopt(self) -> None:
        """Take over every round released since the last one this client adopted; raises `NotReleasedError`."""
        self.acknowledge()
        started = time.perf_counter()
        before = self.state.round
        try:
            for manifest, aggregate in self.channel.sync(self.position, self.state.acknowledged_hash):
                self._apply(manifest, aggregate)
        finally:
            if self.state.round > before:
                self._store.save(self.state)
        self.seconds["decoding"] += time.perf_counter() - started

    def acknowledge(self) -> None:
        """Where the terms ask for it: store the newest manifest's hash, then tell the enclave that it is stored."""
        if not self.channel.acknowledges:
            return
        state = self.state
        number, manifest_hash = self.channel.newest(self.position, state.acknowledged_hash)
        if number < state.acknowledged or (number == state.acknowledged and manifest_hash != state.acknowledged_hash):
            raise ProtocolError(f"round {number}: another history than this client has acknowledged")
        if number > max(state.acknowledged, state.round):
            acknowledged = replace(state, acknowledged=number, acknowledged_hash=manifest_hash)
            self._store.save(acknowledged)
            self.state = acknowledged
            self.channel.newest(self.position, manifest_hash)

    def _apply(self, manifest: Manifest, aggregate: Aggregate) -> None:
        """Subtract the own update if and only if the manifest lists it."""
        exchange, digest = self._upcoming
        if manifest.common_digest != digest:
            raise ProtocolError(f"round {manifest.round}: its updates started from another common model or partition")
        pending, listed = self.state.pending, dict(manifest.uploads).get(self.id)
        mine = pending is not None and pending.round == manifest.round and pending.commitment == listed
        if listed is not None and not mine:
            raise ForeignUpdateError(
                f"round {manifest.round}: the manifest lists an update this client did not send",
                "go on with the copy of this client's folder that sent it; if none of yours did, somebody has its key",
            )
        own = pending.body if pending is not None and mine else None
        before = energies(self.state.weights, self.state.common) if mine else {}
        weights, common = exchange.adopt(self.state.weights, self.state.common, aggregate.body, own)
        if before:
            after = energies(weights, common)
            self.exchanged = {name: (before[name], after[name]) for name in before}
        if pending is not None and pending.round <= manifest.round:
            pending = None
        self.state = replace(  # at once: interrupted anywhere, what `adopt` stores is of one round
            self.state,
            weights=weights,
            common=common,
            round=manifest.round,
            manifest_hash=manifest.hash,
            pending=pending,
        )

    def ask_common(self, sponsor: Sponsor) -> None:
        """Take the dense common model from another client and start from it.

        Without a common model (variant `paper`) there is nothing to take: the client keeps its weights and goes on from
        the newest round, as it would have after adopting rounds that it had no part in.

        Raises:
            ProtocolError: the sponsor's model is not the one most clients hold, or too few have said what that is.
        """
        welcome = self.channel.hello(self._standing)
        if self.channel.acknowledges and welcome.round > self.state.acknowledged:  # its key may wait for this client
            self.state = replace(self.state, acknowledged=welcome.round, acknowledged_hash=welcome.manifest_hash)
            self._store.save(self.state)
            welcome = self.channel.hello(self._standing)
        if not self.state.common:
            self._go_on_from(welcome)
            return
        if welcome.common_digest == NO_HASH:
            raise ProtocolError("too few clients have said yet which common model they hold", "it is tried again")
        request = CommonRequest.new(self.channel, welcome.round)
        reply = self.channel.link.ask_common(request.signed, sponsor.share_common)
        common = CommonReply.open(reply, request, sponsor.id, self.channel.config, self.state.common)
        assert self._codec is not None
        if self._codec.at(self._seed, welcome.round + 1).digest(common) != welcome.common_digest:
            raise ProtocolError(f"client {sponsor.id} offers another common model than most clients hold")
        self.state.weights, self.state.common = dict(common), common
        self._go_on_from(welcome)

    def _go_on_from(self, welcome: Welcome) -> None:
        self.state.round, self.state.manifest_hash = welcome.round, welcome.manifest_hash
        self.state.pending = None
        self._store.save(self.state)
        self.channel.hello(self.position)

    def share_common(self, request: bytes) -> bytes:
        """Answer another client's `ask_common`: G sealed to that client, signed by this one."""
        return self.channel.link.answer_common(CommonReply.make(request, self.channel, self.state.common))
