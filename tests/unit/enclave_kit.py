# SPDX-License-Identifier: Apache-2.0
"""An enclave in process and clients that talk to it in bytes: they sign, seal, parse and open as real ones do."""

from __future__ import annotations

import functools
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trustformer.attestation.simulated import SimulatedAttester
from trustformer.codec.drift import DriftCodec
from trustformer.codec.weights import Weights, dense_layout, specs_of, weights_digest
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
from trustformer.enclave.session import Enclave
from trustformer.enclave.state import Released, StateStore
from trustformer.federation.channel import NO_BOOT
from trustformer.message import Aggregate, Codebook, Group, Layout, Reader, TensorSpec, Update, digest
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import RecipientKey, decrypt_chunks, encrypt_chunks, new_content_key, wrap_key
from trustformer.vq import body_size


@functools.cache
def attester() -> SimulatedAttester:
    """One simulated root for all tests; nothing of it stays on disk."""
    with tempfile.TemporaryDirectory() as folder:
        return SimulatedAttester.create(Path(folder) / "root", measurement=bytes(32), now=int(time.time()))


@dataclass
class Member:
    """One client: its weights, its copy of the common model, and where it stands."""

    id: str
    identity: Identity
    config: RunConfig
    weights: Weights
    common: Weights
    examples: int = 100
    round: int = 0
    manifest_hash: bytes = NO_HASH
    pending: Update | None = None
    welcome: Welcome | None = field(default=None, repr=False)

    @property
    def drift(self) -> Weights:
        return {name: self.weights[name] - self.common[name] for name in self.weights}


def hello_request(member: Member, **changes: Any) -> bytes:
    known = member.welcome.boot_id if member.welcome else NO_BOOT
    hello = Hello(
        *(member.config.run_id, member.id, os.urandom(32), known),
        *(member.round, member.manifest_hash, weights_digest(member.common)),
    )
    return sign(replace(hello, **changes).to_bytes(), member.identity)


def hello(enclave: Enclave, member: Member, **changes: Any) -> Welcome:
    """Say hello, check what comes back as far as no evidence is needed, and remember it."""
    reader = Reader(enclave.hello(hello_request(member, **changes)), "welcome")
    signed, _evidence = reader.raw(limit=MAX_MESSAGE), reader.raw(limit=2 * MAX_MESSAGE)
    reader.end()
    welcome = Welcome.from_bytes(split_signed(signed, "welcome")[0])
    signed_body(signed, welcome.signer, "welcome")
    assert welcome.cfg == member.config.digest
    member.welcome = welcome
    return welcome


def new_update(member: Member, body: bytes, **changes: Any) -> Update:
    number = member.welcome.round + 1 if member.welcome else member.round + 1
    update = Update(number, weights_digest(member.common), member.examples, os.urandom(32), body)
    return replace(update, **changes)


def seal(member: Member, update: Update | bytes, *, signer: Identity | None = None, **changes: Any) -> SealedUpdate:
    """Seal an update, or any payload, under the member's last welcome; `changes` replace fields of the header."""
    welcome = member.welcome
    assert welcome is not None
    payload = update if isinstance(update, bytes) else update.to_bytes()
    header = UploadHeader(
        *(member.config.run_id, welcome.boot_id, welcome.cfg, welcome.round + 1, welcome.attempt),
        *(member.id, len(payload)),
    )
    header = replace(header, **changes)
    content_key = new_content_key()
    wrap = wrap_key(content_key, welcome.recipient, header.info)
    return signed_upload(header.to_bytes(), wrap, encrypt_chunks(content_key, payload), signer or member.identity)


def signed_upload(header: bytes, wrap: bytes, chunks: bytes, signer: Identity) -> SealedUpdate:
    return SealedUpdate(header, wrap, signer.sign(SealedUpdate.to_sign(header, wrap, chunks)), chunks)


