# SPDX-License-Identifier: Apache-2.0
"""The messages of tfl/1 between a client and the enclave; whoever carries them needs to read none.

    Hello    -> Welcome    who are you, where does the run stand        (signed both ways)
    upload   -> Receipt    one sealed update                            (signed both ways)
    Sync     -> Synced     manifests and round keys a client lacks      (signed both ways)

A `Manifest` says whose updates one round combined; each names the one before it, so that one hash fixes the
whole history. Every message begins with a label of its own, so that none can be taken for another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import ClassVar, Self

from trustformer.errors import MessageError
from trustformer.message import Field, Reader, digest, enc
from trustformer.secure.identity import SIGNATURE_SIZE, Identity, verify
from trustformer.secure.sealing import WRAP_SIZE

MAX_MESSAGE = 2**20
"""Bound in bytes of every message but uploads and sealed aggregates, whose length the run config fixes."""
ID_LIMIT = 64
NO_HASH = bytes(32)


def sign(body: bytes, identity: Identity) -> bytes:
    """Return `body` with `identity`'s signature."""
    return enc(body, identity.sign(body))


def split_signed(data: bytes, what: str) -> tuple[bytes, bytes]:
    """Return body and signature of a signed message, not yet verified; raises `MessageError`."""
    reader = Reader(data, what)
    body, signature = reader.raw(limit=MAX_MESSAGE), reader.raw(limit=SIGNATURE_SIZE, exactly=SIGNATURE_SIZE)
    reader.end()
    return body, signature


def signed_body(data: bytes, public: bytes, what: str) -> bytes:
    """Return the body of a signed message; raises `MessageError` or `SealError`."""
    body, signature = split_signed(data, what)
    verify(public, signature, body, what)
    return body


def _pairs(reader: Reader, read: Callable[[Reader], tuple[object, bytes]]) -> tuple[tuple[object, bytes], ...]:
    inner = Reader(reader.raw(limit=MAX_MESSAGE), "list")
    pairs = []
    while inner.more():
        pairs.append(read(inner))
    return tuple(pairs)


def _wrap(reader: Reader) -> bytes:
    wrapped = reader.raw(limit=WRAP_SIZE)
    if len(wrapped) not in (0, WRAP_SIZE):
        raise MessageError(f"list: a wrapped key of {len(wrapped)} bytes")
    return wrapped


_READ: dict[str, Callable[[Reader], object]] = {
    "id16": lambda reader: reader.raw(limit=16, exactly=16),
    "b32": Reader.bytes32,
    "int": Reader.integer,
    "flag": lambda reader: bool(reader.integer(1)),
    "text": lambda reader: reader.text(ID_LIMIT),
    "uploads": lambda reader: _pairs(reader, lambda r: (r.text(ID_LIMIT), r.bytes32())),
    "keys": lambda reader: _pairs(reader, lambda r: (r.bytes32(), _wrap(r))),
}


