# SPDX-License-Identifier: Apache-2.0
"""Ed25519 identities (RFC 8032): who a client is, and which boot of an enclave speaks."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from trustformer.errors import SealError

SIGNATURE_SIZE = 64


class Identity:
    """A signing key; `public` (32 bytes) is what others know it by."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Identity:
        """Make a key that lives in memory until `save`."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read a key written by `save`.

        Raises:
            SealError: the file is not there, does not hold 32 bytes, or others on this machine can read it.
        """
        try:
            if path.stat().st_mode & 0o077:
                raise SealError(f"the identity key {path} can be read by others", f"chmod 600 {path}")
            return cls(Ed25519PrivateKey.from_private_bytes(path.read_bytes()))
        except (OSError, ValueError) as error:
            raise SealError(f"the identity key {path} cannot be read: {error}") from None

    def save(self, path: Path) -> None:
        """Write the key as 32 raw bytes, readable by the owner only; never over an existing file."""
        write_secret(path, self._private.private_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """Return a signature of 64 bytes. `data` begins with a label of its own for each kind of message."""
        return self._private.sign(data)


def verify(public: bytes, signature: bytes, data: bytes, what: str) -> None:
    """Require that `signature` is `public`'s over `data`; raises `SealError` naming `what`."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise SealError(f"{what}: the signature is not by the expected key") from None


def write_secret(path: Path, secret: bytes) -> None:
    """Create a file of mode 0600 holding `secret`, whole or not at all; raises `FileExistsError` if it is there."""
    if path.exists():
        raise FileExistsError(f"{path} exists: a secret is never overwritten")
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)  # of a crash
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
