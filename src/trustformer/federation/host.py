# SPDX-License-Identifier: Apache-2.0
"""The untrusted machine around the enclave: carries messages it cannot read and keeps what is released.

It may drop, delay, repeat or reorder; it cannot read or alter a contribution. A deployment replaces `Host` by a
network; clients, messages and enclave stay the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from trustformer.attestation.files import put
from trustformer.enclave.protocol import MAX_MESSAGE, Manifest, Sync, Synced, split_signed
from trustformer.enclave.session import Enclave
from trustformer.errors import MessageError, RoundsGoneError
from trustformer.federation.connection import MAX_BODY, EnclaveConnection
from trustformer.federation.ledger import Ledger, named
from trustformer.message import Reader, digest, enc

_BETWEEN = 2
"""Rounds that may be closed between a client's hello and its request for those it missed."""


class Host:
    """Relays to one enclave and keeps manifests and sealed aggregates for clients that missed them.

    Args:
        enclave: answers requests, in this process or in one of its own.
        folder: where each round's manifest and sealed aggregate are kept, for catch-up and audit.
        ledger: counts every message.
        max_lag: most rounds that a client catches up one by one.
        collateral: gives the collateral of a quote that comes without: an enclave has no network.
    """

    def __init__(
        self,
        enclave: Enclave | EnclaveConnection,
        folder: Path,
        ledger: Ledger,
        *,
        max_lag: int,
        collateral: Callable[[bytes], bytes] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._enclave, self._folder, self._ledger, self._collateral = enclave, folder, ledger, collateral
        self._most = max_lag + _BETWEEN
        self.seconds = 0.0

    @property
    def round(self) -> int:
        """The last round closed."""
        return self._enclave.round

    @property
    def accepted(self) -> tuple[str, ...]:
        """Clients whose update of the open round was accepted."""
        return self._enclave.accepted

    @property
    def limit(self) -> int:
        """Bytes of the longest request that the enclave takes from a client, by the run's terms."""
        return self._enclave.limit if isinstance(self._enclave, EnclaveConnection) else MAX_BODY

    def link(self, client_id: str) -> Link:
        """Return one client's connection."""
        return Link(self, client_id, self._ledger)

    def close(self, number: int) -> None:
        """End a round: the enclave combines what arrived, and the result is kept.

        Raises:
            ProtocolError: too few updates; nothing was released.
        """
        started = time.perf_counter()
        released = self._enclave.close(number)
        self._keep(number, enc(released.manifest, released.aggregate))
        self.seconds += time.perf_counter() - started

    def _keep(self, number: int, data: bytes) -> None:
        temporary = self._path(number).with_suffix(".new")
        with named(temporary), open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        put(temporary, self._path(number))

    def _path(self, number: int) -> Path:
        return self._folder / f"round-{number:05d}.sealed"

    def kept(self, number: int) -> bytes:
        """The released data of one round, for `split_kept`; raises `RoundsGoneError` if it is lost or damaged."""
        data = self._whole(number)
        if data is None and number == self.round:
            self.close(number)  # a crash between release and keep: the enclave gives the same answer again
            data = self._whole(number)
        if data is None:
            raise RoundsGoneError(f"the host has lost the released data of round {number}", "take a dense G")
        return data

    def _whole(self, number: int) -> bytes | None:
        try:
            data = self._path(number).read_bytes()
            signed, sealed = split_kept(data, len(data))
            manifest = Manifest.from_bytes(split_signed(signed, "manifest")[0])
        except (FileNotFoundError, MessageError):
            return None
        return data if (manifest.round, manifest.aggregate_digest) == (number, digest(sealed)) else None

    def hello(self, request: bytes) -> bytes:
        """Relay a hello, and put the collateral beside a quote that comes without.

        Raises:
            TrustformerError: there is none to be had.
        """
        reply = self._enclave.hello(request)
        return reply if self._collateral is None else with_collateral(reply, self._collateral)

    def upload(self, request: bytes) -> bytes:
        """Relay an upload."""
        started = time.perf_counter()
        reply = self._enclave.upload(request)
        self.seconds += time.perf_counter() - started
        return reply

    def sync(self, request: bytes, after: int, *, manifests_only: bool = False) -> bytes:
        """Relay a request for missed rounds and attach their manifests and, unless told not to, sealed aggregates.

        Of a round whose key is not given yet the aggregate stays here: the client will have to ask again.

        Raises:
            MessageError: `after` is not the round that the signed request names: it says how much is attached.
            RoundsGoneError: they are more than a client catches up, and than this machine's memory is for.
        """
        signed = Sync.from_bytes(split_signed(request, "sync")[0]).round
        if after != signed:
            raise MessageError(
                f"sync: comes as for the rounds after {after}, but is signed for those after {signed}",
                "send the round of the signed request beside it",
            )
        if self.round - after > self._most:
            raise RoundsGoneError(f"{self.round - after} rounds are more than are given at once", "take a dense G")
        synced = self._enclave.sync(request)
        keys = dict(enumerate(Synced.from_bytes(split_signed(synced, "synced")[0]).rounds, after + 1))
        kept = []
        for number in range(after + 1, self.round + 1):
            data = self.kept(number)
            readable = not manifests_only and number in keys and keys[number][1]
            kept.append(data if readable else enc(split_kept(data, len(data))[0], b""))
        return enc(synced, *kept)


class Link:
    """One client's connection to the host; the only place where its bytes are counted."""

    def __init__(self, host: Host, client_id: str, ledger: Ledger) -> None:
        self._host, self._client, self._ledger = host, client_id, ledger

    def hello(self, request: bytes) -> bytes:
        """Send a hello, receive a welcome."""
        return self._down("hello", self._host.hello(self._up("hello", request)))

    def upload(self, request: bytes) -> bytes:
        """Send a sealed update, receive a receipt."""
        return self._down("upload", self._host.upload(self._up("upload", request)))

    def sync(self, request: bytes, after: int, *, manifests_only: bool = False) -> bytes:
        """Ask for the rounds after `after`; receive keys, manifests and sealed aggregates."""
        kind = "manifests" if manifests_only else "sync"
        return self._down(kind, self._host.sync(self._up(kind, request), after, manifests_only=manifests_only))

    def ask_common(self, request: bytes, answer: Callable[[bytes], bytes]) -> bytes:
        """Ask another client, through the host, for the dense common model."""
        return self._down("common", answer(self._up("common", request)))

    def answer_common(self, reply: bytes) -> bytes:
        """Send the sealed common model to another client, through the host."""
        return self._up("common", reply)

    def _up(self, kind: str, data: bytes) -> bytes:
        self._ledger.add(self._client, "up", kind, len(data))
        return data

    def _down(self, kind: str, data: bytes) -> bytes:
        self._ledger.add(self._client, "down", kind, len(data))
        return data


def split_kept(data: bytes, limit: int) -> tuple[bytes, bytes]:
    """Return signed manifest and sealed aggregate of one kept round; raises `MessageError`."""
    reader = Reader(data, "released round")
    manifest, aggregate = reader.raw(limit=limit), reader.raw(limit=limit)
    reader.end()
    return manifest, aggregate


def with_collateral(reply: bytes, collateral: Callable[[bytes], bytes]) -> bytes:
    """Return the reply to a hello with collateral beside its quote, unless it has some or no quote; `MessageError`."""
    reader = Reader(reply, "welcome")
    welcome, evidence = reader.raw(limit=MAX_MESSAGE), reader.raw(limit=2 * MAX_MESSAGE)
    reader.end()
    if not evidence:
        return reply
    reader = Reader(evidence, "evidence")
    kind, quote, held = reader.text(), reader.raw(limit=MAX_MESSAGE), reader.raw(limit=MAX_MESSAGE)
    reader.end()
    return reply if held else enc(welcome, enc(kind, quote, collateral(quote)))