class Wire:
    """A message whose bytes are its label and then its fields in order, each of the kind `KINDS` names."""

    LABEL: ClassVar[str]
    KINDS: ClassVar[tuple[str, ...]]

    def to_bytes(self) -> bytes:
        """Canonical bytes: what is hashed and signed."""
        parts: list[Field] = [self.LABEL]
        for field, kind in zip(fields(self), self.KINDS, strict=True):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if kind in ("uploads", "keys"):
                value = enc(*(part for pair in value for part in pair))
            parts.append(int(value) if kind == "flag" else value)
        return enc(*parts)

    @property
    def hash(self) -> bytes:
        """Digest of the canonical bytes, 32 bytes."""
        return digest(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read and bound every field; raises `MessageError`."""
        reader = Reader(data, cls.LABEL)
        reader.label(cls.LABEL)
        message = cls(*(_READ[kind](reader) for kind in cls.KINDS))
        reader.end()
        return message


@dataclass(frozen=True)
class Hello(Wire):
    """A client says who it is and what it holds: the last round it adopted and the digest of its G.

    `boot_id` is the boot whose keys it has verified already, zero for none.
    """

    LABEL = "tfl/1 hello"
    KINDS = ("id16", "text", "b32", "id16", "int", "b32", "b32")
    run_id: bytes
    client_id: str
    nonce: bytes
    boot_id: bytes
    round: int
    manifest_hash: bytes
    common_digest: bytes


@dataclass(frozen=True)
class Welcome(Wire):
    """The keys of this boot of the enclave and where the run stands.

    `round` is the last one closed; `attempt` counts tries at the next; `common_digest` is that of the G which
    most clients at `round` hold, zero while none has said so. A quote beside this message binds both keys, `cfg`
    and the client's nonce; the host may attach the collateral that verifies it.
    """

    LABEL = "tfl/1 welcome"
    KINDS = ("id16", "b32", "b32", "b32", "int", "int", "b32", "b32", "b32")
    boot_id: bytes
    recipient: bytes
    signer: bytes
    cfg: bytes
    round: int
    attempt: int
    manifest_hash: bytes
    common_digest: bytes
    nonce: bytes


@dataclass(frozen=True)
class UploadHeader(Wire):
    """Everything about an upload but its content."""

    LABEL = "tfl/1 up"
    KINDS = ("id16", "id16", "b32", "int", "int", "text", "int")
    run_id: bytes
    boot_id: bytes
    cfg: bytes
    round: int
    attempt: int
    client_id: str
    payload_length: int

    @property
    def info(self) -> bytes:
        """HPKE context: a ciphertext moved to another run, boot, round, attempt or client does not open."""
        return b"tfl/1 up" + self.hash


@dataclass(frozen=True)
class SealedUpdate:
    """One upload: header, wrapped content key, encrypted chunks and the client's signature over all three."""

    header: bytes
    wrap: bytes
    signature: bytes
    chunks: bytes

    @staticmethod
    def to_sign(header: bytes, wrap: bytes, chunks: bytes) -> bytes:
        """Bytes the client signs."""
        return enc("tfl/1 upsig", digest(header), digest(wrap), digest(chunks))

    def to_bytes(self) -> bytes:
        """Bytes of a length that the run's layout fixes (up to the length of the client's id)."""
        return enc(self.header, self.wrap, self.signature, self.chunks)

    @classmethod
    def from_bytes(cls, data: bytes, chunk_limit: int) -> SealedUpdate:
        """Read an upload; chunks of more than `chunk_limit` bytes are refused; raises `MessageError`."""
        reader = Reader(data, "upload")
        header, wrap = reader.raw(limit=1024), reader.raw(limit=WRAP_SIZE, exactly=WRAP_SIZE)
        signature = reader.raw(limit=SIGNATURE_SIZE, exactly=SIGNATURE_SIZE)
        chunks = reader.raw(limit=chunk_limit)
        reader.end()
        return cls(header, wrap, signature, chunks)


@dataclass(frozen=True)
class Receipt(Wire):
    """The enclave's answer to an upload: accepted, late, stale, duplicate or refused, and nothing more."""

    LABEL = "tfl/1 receipt"
    KINDS = ("id16", "id16", "int", "int", "text", "b32", "text")
    run_id: bytes
    boot_id: bytes
    round: int
    attempt: int
    client_id: str
    upload_digest: bytes
    status: str


@dataclass(frozen=True)
class Manifest(Wire):
    """Whose updates one round combined, and the digest of the sealed result.

    `previous` is the hash of the manifest before, zero for the first; `common_digest` that of the G the updates
    started from; `uploads` are (client id, commitment of its update), sorted; `residual_reset` says that
    s was lost before this round (a restart without its sealed state).
    """

    LABEL = "tfl/1 manifest"
    KINDS = ("id16", "id16", "b32", "int", "int", "b32", "b32", "uploads", "b32", "flag")
    run_id: bytes
    boot_id: bytes
    cfg: bytes
    round: int
    attempt: int
    previous: bytes
    common_digest: bytes
    uploads: tuple[tuple[str, bytes], ...]
    aggregate_digest: bytes
    residual_reset: bool

    def __post_init__(self) -> None:
        clients = [client for client, _ in self.uploads]
        if clients != sorted(set(clients)):
            raise MessageError("manifest: its clients are not sorted or one occurs twice")


@dataclass(frozen=True)
class Sync(Wire):
    """A client asks for the rounds after the last it holds; keys come wrapped to `recipient`.

    `acknowledged` is the hash of the newest manifest the client has verified and stored; zero for none. By naming
    it the client promises never to upload for that round again.
    """

    LABEL = "tfl/1 sync"
    KINDS = ("id16", "id16", "text", "int", "b32", "b32", "b32")
    run_id: bytes
    boot_id: bytes
    client_id: str
    round: int
    manifest_hash: bytes
    recipient: bytes
    acknowledged: bytes = NO_HASH


@dataclass(frozen=True)
class Synced(Wire):
    """(manifest hash, wrapped round key) of each round a client asked for, in order; bound to its request.

    The newest round's key is empty while too few clients have acknowledged it.
    """

    LABEL = "tfl/1 synced"
    KINDS = ("b32", "keys")
    request_digest: bytes
    rounds: tuple[tuple[bytes, bytes], ...]

    @staticmethod
    def info(manifest_hash: bytes, client_id: str) -> bytes:
        """HPKE context of one wrapped round key."""
        return b"tfl/1 down" + manifest_hash + client_id.encode()
