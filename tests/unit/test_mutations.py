# SPDX-License-Identifier: Apache-2.0
"""Seeded random damage to every message: only typed errors come of it, and the enclave goes on."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enclave_kit import (
    Federation,
    codebook_layout,
    dense_codec,
    hello,
    hello_request,
    new_update,
    seal,
    send,
    signed_upload,
    start_weights,
    sync_request,
    train,
)

from trustformer.codec.rates import rated_layout
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import (
    Hello,
    Manifest,
    Receipt,
    SealedUpdate,
    Sync,
    Synced,
    UploadHeader,
    Welcome,
    Wire,
    sign,
    split_signed,
)
from trustformer.enclave.state import State
from trustformer.errors import MessageError, ProtocolError, SealError
from trustformer.message import Aggregate, Codebook, Layout, TensorSpec, Update, enc
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import WRAP_SIZE, RecipientKey
from trustformer.vq import body_size, decode, encode

LENGTHS = (0, 1, 2**8, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def mutations(data: bytes, count: int, seed: int) -> Iterable[bytes]:
    """Flipped bits, bytes overwritten, length fields replaced, parts cut out, repeated, moved or appended."""
    rng = random.Random(seed)
    for _ in range(count):
        altered = bytearray(data)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            at = rng.randrange(len(altered) + 1)
            end = min(len(altered), at + rng.choice((1, 4, 8, 32, 100)))
            match rng.randrange(7):
                case 0 if at < len(altered):
                    altered[at] ^= 1 << rng.randrange(8)
                case 1:
                    altered[at:end] = rng.randbytes(end - at)
                case 2:
                    altered[at : at + 4] = rng.choice(LENGTHS).to_bytes(4, "big")
                case 3:
                    del altered[at:end]
                case 4:
                    altered[at:at] = altered[at:end]
                case 5:
                    del altered[at:]
                case _:
                    altered += rng.randbytes(rng.choice((1, 4, 40)))
        if bytes(altered) != data:
            yield bytes(altered)


SPECS = [TensorSpec("encoder.w", (6, 8)), TensorSpec("b", (7,)), TensorSpec("emb", (8, 6))]
LAYOUT = rated_layout(SPECS, Codebook(4, 11))
BODY = encode(LAYOUT, start_weights(0, {spec.name: spec.shape for spec in SPECS}), np.random.default_rng(0))
UPDATE = Update(3, bytes(32), 77, b"\5" * 32, BODY)
B32, ID16 = b"\7" * 32, b"\3" * 16
WIRE: list[Wire] = [
    Hello(ID16, "client-0", B32, ID16, 3, B32, B32),
    Welcome(ID16, B32, B32, B32, 3, 1, B32, B32, B32),
    UploadHeader(ID16, ID16, B32, 4, 1, "client-0", 1234),
    Receipt(ID16, ID16, 4, 2, "client-0", B32, "accepted"),
    Manifest(ID16, ID16, B32, 4, 1, B32, B32, (("a", B32), ("b", bytes(32))), B32, True),
    Sync(ID16, ID16, "client-0", 3, B32, B32),
    Synced(B32, ((B32, bytes(WRAP_SIZE)), (bytes(32), bytes(WRAP_SIZE)))),
]


def read_update(data: bytes) -> Any:
    update = Update.from_bytes(data, len(BODY))
    decode(LAYOUT, update.body)
    return update


READERS: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "update": (read_update, UPDATE.to_bytes()),
    "aggregate": (lambda data: Aggregate.from_bytes(data, len(BODY)), Aggregate(1, BODY).to_bytes()),
    "layout": (Layout.from_bytes, LAYOUT.to_bytes()),
    "state": (State.from_bytes, State(1, ((B32, B32),), bytes(8), None).to_bytes()),
    **{type(message).__name__: (type(message).from_bytes, message.to_bytes()) for message in WIRE},
}


@pytest.mark.parametrize("name", READERS)
def test_damaged_messages_end_in_typed_errors_or_in_their_own_bytes(name: str) -> None:
    """What is accepted is written back byte for byte: no two encodings of one message."""
    read, data = READERS[name]
    assert read(data).to_bytes() == data
    refused = 0
    for altered in mutations(data, 2000, seed=1):
        try:
            message = read(altered)
        except MessageError:
            refused += 1
        else:
            assert message.to_bytes() == altered
    assert refused > 1000


@pytest.mark.parametrize("message", WIRE, ids=lambda message: type(message).__name__)
def test_wire_messages_are_refused_when_truncated_or_taken_for_another(message: Wire) -> None:
    data = message.to_bytes()
    for cut in range(len(data)):
        with pytest.raises(MessageError):
            type(message).from_bytes(data[:cut])
    for more in (b"\0", data):
        with pytest.raises(MessageError):
            type(message).from_bytes(data + more)
    for other in WIRE:
        if other is not message:
            with pytest.raises(MessageError):
                type(other).from_bytes(data)


def test_a_manifest_lists_each_client_once_and_in_order() -> None:
    for clients in ("ba", "aa"):
        with pytest.raises(MessageError, match="not sorted"):
            Manifest(ID16, ID16, B32, 1, 1, B32, B32, tuple((client, B32) for client in clients), B32, False)


def test_flags_are_zero_or_one() -> None:
    data = WIRE[4].to_bytes()
    assert data.endswith((1).to_bytes(8, "big"))
    with pytest.raises(MessageError):
        Manifest.from_bytes(data[:-8] + (2).to_bytes(8, "big"))


@pytest.mark.parametrize("fading", [{}, {"trained": 3, "carry_ppm": 500_000}, {"trained": 9, "carry_ppm": 0}])
def test_damaged_terms_end_in_typed_errors(fading: dict[str, int]) -> None:
    start = start_weights()
    keys = {client: Identity.generate().public for client in "ab"}
    layout = codebook_layout([TensorSpec(name, values.shape) for name, values in start.items()], 4, 8)
    roster = tuple(sorted(keys.items()))
    terms = RunConfig(ID16, "simulated", B32, B32, roster, 2, 600_000, 9, 1, layout, layout, **fading)
    assert RunConfig.from_bytes(terms.to_bytes()) == terms
    with pytest.raises((MessageError, ProtocolError)):
        RunConfig.from_bytes(terms.to_bytes() + enc(0, 1_000_000))  # says in other bytes what they say already
    for altered in mutations(terms.to_bytes(), 2000, seed=2):
        try:
            read = RunConfig.from_bytes(altered)
        except (MessageError, ProtocolError):
            continue
        assert read.to_bytes() == altered
        assert read.digest != terms.digest


def test_random_bodies_decode_to_bounded_tensors_or_are_refused() -> None:
    rng = random.Random(0)
    layouts = [LAYOUT, codebook_layout(SPECS, 3, 100), codebook_layout(SPECS, 64, 1)]
    for index in range(600):
        layout = layouts[index % 3]
        try:
            tensors = decode(layout, rng.randbytes(body_size(layout)))
        except MessageError:
            continue
        assert all(np.abs(values).max() <= 32 for values in tensors.values())


def test_56_an_enclave_survives_damaged_requests_and_takes_the_next_honest_round(tmp_path: Path) -> None:
    start = start_weights()
    run = Federation(tmp_path, dense_codec(start), start)
    train(run.members.values(), 0)
    run.exchange("abc")
    train(run.members.values(), 1)
    run.greet("abc")
    member = run.members["a"]
    body = run.codec.encode(member.weights, member.common, np.random.default_rng(0))
    sealed = seal(member, new_update(member, body))
    sync = sync_request(member, RecipientKey(), round=0, manifest_hash=bytes(32))
    doors = {
        run.enclave.upload: sealed.to_bytes(),
        run.enclave.hello: hello_request(member),
        run.enclave.sync: sync,
    }
    for seed, (door, honest) in enumerate(doors.items()):
        for altered in mutations(honest, 400, seed):
            with pytest.raises((MessageError, SealError, ProtocolError)):
                door(altered)
    for altered in mutations(split_signed(hello_request(member), "")[0], 300, 7):  # damaged, then signed
        try:
            run.enclave.hello(sign(altered, member.identity))
        except (MessageError, SealError, ProtocolError):
            continue
    for altered in mutations(split_signed(sync, "")[0], 300, 8):
        try:
            run.enclave.sync(sign(altered, member.identity))
        except (MessageError, SealError, ProtocolError):
            continue
    for field in ("header", "chunks"):
        for altered in mutations(getattr(sealed, field), 300, 9):
            parts = {"header": sealed.header, "wrap": sealed.wrap, "chunks": sealed.chunks, field: altered}
            try:
                receipt = send(run.enclave, member, signed_upload(**parts, signer=member.identity))
            except (MessageError, SealError, ProtocolError):
                continue
            assert receipt.status in ("refused", "stale", "late")
    payload = new_update(member, body).to_bytes()
    for altered in mutations(payload, 300, 10):
        try:
            status = send(run.enclave, member, seal(member, (altered + payload)[: len(payload)])).status
        except MessageError:
            continue
        if status == "accepted":  # damage that left a well-formed update: the round starts over
            with pytest.raises(ProtocolError):
                run.enclave.close(2)
            hello(run.enclave, member)
    assert run.enclave.accepted == ()
    run.exchange("abc")
    assert SealedUpdate.from_bytes(sealed.to_bytes(), len(sealed.chunks)) == sealed
    assert [client for client, _ in run.manifests[2].uploads] == ["a", "b", "c"]
