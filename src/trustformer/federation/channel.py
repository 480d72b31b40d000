# SPDX-License-Identifier: Apache-2.0
"""A client's half of tfl/1: it believes the enclave it has verified, its own history, and nobody else."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from trustformer.attestation.errors import Refusal
from trustformer.attestation.evidence import Binding, Evidence, Kind
from trustformer.attestation.handshake import (
    VerificationRecord,
    appraise,
    check_config,
    check_progress,
    check_signature,
)
from trustformer.attestation.policy import Policy
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import (
    MAX_MESSAGE,
    NO_HASH,
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
from trustformer.errors import NotReleasedError, ProtocolError, SealError
from trustformer.federation.host import split_kept
from trustformer.federation.interfaces import Journal, Transport
from trustformer.message import Aggregate, Reader, Update, digest
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import (
    SUITE_NAME,
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


NO_BOOT = bytes(16)
"""In a hello: no boot of the enclave is known, so evidence is wanted."""
VERIFY_AGAIN = 24 * 3600.0
"""Seconds after which evidence of the same boot is asked for again: what vouches for it may have been revoked."""


class Channel:
    """One client's conversation with one enclave.

    Args:
        client_id: as on the roster.
        identity: the client's signing key.
        config: the terms this client agreed to.
        policy: what this client lets read its updates.
        link: carries the bytes.
        journal: keeps verification records, welcomes and receipts.
    """

    def __init__(
        self,
        client_id: str,
        identity: Identity,
        config: RunConfig,
        *,
        policy: Policy,
        link: Transport,
        journal: Journal,
    ) -> None:
        self.client_id, self.identity, self.config = client_id, identity, config
        self.policy, self.link, self.journal = policy, link, journal
        self._welcome: Welcome | None = None
        self._verified_at = 0.0

    @property
    def greeted(self) -> bool:
        """Whether the enclave has been verified since this channel was made."""
        return self._welcome is not None

    @property
    def welcome(self) -> Welcome:
        """The enclave's last welcome; raises `ProtocolError` before the first."""
        if self._welcome is None:
            raise ProtocolError("nothing is sent before the enclave has been verified", "say hello first")
        return self._welcome

    @property
    def stale(self) -> bool:
        """Whether the enclave was verified too long ago, or later than the clock shows now: `hello` does it again."""
        return not 0 <= time.time() - self._verified_at < VERIFY_AGAIN

    def hello(self, position: Position) -> Welcome:
        """Say what this client holds; learn the enclave's keys and where the run stands.

        Raises:
            AttestationError: of the class of the first check that failed: nothing was sent.
            MessageError, SealError, ProtocolError: a reply that is malformed or not an answer to this hello.
        """
        known, verified_at = self._welcome.boot_id if self._welcome and not self.stale else NO_BOOT, self._verified_at
        hello = Hello(
            *(self.config.run_id, self.client_id, os.urandom(32), known),
            *(position.round, position.manifest_hash, position.common_digest),
        )
        reader = Reader(self.link.hello(sign(hello.to_bytes(), self.identity)), "welcome")
        signed, evidence = reader.raw(limit=MAX_MESSAGE), reader.raw(limit=2 * MAX_MESSAGE)
        reader.end()
        body, signature = split_signed(signed, "welcome")
        welcome = Welcome.from_bytes(body)
        if welcome.nonce != hello.nonce:
            raise SealError("welcome: answers another hello")
        check_config(welcome.cfg, self.config.digest)
        if self._welcome is None or welcome.boot_id != known:  # `known` is no boot's where evidence was asked for
            verified_at = self._verify(welcome, hello, evidence)
        elif (welcome.signer, welcome.recipient) != (self._welcome.signer, self._welcome.recipient):
            raise SealError("welcome: other keys for the boot that was verified")
        check_signature(welcome.signer, signature, body)
        check_progress(
            round_=welcome.round,
            manifest=welcome.manifest_hash,
            stored_round=position.round,
            stored_manifest=position.manifest_hash,
        )
        if self._welcome is None or (welcome.boot_id, welcome.round) != (known, self._welcome.round):
            self.journal.welcome(self.client_id, signed)
        self._welcome, self._verified_at = welcome, verified_at
        return welcome

    def _verify(self, welcome: Welcome, hello: Hello, data: bytes) -> float:
        """Appraise the evidence that binds a new boot's keys to this client's nonce; return when that was.

        The record is kept either way.
        """
        reader = Reader(data, "evidence")
        kind = reader.text()
        quote, collateral = reader.raw(limit=MAX_MESSAGE), reader.raw(limit=MAX_MESSAGE + 1)
        reader.end()
        binding = Binding(
            suite=SUITE_NAME,
            run_id=self.config.run_id,
            boot_id=welcome.boot_id,
            pk_e=welcome.recipient,
            vk_e=welcome.signer,
            cfg=self.config.digest,
            client_id=self.client_id,
            nonce=hello.nonce,
        )
        if kind != self.config.provider:
            raise ProtocolError(f"evidence of the provider {kind!r} where the run agreed on {self.config.provider!r}")
        received = Evidence(cast(Kind, kind), quote, collateral or None)
        try:
            record = appraise(received, self.policy, int(time.time()), binding=binding)
        except Refusal as refusal:
            if isinstance(refusal.record, VerificationRecord):
                self.journal.verification(self.client_id, refusal.record)
            raise
        self.journal.verification(self.client_id, record)
        return time.time()

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
        self.journal.receipt(self.client_id, reply)
        if (receipt.client_id, receipt.upload_digest) != (self.client_id, digest(to_sign)):
            raise SealError("receipt: is for another upload")
        return receipt.status

    @property
    def acknowledges(self) -> bool:
        """Whether a round's key waits until clients have acknowledged its manifest."""
        return self.config.release == "acknowledged"

    def newest(self, position: Position, acknowledged: bytes) -> tuple[int, bytes]:
        """Fetch and check the manifests after `position`; return the last one's round and hash.

        Args:
            position: where this client stands.
            acknowledged: hash of the newest manifest this client has stored, which the enclave is told.

        Raises:
            ProtocolError, MessageError, SealError: as for `sync`.
        """
        number, manifest_hash = position.round, position.manifest_hash
        for manifest, _, _ in self._missed(position, acknowledged, RecipientKey(), manifests_only=True):
            number, manifest_hash = manifest.round, manifest.hash
        return number, manifest_hash

    def sync(self, position: Position, acknowledged: bytes = NO_HASH) -> Iterator[tuple[Manifest, Aggregate]]:
        """Yield manifest and aggregate of every round after `position`, each checked before it is given.

        Raises:
            NotReleasedError: too few clients have acknowledged the newest round.
            ProtocolError: a break in the chain, too few clients in a round, or rounds that are gone.
            MessageError, SealError: data that is malformed, altered, or not the enclave's.
        """
        size, key = body_size(self.config.answer), RecipientKey()
        length = len(Aggregate(0, b"").to_bytes()) + size
        for manifest, wrapped, sealed in self._missed(position, acknowledged, key):
            if not wrapped:
                message = f"round {manifest.round}: too few clients have acknowledged it"
                raise NotReleasedError(message, "ask again when more clients have")
            round_key = key.unwrap(wrapped, Synced.info(manifest.hash, self.client_id))
            aggregate = Aggregate.from_bytes(decrypt_chunks(round_key, sealed, length), size)
            if aggregate.round != manifest.round:
                raise SealError(f"aggregate: of round {aggregate.round} where {manifest.round} is due")
            yield manifest, aggregate

    def _missed(
        self, position: Position, acknowledged: bytes, key: RecipientKey, *, manifests_only: bool = False
    ) -> Iterator[tuple[Manifest, bytes, bytes]]:
        """Yield checked manifest, wrapped key and, with a key, sealed aggregate of every round after `position`."""
        welcome = self.welcome
        ask = Sync(
            run_id=self.config.run_id,
            boot_id=welcome.boot_id,
            client_id=self.client_id,
            round=position.round,
            manifest_hash=position.manifest_hash,
            recipient=key.public,
            acknowledged=acknowledged,
        )
        request = sign(ask.to_bytes(), self.identity)
        reply = self.link.sync(request, position.round, manifests_only=manifests_only)
        reader = Reader(reply, "sync reply")
        synced = Synced.from_bytes(signed_body(reader.raw(limit=MAX_MESSAGE), welcome.signer, "synced"))
        if synced.request_digest != digest(request):
            raise SealError("synced: answers another request")
        length = len(Aggregate(0, b"").to_bytes()) + body_size(self.config.answer)
        number, previous = position.round, position.manifest_hash
        for manifest_hash, wrapped in synced.rounds:
            kept = reader.raw(limit=MAX_MESSAGE + sealed_length(length))
            signed, sealed = split_kept(kept, MAX_MESSAGE + sealed_length(length))
            manifest = Manifest.from_bytes(split_signed(signed, "manifest")[0])
            number += 1
            self._check(manifest, manifest_hash, number, previous)
            if wrapped and not manifests_only and manifest.aggregate_digest != digest(sealed):
                raise SealError(f"round {number}: manifest or aggregate is not the one the enclave released")
            previous = manifest_hash
            yield manifest, wrapped, sealed
        reader.end()

    def _check(self, manifest: Manifest, manifest_hash: bytes, number: int, previous: bytes) -> None:
        """The enclave signed `manifest_hash`; everything else follows from it."""
        if manifest.hash != manifest_hash:
            raise SealError(f"round {number}: manifest or aggregate is not the one the enclave released")
        if (manifest.run_id, manifest.cfg) != (self.config.run_id, self.config.digest):
            raise ProtocolError(f"round {number}: the manifest belongs to another run")
        if (manifest.round, manifest.previous) != (number, previous):
            raise ProtocolError(f"round {number}: the manifest does not follow the last one this client holds")
        if len(manifest.uploads) < self.config.min_clients:
            raise ProtocolError(f"round {number}: combines {len(manifest.uploads)} clients, fewer than agreed")
