# SPDX-License-Identifier: Apache-2.0
"""A client's half of tfl/1: it believes the enclave it has verified, its own history, and nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import (
    MAX_MESSAGE,
    NO_BOOT,
    Hello,
    Manifest,
    Receipt,
    SealedUpdate,
    Sync,
    Synced,
    UploadHeader,
    Welcome,
    sign,
    signed_body,
    split_signed,
)
from trustformer.errors import ProtocolError, SealError
from trustformer.federation.host import Link, split_kept
from trustformer.message import Aggregate, Reader, Update, digest
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import (
    RecipientKey,
    decrypt_chunks,
    encrypt_chunks,
    new_content_key,
    sealed_length,
    wrap_key,
)
from trustformer.vq import body_size


@dataclass(frozen=True)
class Position:
    """Where a client stands: the last round it adopted, the hash of its manifest, the digest of its G."""

    round: int
    manifest_hash: bytes
    common_digest: bytes


class Channel:
    """One client's conversation with one enclave.

    Args:
        client_id: as on the roster.
        identity: the client's signing key.
        config: the terms this client agreed to.
        link: carries the bytes.
    """

    def __init__(self, client_id: str, identity: Identity, config: RunConfig, link: Link) -> None:
        self.client_id, self.identity, self.config, self.link = client_id, identity, config, link
        self._welcome: Welcome | None = None

    @property
    def welcome(self) -> Welcome:
        """The enclave's last welcome; raises `ProtocolError` before the first."""
        if self._welcome is None:
            raise ProtocolError("nothing is sent before the enclave has been verified", "say hello first")
        return self._welcome

    def hello(self, position: Position) -> Welcome:
        """Say what this client holds; learn the enclave's keys and where the run stands.

        Raises:
            ProtocolError: other terms than agreed, or a run that lies behind this client (rollback) or beside it.
            MessageError, SealError: a reply that is malformed or not signed by the enclave.
        """
        known = self._welcome.boot_id if self._welcome else NO_BOOT
        nonce = os.urandom(32)
        hello = Hello(
            *(self.config.run_id, self.client_id, nonce, known),
            *(position.round, position.manifest_hash, position.common_digest),
        )
        reader = Reader(self.link.hello(sign(hello.to_bytes(), self.identity)), "welcome")
        signed, _evidence = reader.raw(limit=MAX_MESSAGE), reader.raw(limit=2 * MAX_MESSAGE)
        reader.end()
        welcome = Welcome.from_bytes(split_signed(signed, "welcome")[0])
        signed_body(signed, welcome.signer, "welcome")
        if self._welcome and welcome.boot_id == known and welcome.signer != self._welcome.signer:
            raise SealError("welcome: another key for the boot that was verified")
        if welcome.nonce != nonce:
            raise SealError("welcome: answers another hello")
        if welcome.cfg != self.config.digest:
            raise ProtocolError(
                "welcome: the enclave runs under other terms than this client agreed to",
                "compare roster, min_clients, rounds and layouts with the operator",
            )
        if welcome.round < position.round or (
            welcome.round == position.round and welcome.manifest_hash != position.manifest_hash
        ):
            raise ProtocolError("welcome: the enclave's history is not the one this client took part in")
        self._welcome = welcome
        return welcome

    def upload(self, update: Update) -> str:
        """Seal an update to the enclave and send it; return the receipt's status.

        Raises:
            MessageError, SealError: a receipt that is malformed or not the enclave's for this upload.
        """
        welcome, payload = self.welcome, update.to_bytes()
        header = UploadHeader(
            *(self.config.run_id, welcome.boot_id, welcome.cfg, update.round, welcome.attempt),
            *(self.client_id, len(payload)),
        )
        content_key = new_content_key()
        wrap = wrap_key(content_key, welcome.recipient, header.info)
        chunks = encrypt_chunks(content_key, payload)
        to_sign = SealedUpdate.to_sign(header.to_bytes(), wrap, chunks)
        sealed = SealedUpdate(header.to_bytes(), wrap, self.identity.sign(to_sign), chunks)
        reply = self.link.upload(sealed.to_bytes())
        receipt = Receipt.from_bytes(signed_body(reply, welcome.signer, "receipt"))
        if (receipt.client_id, receipt.upload_digest) != (self.client_id, digest(to_sign)):
            raise SealError("receipt: is for another upload")
        return receipt.status

    def sync(self, position: Position) -> Iterator[tuple[Manifest, Aggregate]]:
        """Yield manifest and aggregate of every round after `position`, each checked before it is given.

        Raises:
            ProtocolError: a break in the chain, too few clients in a round, or rounds that are gone.
            MessageError, SealError: data that is malformed, altered, or not the enclave's.
        """
        welcome, key = self.welcome, RecipientKey()
        ask = Sync(
            *(self.config.run_id, welcome.boot_id, self.client_id),
            *(position.round, position.manifest_hash, key.public),
        )
        request = sign(ask.to_bytes(), self.identity)
        reader = Reader(self.link.sync(request, position.round), "sync reply")
        synced = Synced.from_bytes(signed_body(reader.raw(limit=MAX_MESSAGE), welcome.signer, "synced"))
        if synced.request_digest != digest(request):
            raise SealError("synced: answers another request")
        size = body_size(self.config.answer)
        length = len(Aggregate(0, b"").to_bytes()) + size
        number, previous = position.round, position.manifest_hash
        for manifest_hash, wrapped in synced.rounds:
            kept = reader.raw(limit=MAX_MESSAGE + sealed_length(length))
            signed, sealed = split_kept(kept, MAX_MESSAGE + sealed_length(length))
            manifest = Manifest.from_bytes(split_signed(signed, "manifest")[0])
            number += 1
            self._check(manifest, manifest_hash, number, previous, sealed)
            previous = manifest_hash
            round_key = key.unwrap(wrapped, Synced.info(manifest_hash, self.client_id))
            aggregate = Aggregate.from_bytes(decrypt_chunks(round_key, sealed, length), size)
            if aggregate.round != number:
                raise SealError(f"aggregate: of round {aggregate.round} where {number} is due")
            yield manifest, aggregate
        reader.end()

    def _check(self, manifest: Manifest, manifest_hash: bytes, number: int, previous: bytes, sealed: bytes) -> None:
        """The enclave signed `manifest_hash`; everything else follows from it."""
        if manifest.hash != manifest_hash or manifest.aggregate_digest != digest(sealed):
            raise SealError(f"round {number}: manifest or aggregate is not the one the enclave released")
        if (manifest.run_id, manifest.cfg) != (self.config.run_id, self.config.digest):
            raise ProtocolError(f"round {number}: the manifest belongs to another run")
        if (manifest.round, manifest.previous) != (number, previous):
            raise ProtocolError(f"round {number}: the manifest does not follow the last one this client holds")
        if len(manifest.uploads) < self.config.min_clients:
            raise ProtocolError(f"round {number}: combines {len(manifest.uploads)} clients, fewer than agreed")
