# SPDX-License-Identifier: Apache-2.0
"""Sealing: what was sealed opens once, whole, with its key and context, and in no other way."""

from __future__ import annotations

import os
import stat
import tracemalloc
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trustformer.errors import SealError
from trustformer.secure.identity import SIGNATURE_SIZE, Identity, verify, write_secret
from trustformer.secure.sealing import (
    CHUNK,
    KEY_SIZE,
    WRAP_SIZE,
    RecipientKey,
    chunks_at_rest,
    decrypt_at_rest,
    decrypt_chunks,
    encrypt_chunks,
    new_content_key,
    sealed_length,
    wrap_key,
)

KEY = bytes(range(32))
SEALED_CHUNK = CHUNK + 16
PAYLOAD = b"".join(bytes([index]) * CHUNK for index in range(3))
SEALED = encrypt_chunks(KEY, PAYLOAD)
FIRST, SECOND, THIRD = (SEALED[at : at + SEALED_CHUNK] for at in range(0, len(SEALED), SEALED_CHUNK))


# ---- chunks ----


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_payloads_come_back_and_lengths_are_known(size: int) -> None:
    payload = (bytes(range(256)) * (size // 256 + 1))[:size]
    sealed = encrypt_chunks(KEY, payload)
    assert len(sealed) == sealed_length(size)
    assert decrypt_chunks(KEY, memoryview(sealed), size) == payload
    if size > 100:
        assert payload[:64] not in sealed


def test_chunks_are_aes_gcm_under_the_documented_nonces() -> None:
    aead = AESGCM(KEY)
    for index, chunk in enumerate((FIRST, SECOND, THIRD)):
        nonce = bytes(7) + index.to_bytes(4, "big") + bytes([index == 2])
        assert aead.encrypt(nonce, PAYLOAD[index * CHUNK : (index + 1) * CHUNK], None) == chunk


def test_known_answer_of_a_short_payload() -> None:
    """AES-256-GCM under bytes 0..31 with the nonce of a first and last chunk."""
    assert encrypt_chunks(KEY, b"centroids") == AESGCM(KEY).encrypt(bytes(11) + b"\1", b"centroids", b"")


@pytest.mark.parametrize(
    ("chunks", "length"),
    [
        (FIRST + SECOND, 2 * CHUNK),
        (FIRST + THIRD, 2 * CHUNK),
        (SECOND + THIRD, 2 * CHUNK),
        (SECOND + FIRST + THIRD, 3 * CHUNK),
        (FIRST + THIRD + SECOND, 3 * CHUNK),
        (FIRST + FIRST + THIRD, 3 * CHUNK),
        (FIRST + SECOND + THIRD + THIRD, 4 * CHUNK),
        (FIRST + SECOND + THIRD + encrypt_chunks(KEY, b""), 3 * CHUNK),
        (THIRD, CHUNK),
        (FIRST, CHUNK),
        (FIRST + SECOND + THIRD[:-1], 3 * CHUNK - 1),
        (FIRST + SECOND + THIRD[:16], 2 * CHUNK),
        (FIRST[:-16] + SECOND + THIRD, 3 * CHUNK - 16),
    ],
    ids=[
        *("last dropped", "middle dropped", "first removed", "first two swapped", "last two swapped", "duplicated"),
        *("last repeated", "another message appended", "last alone", "first alone", "cut by a byte", "cut to a tag"),
        "cut in the middle",
    ],
)
def test_chunks_dropped_moved_or_added_do_not_open(chunks: bytes, length: int) -> None:
    for claimed in {length, 3 * CHUNK}:
        with pytest.raises(SealError):
            decrypt_chunks(KEY, chunks, claimed)


@pytest.mark.parametrize("size", [0, 1, CHUNK, 2 * CHUNK])
def test_the_last_flag_is_part_of_every_chunk(size: int) -> None:
    """The same chunks sealed as if more followed do not pass for a whole payload."""
    payload, aead = bytes(size), AESGCM(KEY)
    count = max(1, -(-size // CHUNK))
    unfinished = b"".join(
        aead.encrypt(bytes(7) + index.to_bytes(4, "big") + b"\0", payload[index * CHUNK : (index + 1) * CHUNK], None)
        for index in range(count)
    )
    assert len(unfinished) == sealed_length(size)
    with pytest.raises(SealError):
        decrypt_chunks(KEY, unfinished, size)


def test_no_flipped_bit_goes_unnoticed() -> None:
    sealed = encrypt_chunks(KEY, b"sixteen byte....")
    for bit in range(8 * len(sealed)):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            decrypt_chunks(KEY, bytes(altered), 16)
    for at in (0, CHUNK, SEALED_CHUNK + 5, len(SEALED) - 1):
        altered = bytearray(SEALED)
        altered[at] ^= 1
        with pytest.raises(SealError):
            decrypt_chunks(KEY, bytes(altered), 3 * CHUNK)


def test_another_key_does_not_open() -> None:
    for key in (bytes(32), new_content_key()):
        with pytest.raises(SealError):
            decrypt_chunks(key, SEALED, 3 * CHUNK)


@pytest.mark.parametrize("length", [0, 3, 5, 2**40, 2**63, 2**64])
def test_another_length_is_refused_before_anything_is_allocated(length: int) -> None:
    sealed = encrypt_chunks(KEY, b"four")
    tracemalloc.start()
    with pytest.raises(SealError):
        decrypt_chunks(KEY, sealed, length)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 1024


# ---- wrapped keys ----


def test_a_wrapped_key_opens_with_its_key_and_context_only() -> None:
    recipient, other = RecipientKey(), RecipientKey()
    wrapped = wrap_key(KEY, recipient.public, b"context")
    assert len(wrapped) == WRAP_SIZE
    assert recipient.unwrap(wrapped, b"context") == KEY
    assert wrap_key(KEY, recipient.public, b"context") != wrapped
    for key, info in ((recipient, b"contexu"), (recipient, b""), (recipient, b"context\0"), (other, b"context")):
        with pytest.raises(SealError):
            key.unwrap(wrapped, info)


@pytest.mark.parametrize("point", [bytes(32), b"\1" + bytes(31), b"\xed" + b"\xff" * 30 + b"\x7f"])
def test_points_of_low_order_are_refused_in_both_roles(point: bytes) -> None:
    recipient = RecipientKey()
    wrapped = wrap_key(KEY, recipient.public, b"")
    with pytest.raises(SealError):
        recipient.unwrap(point + wrapped[32:], b"")
    with pytest.raises(SealError):
        wrap_key(KEY, point, b"")


@pytest.mark.parametrize("size", [0, 31, WRAP_SIZE - 1, WRAP_SIZE + 1])
def test_a_wrap_of_another_size_is_refused(size: int) -> None:
    recipient = RecipientKey()
    wrapped = wrap_key(KEY, recipient.public, b"") + b"\0"
    with pytest.raises(SealError, match=f"{size} bytes where {WRAP_SIZE} are due"):
        recipient.unwrap(wrapped[:size], b"")


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33)])
def test_a_recipient_that_is_no_key_is_refused(public: bytes) -> None:
    with pytest.raises(SealError):
        wrap_key(KEY, public, b"")


def test_no_flipped_bit_of_a_wrap_goes_unnoticed() -> None:
    recipient = RecipientKey()
    wrapped = wrap_key(KEY, recipient.public, b"context")
    for bit in range(8 * WRAP_SIZE):
        altered = bytearray(wrapped)
        altered[bit // 8] ^= 1 << bit % 8
        if bit == 255:  # X25519 ignores the top bit of a point; HPKE's key schedule does not
            assert altered[31] & 128 != wrapped[31] & 128
        with pytest.raises(SealError):
            recipient.unwrap(bytes(altered), b"context")


# ---- at rest ----


def at_rest(key: bytes, payload: bytes, label: str) -> bytes:
    return b"".join(chunks_at_rest(key, payload, label))


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_state_at_rest_comes_back(size: int) -> None:
    payload = os.urandom(size)
    sealed = at_rest(KEY, payload, "label")
    assert decrypt_at_rest(KEY, sealed, "label") == payload
    assert at_rest(KEY, payload, "label")[:32] != sealed[:32]


def test_state_at_rest_opens_with_its_key_and_label_only() -> None:
    sealed = at_rest(KEY, b"state", "label")
    for key, label in ((KEY, "labem"), (KEY, ""), (bytes(32), "label")):
        with pytest.raises(SealError):
            decrypt_at_rest(key, sealed, label)


def test_altered_or_shortened_state_at_rest_is_refused() -> None:
    sealed = at_rest(KEY, b"some state", "label")
    for at in range(len(sealed)):
        altered = bytearray(sealed)
        altered[at] ^= 4
        with pytest.raises(SealError):
            decrypt_at_rest(KEY, bytes(altered), "label")
        with pytest.raises(SealError):
            decrypt_at_rest(KEY, sealed[:at], "label")
    with pytest.raises(SealError):
        decrypt_at_rest(KEY, sealed + b"\0", "label")
    for size in (CHUNK + 16 + 32 + 1, CHUNK + 16 + 32 + 15, 2 * CHUNK + 32 + 16):  # sizes no payload has
        with pytest.raises(SealError):
            decrypt_at_rest(KEY, bytes(size), "label")


# ---- identities and secret files ----


def test_an_identity_comes_back_from_its_file_and_signs_alike(tmp_path: Path) -> None:
    path, identity = tmp_path / "key", Identity.generate()
    identity.save(path)
    loaded = Identity.load(path)
    assert loaded.public == identity.public
    assert len(loaded.sign(b"x")) == SIGNATURE_SIZE
    assert loaded.sign(b"x") == identity.sign(b"x")
    verify(identity.public, loaded.sign(b"x"), b"x", "test")


def test_rfc_8032_known_answer(tmp_path: Path) -> None:
    secret = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    (tmp_path / "key").write_bytes(secret)
    (tmp_path / "key").chmod(0o600)
    identity = Identity.load(tmp_path / "key")
    assert identity.public.hex() == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
    assert identity.sign(b"").hex() == (
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
    )


@pytest.mark.parametrize("content", [None, b"", bytes(31), bytes(33), b"-----BEGIN PRIVATE KEY-----\n"])
def test_a_key_file_that_is_missing_or_of_another_size_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "client.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SealError, match=r"client\.key"):
        Identity.load(path)


def test_signatures_by_others_over_others_or_of_another_form_are_refused() -> None:
    identity, other = Identity.generate(), Identity.generate()
    signature = identity.sign(b"message")
    cases = [
        (other.public, signature, b"message"),
        (identity.public, signature, b"messagf"),
        (identity.public, other.sign(b"message"), b"message"),
        (identity.public, signature[:-1], b"message"),
        (identity.public, b"", b"message"),
        (identity.public, bytes(64), b"message"),
        (identity.public[:-1], signature, b"message"),
        (b"", signature, b"message"),
    ]
    for public, signed, data in cases:
        with pytest.raises(SealError, match="receipt"):
            verify(public, signed, data, "receipt")


def test_secrets_are_private_files_and_never_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    before = os.umask(0)
    try:
        write_secret(path, b"one")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        write_secret(path, b"two")
    with pytest.raises(FileExistsError):
        Identity.generate().save(path)
    assert path.read_bytes() == b"one"


def test_content_keys_are_fresh() -> None:
    assert len({new_content_key() for _ in range(100)}) == 100
    assert {len(new_content_key()) for _ in range(3)} == {KEY_SIZE}


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "identity.key"
    Identity.generate().save(path)
    path.chmod(mode)
    with pytest.raises(SealError, match="can be read by others") as refused:
        Identity.load(path)
    assert refused.value.hint == f"chmod 600 {path}"
    path.chmod(0o600)
    Identity.load(path)