def send(enclave: Enclave, member: Member, sealed: SealedUpdate) -> Receipt:
    """Hand a sealed upload over; the receipt is checked to be the enclave's and for this upload."""
    assert member.welcome is not None
    reply = enclave.upload(sealed.to_bytes())
    receipt = Receipt.from_bytes(signed_body(reply, member.welcome.signer, "receipt"))
    assert receipt.upload_digest == digest(SealedUpdate.to_sign(sealed.header, sealed.wrap, sealed.chunks))
    return receipt


def upload(enclave: Enclave, member: Member, update: Update | bytes, **changes: Any) -> str:
    return send(enclave, member, seal(member, update, **changes)).status


def sync_request(member: Member, key: RecipientKey, **changes: Any) -> bytes:
    assert member.welcome is not None
    ask = Sync(
        *(member.config.run_id, member.welcome.boot_id, member.id),
        *(member.round, member.manifest_hash, key.public),
    )
    return sign(replace(ask, **changes).to_bytes(), member.identity)


def open_released(config: RunConfig, released: Released, round_key: bytes) -> tuple[Manifest, Aggregate]:
    """Open one round's result; the manifest's digest of it is checked."""
    manifest = Manifest.from_bytes(split_signed(released.manifest, "manifest")[0])
    assert manifest.aggregate_digest == digest(released.aggregate)
    size = body_size(config.answer)
    plain = decrypt_chunks(round_key, released.aggregate, len(Aggregate(0, b"").to_bytes()) + size)
    return manifest, Aggregate.from_bytes(plain, size)


def sync(
    enclave: Enclave, member: Member, kept: Mapping[int, Released], **changes: Any
) -> list[tuple[Manifest, Aggregate]]:
    """Ask for the rounds after the member's and open them; the chain is checked as a client checks it."""
    key = RecipientKey()
    request = sync_request(member, key, **changes)
    assert member.welcome is not None
    synced = Synced.from_bytes(signed_body(enclave.sync(request), member.welcome.signer, "synced"))
    assert synced.request_digest == digest(request)
    number, previous, opened = member.round, member.manifest_hash, []
    for manifest_hash, wrapped in synced.rounds:
        number += 1
        round_key = key.unwrap(wrapped, Synced.info(manifest_hash, member.id))
        manifest, aggregate = open_released(member.config, kept[number], round_key)
        assert manifest.hash == manifest_hash
        assert (manifest.round, manifest.previous, aggregate.round) == (number, previous, number)
        assert (manifest.run_id, manifest.cfg) == (member.config.run_id, member.config.digest)
        previous = manifest_hash
        opened.append((manifest, aggregate))
    return opened


