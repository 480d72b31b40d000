# SPDX-License-Identifier: Apache-2.0
"""The enclave's state machine: hello, upload, close, sync.

    u = Σ p_i decode(e_i) + c s        ē = E'(u)        s <- u - decode(ē)        c: `carry` after training, else 1

A request from a client is parsed, bounded and checked against its signature before anything else happens. What a
refusal says never depends on what was inside a sealed update, and a client's refusal never ends a round.
"""

from __future__ import annotations

import os

import numpy as np

from trustformer.aggregation import PrivateMean, TrimmedMean, WeightedMean
from trustformer.attestation.evidence import Attester, Binding
from trustformer.enclave.answer import express
from trustformer.enclave.config import RunConfig
from trustformer.enclave.history import History
from trustformer.enclave.protocol import (
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
from trustformer.enclave.state import Released, State, StateStore
from trustformer.errors import MessageError, ProtocolError, RoundsGoneError, SealError
from trustformer.message import Aggregate, Update, digest, enc
from trustformer.secure.identity import Identity, verify
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

KEPT_ROUNDS = 1024
"""Round keys kept for clients that catch up."""


class Enclave:
    """One boot of the aggregator. Keys are drawn here and die with the object.

    Args:
        config: the run's terms.
        store: the state that outlives a boot.
        attester: quotes the keys of this boot for each client.
    """

    def __init__(self, config: RunConfig, store: StateStore, attester: Attester) -> None:
        config.check()
        self._config, self._store, self._attester = config, store, attester
        self._cfg = config.digest
        self.boot_id = os.urandom(16)
        self._recipient, self._signer = RecipientKey(), Identity.generate()
        self._payload_length = Update.length(body_size(config.upload))
        self._state = store.load() or State(0, (), b"", None)
        self._history = History(config)
        self._residual_reset, self._attempt = False, 1
        self._open_round()

    def _open_round(self) -> None:
        self._combined: State | None = None  # combined, but not stored yet: the sums are given up by then
        self._accepted: dict[str, tuple[bytes, bytes]] = {}  # client -> (ciphertext digest, commitment)
        self._common = b""  # digest of the G that all of them started from
        config, norm = self._config, self._config.max_norm_milli / 1e3
        self._mean: WeightedMean | TrimmedMean
        if config.rule == "trimmed_mean":
            self._mean = TrimmedMean(config.upload, config.trim_ppm, norm)
        elif config.rule == "private_mean":
            self._mean = PrivateMean(config.upload, config.expected_milli / 1e3, config.noise_micro / 1e6, norm)
        else:
            self._mean = WeightedMean(config.upload, config.max_share_ppm / 1e6, norm, clients=len(config.roster))

    @property
    def round(self) -> int:
        """The last round closed."""
        return self._state.round

    @property
    def accepted(self) -> tuple[str, ...]:
        """Clients whose update of the open round was accepted."""
        return tuple(sorted(self._accepted))

    @property
    def _position(self) -> tuple[int, bytes]:
        return self._state.round, self._state.keys[-1][0] if self._state.keys else NO_HASH

    # ---- hello ----

    def hello(self, request: bytes) -> bytes:
        """Answer a `Hello` with a signed `Welcome` and, where the client needs it, evidence.

        Raises:
            MessageError, SealError: malformed, or not by the client it names.
            ProtocolError: another run; not on the roster; or the client holds a history that this boot does not
                have and too few others confirm (yet).
        """
        hello = Hello.from_bytes(split_signed(request, "hello")[0])
        if hello.run_id != self._config.run_id:
            raise ProtocolError("hello: belongs to another run")
        signed_body(request, self._config.key_of(hello.client_id), "hello")
        if self._hash_of(hello.round) not in (None, hello.manifest_hash):
            raise ProtocolError(f"hello: the client holds another history of round {hello.round}", "the host forked it")
        if newer := self._history.hear(hello, self._position):
            number, manifest_hash = newer
            self._state, self._residual_reset = State(number, ((manifest_hash, NO_HASH),), b"", None), True
            self._open_round()
        evidence = b"" if hello.boot_id == self.boot_id else self._evidence(hello)
        welcome = Welcome(
            boot_id=self.boot_id,
            recipient=self._recipient.public,
            signer=self._signer.public,
            cfg=self._cfg,
            round=self._state.round,
            attempt=self._attempt,
            manifest_hash=self._position[1],
            common_digest=self._history.common_digest(self._position, self._config.vouchers),
            nonce=hello.nonce,
        )
        return enc(sign(welcome.to_bytes(), self._signer), evidence)

    def _evidence(self, hello: Hello) -> bytes:
        binding = Binding(
            suite=SUITE_NAME,
            run_id=hello.run_id,
            boot_id=self.boot_id,
            pk_e=self._recipient.public,
            vk_e=self._signer.public,
            cfg=self._cfg,
            client_id=hello.client_id,
            nonce=hello.nonce,
        )
        evidence = self._attester.evidence(binding.report_data())
        return enc(evidence.kind, evidence.quote, evidence.collateral or b"")

    # ---- upload ----

    def upload(self, request: bytes) -> bytes:
        """Take one sealed update; answer with a signed `Receipt`.

        Raises:
            MessageError, SealError, ProtocolError: not attributable to a client of this run and boot. All else
                is said in the receipt: accepted, late, stale, duplicate or refused.
        """
        upload = SealedUpdate.from_bytes(request, sealed_length(self._payload_length))
        header = UploadHeader.from_bytes(upload.header)
        key = self._config.key_of(header.client_id)
        if (header.run_id, header.boot_id, header.cfg) != (self._config.run_id, self.boot_id, self._cfg):
            raise ProtocolError("upload: belongs to another run or boot", "say hello again")
        to_sign = SealedUpdate.to_sign(upload.header, upload.wrap, upload.chunks)
        verify(key, upload.signature, to_sign, "upload")
        upload_digest = digest(to_sign)
        place = (header.run_id, header.boot_id, header.round, header.attempt, header.client_id)
        receipt = Receipt(*place, upload_digest, self._take(header, upload, upload_digest))
        return sign(receipt.to_bytes(), self._signer)

    def _take(self, header: UploadHeader, upload: SealedUpdate, upload_digest: bytes) -> str:
        known = self._accepted.get(header.client_id)
        if header.round <= self._state.round or (self._combined and known is None):
            return "late"
        if header.round != self._state.round + 1 or header.attempt != self._attempt:
            return "stale"
        if header.round > self._config.rounds or header.payload_length != self._payload_length:
            return "refused"
        if known is not None and known[0] == upload_digest:
            return "accepted"
        try:
            update = self._open(header, upload)
            if known is not None:
                return "accepted" if known[1] == update.commitment else "duplicate"
            common = self._common or self._history.common_digest(self._position)
            if update.round != header.round or update.common_digest != common or common == NO_HASH:
                return "refused"
            self._mean.add(update.num_examples, update.body)
        except (MessageError, SealError):
            return "refused"
        self._accepted[header.client_id], self._common = (upload_digest, update.commitment), common
        return "accepted"

    def _open(self, header: UploadHeader, upload: SealedUpdate) -> Update:
        content_key = self._recipient.unwrap(upload.wrap, header.info)
        payload = decrypt_chunks(content_key, upload.chunks, self._payload_length)
        return Update.from_bytes(payload, body_size(self._config.upload))

    # ---- close ----

    def close(self, number: int) -> Released:
        """Combine what was accepted in round `number` and release it; asking again gives the same answer.

        Raises:
            ProtocolError: another round; or fewer than `min_clients` updates: nothing is released, what was
                accepted is dropped and the next attempt begins.
        """
        if number == self._state.round and self._state.released is not None:
            return self._state.released
        if number != self._state.round + 1:
            raise ProtocolError(f"close: round {number}, but the last round closed is {self._state.round}")
        if len(self._accepted) < self._config.min_clients:
            count, self._attempt = len(self._accepted), self._attempt + 1
            self._open_round()
            raise ProtocolError(
                f"close: {count} updates in round {number}, {self._config.min_clients} are needed",
                "nothing was released; the clients upload again under a new attempt",
            )
        self._history.confirm(self._position)
        self._combined = state = self._combined or self._combine(number)
        self._store.save(state)  # before anything leaves: a restart must not release a second result
        self._state, self._residual_reset, self._attempt = state, False, 1
        self._history.advance()
        self._open_round()
        assert self._state.released is not None
        return self._state.released

    def _combine(self, number: int) -> State:
        config = self._config
        rng = np.random.default_rng([config.seed, number])
        share = config.carry_ppm / 1e6 if number <= config.trained else 1.0
        body, residual = express(config.answer, self._mean.result(), self._state.residual, rng, share)
        round_key = new_content_key()
        sealed = encrypt_chunks(round_key, Aggregate(number, body).to_bytes())
        manifest = Manifest(
            run_id=config.run_id,
            boot_id=self.boot_id,
            cfg=self._cfg,
            round=number,
            attempt=self._attempt,
            previous=self._position[1],
            common_digest=self._common,
            uploads=tuple((client, self._accepted[client][1]) for client in sorted(self._accepted)),
            aggregate_digest=digest(sealed),
            residual_reset=self._residual_reset,
        )
        keys = (*self._state.keys, (manifest.hash, round_key))[-KEPT_ROUNDS:]
        return State(number, keys, residual, Released(sign(manifest.to_bytes(), self._signer), sealed))

    # ---- sync ----

    def sync(self, request: bytes) -> bytes:
        """Answer a `Sync` with the round keys a client lacks, wrapped to a fresh key of its own.

        Where the terms say `acknowledged`, the newest round's key is left out until enough clients have shown that
        they know its manifest: the host could otherwise have the round done again without one of them, and subtract.

        Raises:
            MessageError, SealError: malformed, or not by the client it names.
            ProtocolError: another run or boot, or a history that is not this run's.
            RoundsGoneError: the keys are no longer here.
        """
        ask = Sync.from_bytes(split_signed(request, "sync")[0])
        signed_body(request, self._config.key_of(ask.client_id), "sync")
        if (ask.run_id, ask.boot_id) != (self._config.run_id, self.boot_id):
            raise ProtocolError("sync: belongs to another run or boot", "say hello again")
        missing = self._state.round - ask.round
        if missing < 0:
            raise ProtocolError("sync: the client holds more rounds than this boot knows", "say hello again")
        entries = self._state.keys[len(self._state.keys) - missing :] if missing else ()
        before = NO_HASH if ask.round == 0 else self._hash_of(ask.round)
        if len(entries) < missing or any(key == NO_HASH for _, key in entries) or before is None:
            raise RoundsGoneError(f"sync: the keys of the rounds after {ask.round} are gone", "take a dense G")
        if before != ask.manifest_hash:
            raise ProtocolError(f"sync: the client holds another history of round {ask.round}")
        newest = self._position[1]
        if ask.acknowledged == newest:
            self._history.acknowledged.add(ask.client_id)
        wrapped = tuple(
            (manifest_hash, wrap_key(key, ask.recipient, Synced.info(manifest_hash, ask.client_id)))
            if manifest_hash != newest or self._history.may_release
            else (manifest_hash, b"")
            for manifest_hash, key in entries
        )
        return sign(Synced(digest(request), wrapped).to_bytes(), self._signer)

    def _hash_of(self, number: int) -> bytes | None:
        index = len(self._state.keys) - 1 - (self._state.round - number)
        return self._state.keys[index][0] if 0 <= index < len(self._state.keys) else None
