# SPDX-License-Identifier: Apache-2.0
"""Sealing: an HPKE-wrapped content key (RFC 9180) and a payload in authenticated chunks.

    wrap     HPKE base mode, X25519 / HKDF-SHA256 / AES-256-GCM, of 32 random bytes; context goes into `info`
    chunks   1 MiB each under that key by AES-256-GCM; nonce = 7 zero bytes || u32be counter || last flag
             (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, 2015)

The nonce is a counter because a content key encrypts exactly one payload. Dropping, swapping, repeating or
appending chunks changes a counter or the last flag, so nothing opens. Every failure is one `SealError`.
Base mode does not tell who sent a message: `identity.py` signs it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from trustformer.errors import SealError

SUITE_NAME = "X25519-HKDF-SHA256-AES256GCM"
CHUNK = 2**20
KEY_SIZE = 32
WRAP_SIZE = 32 + KEY_SIZE + 16
_TAG = 16
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class RecipientKey:
    """An X25519 key pair that lives in memory only; whoever has `public` can seal to it."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self.public = self._private.public_key().public_bytes_raw()

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """Open a content key wrapped by `wrap_key` under the same `info`; raises `SealError`."""
        if len(wrapped) != WRAP_SIZE:
            raise SealError(f"a wrapped key has {len(wrapped)} bytes where {WRAP_SIZE} are due")
        try:
            return bytes(_SUITE.decrypt(wrapped, self._private, info=info))
        except (InvalidTag, ValueError):
            raise SealError("a sealed message does not open with this key and context") from None


def new_content_key() -> bytes:
    """Return 32 fresh random bytes; a content key encrypts one payload."""
    return os.urandom(KEY_SIZE)


def wrap_key(content_key: bytes, recipient: bytes, info: bytes) -> bytes:
    """Seal a content key to an X25519 public key (32 bytes); raises `SealError` for a bad public key."""
    try:
        return bytes(_SUITE.encrypt(content_key, X25519PublicKey.from_public_bytes(recipient), info=info))
    except ValueError:
        raise SealError("the recipient's public key is not a usable X25519 key") from None


def sealed_length(length: int) -> int:
    """Length in bytes of the chunks of a payload of `length` bytes."""
    return length + _TAG * max(1, -(-length // CHUNK))


def encrypt_chunks(content_key: bytes, payload: bytes) -> bytes:
    """Encrypt a payload under a key that is used for nothing else."""
    return b"".join(_chunks(content_key, payload))


def _chunks(content_key: bytes, payload: bytes) -> Iterator[bytes]:
    aead = AESGCM(content_key)
    count = max(1, -(-len(payload) // CHUNK))
    view = memoryview(payload)
    for index in range(count):
        yield aead.encrypt(_nonce(index, index == count - 1), view[index * CHUNK : (index + 1) * CHUNK], None)


def decrypt_chunks(content_key: bytes, chunks: bytes | memoryview, length: int) -> bytes:
    """Decrypt into a buffer of exactly `length` bytes, allocated only after the sizes agree.

    Raises:
        SealError: another length, or any chunk altered, missing, moved or added.
    """
    if len(chunks) != sealed_length(length):
        raise SealError(f"a sealed payload has {len(chunks)} bytes where {sealed_length(length)} are due")
    aead = AESGCM(content_key)
    view = memoryview(chunks)
    count = max(1, -(-length // CHUNK))
    payload = bytearray(length)
    try:
        for index in range(count):
            chunk = view[index * (CHUNK + _TAG) : (index + 1) * (CHUNK + _TAG)]
            plain = aead.decrypt(_nonce(index, index == count - 1), chunk, None)
            payload[index * CHUNK : index * CHUNK + len(plain)] = plain
    except InvalidTag:
        raise SealError("a sealed payload was altered or belongs to another message") from None
    return bytes(payload)


def _nonce(counter: int, last: bool) -> bytes:
    return bytes(7) + struct.pack(">IB", counter, last)


def chunks_at_rest(storage_key: bytes, payload: bytes, label: str) -> Iterator[bytes]:
    """Encrypt state under a key derived for this one write (HKDF-SHA256 with a random salt), a chunk at a time."""
    salt = os.urandom(32)
    yield salt
    yield from _chunks(_derive(storage_key, salt, label), payload)


def decrypt_at_rest(storage_key: bytes, data: bytes, label: str) -> bytes:
    """Open what `chunks_at_rest` gave under the same key and label; raises `SealError`."""
    sealed = len(data) - 32
    chunks = -(-sealed // (CHUNK + _TAG))
    length = sealed - _TAG * chunks
    if sealed < _TAG or length < 0:
        raise SealError("a sealed state file is too short")
    return decrypt_chunks(_derive(storage_key, data[:32], label), memoryview(data)[32:], length)


def _derive(storage_key: bytes, salt: bytes, label: str) -> bytes:
    return HKDF(hashes.SHA256(), KEY_SIZE, salt, label.encode()).derive(storage_key)