class Federation:
    """Clients, one enclave, and the host's folder of what was released."""

    def __init__(
        self,
        folder: Path,
        codec: DriftCodec,
        start: Weights,
        ids: Sequence[str] = ("a", "b", "c"),
        **terms: Any,
    ) -> None:
        self.folder, self.codec = folder, codec
        identities = {client: Identity.generate() for client in ids}
        self.config = make_config(identities, codec, start, **terms)
        self.members = {
            client: Member(client, identity, self.config, dict(start), dict(start))
            for client, identity in identities.items()
        }
        self.kept: dict[int, Released] = {}
        self.answers: dict[int, bytes] = {}
        self.manifests: dict[int, Manifest] = {}
        self.enclave = self.boot()

    def boot(self, folder: Path | None = None) -> Enclave:
        """Start the enclave anew from the state in `folder`; no client knows its keys yet."""
        self.enclave = Enclave(self.config, StateStore(folder or self.folder, self.config.digest), attester())
        for member in self.members.values():
            member.welcome = None
        return self.enclave

    def greet(self, ids: Iterable[str]) -> None:
        """Say hello and catch up."""
        for client in ids:
            member = self.members[client]
            if hello(self.enclave, member).round > member.round:
                self.adopt([client])
                hello(self.enclave, member)

    def contribute(self, ids: Iterable[str], seed: int = 0) -> list[str]:
        """Code each member's drift, unless an update for this round is pending already, and send it."""
        statuses = []
        for client in ids:
            member = self.members[client]
            number = self.enclave.round + 1
            if member.pending is None or member.pending.round != number:
                rng = np.random.default_rng([seed, number, *client.encode()])
                member.pending = new_update(member, self.codec.encode(member.weights, member.common, rng))
            statuses.append(upload(self.enclave, member, member.pending))
        return statuses

    def close(self) -> Released:
        number = self.enclave.round + 1
        self.kept[number] = self.enclave.close(number)
        return self.kept[number]

    def adopt(self, ids: Iterable[str]) -> None:
        """Apply every missed round: the own update is subtracted if and only if the manifest lists it."""
        for client in ids:
            member = self.members[client]
            for manifest, aggregate in sync(self.enclave, member, self.kept):
                self.manifests[manifest.round], self.answers[manifest.round] = manifest, aggregate.body
                listed = dict(manifest.uploads).get(client)
                pending = member.pending
                own = pending.body if pending is not None and pending.commitment == listed else None
                member.weights, member.common = self.codec.adopt(member.weights, member.common, aggregate.body, own)
                member.round, member.manifest_hash, member.pending = manifest.round, manifest.hash, None

    def exchange(self, ids: Sequence[str], seed: int = 0) -> Released:
        """Run one whole exchange among some clients."""
        self.greet(ids)
        assert self.contribute(ids, seed) == ["accepted"] * len(ids)
        released = self.close()
        self.adopt(ids)
        return released

    @property
    def residual(self) -> Weights:
        """The enclave's s, read from its sealed state with the key beside it."""
        state = StateStore(self.folder, self.config.digest).load()
        specs = self.config.answer.tensors
        if state is None or not state.residual:
            return {spec.name: np.zeros(spec.shape, np.float32) for spec in specs}
        flat, at, tensors = np.frombuffer(state.residual, np.float32), 0, {}
        for spec in specs:
            tensors[spec.name] = flat[at : at + spec.size].reshape(spec.shape)
            at += spec.size
        return tensors


def make_config(identities: Mapping[str, Identity], codec: DriftCodec, start: Weights, **terms: Any) -> RunConfig:
    """Terms of a run; `terms` replaces any of them."""
    config = RunConfig(
        run_id=os.urandom(16),
        provider="simulated",
        experiment=bytes(32),
        common_digest=weights_digest(start),
        roster=tuple(sorted((client, identity.public) for client, identity in identities.items())),
        min_clients=min(2, len(identities)),
        max_share_ppm=1_000_000,
        rounds=20,
        seed=3,
        upload=codec.upload,
        answer=codec.answer,
    )
    return replace(config, **terms)


def start_weights(seed: int = 0, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Weights:
    shapes = shapes or {"w": (12, 10), "v": (10, 8), "b": (9,)}
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def dense_codec(start: Weights) -> DriftCodec:
    layout = dense_layout(specs_of(start))
    return DriftCodec(layout, layout)


def codebook_layout(tensors: Sequence[TensorSpec], block: int, clusters: int) -> Layout:
    return Layout((Group(Codebook(block, clusters), tuple(tensors)),))


def codebook_codec(start: Weights, block: int = 4, clusters: int = 8) -> DriftCodec:
    layout = codebook_layout(specs_of(start), block, clusters)
    return DriftCodec(layout, layout)


def train(members: Iterable[Member], seed: int, size: float = 0.01) -> None:
    """Stand-in for local training: every client moves its weights its own way."""
    for member in members:
        rng = np.random.default_rng([seed, *member.id.encode()])
        member.weights = {
            name: values + (rng.standard_normal(values.shape) * size).astype(np.float32)
            for name, values in member.weights.items()
        }
