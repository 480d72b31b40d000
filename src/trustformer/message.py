# SPDX-License-Identifier: Apache-2.0
"""What crosses the wire, as bytes: canonical fields, the layout of a model's message, `Update` and `Aggregate`.

A message body has no names, shapes or dtypes in it. They stand in the run's `Layout`, which every party knows
and which is part of the config digest; so the length of a body is one constant per run and direction, and
a parser has nothing to trust but lengths it can compute itself.

    enc(x1 .. xn) = for each field: u32be(length) || bytes; text is UTF-8, integers are u64be
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Literal

from trustformer.errors import MessageError

WIRE_VERSION = "tfl/1"
MAX_EXAMPLES = 2**24
"""Largest number of training examples one client may claim; bounds the fixed-point sum in the enclave."""
MAX_TENSORS = 4096
MAX_ENTRIES = 2**30 - 2**18
"""Of a layout: as fp32 they still fill one field, whose length is 32 bits."""

Field = bytes | str | int


def digest(data: bytes) -> bytes:
    """SHA-512/256 of `data`, 32 bytes (FIPS 180-4)."""
    return hashlib.new("sha512_256", data).digest()


def enc(*fields: Field) -> bytes:
    """Join fields unambiguously: two different lists of fields never give the same bytes."""
    parts: list[bytes] = []
    for field in fields:
        if isinstance(field, int):
            raw = struct.pack(">Q", field)
        else:
            raw = field.encode() if isinstance(field, str) else bytes(field)
        parts += (struct.pack(">I", len(raw)), raw)
    return b"".join(parts)


class Reader:
    """Reads the fields of `enc` one by one; every field is bounded before it is copied.

    Args:
        data: the bytes to read; never copied as a whole.
        what: name of the message, for errors.
    """

    def __init__(self, data: bytes | memoryview, what: str) -> None:
        self._data = memoryview(data)
        self._at = 0
        self._what = what

    def raw(self, *, limit: int, exactly: int | None = None) -> bytes:
        """Return the next field, at most `limit` bytes, or `exactly` so many.

        Raises:
            MessageError: the field is longer than allowed or than the data.
        """
        if len(self._data) - self._at < 4:
            raise MessageError(f"{self._what}: ends in the middle of a field")
        (length,) = struct.unpack_from(">I", self._data, self._at)
        start = self._at + 4
        if length > limit or start + length > len(self._data):
            raise MessageError(f"{self._what}: a field of {length} bytes, more than allowed here")
        if exactly is not None and length != exactly:
            raise MessageError(f"{self._what}: a field of {length} bytes where {exactly} are due")
        self._at = start + length
        return bytes(self._data[start : self._at])

    def bytes32(self) -> bytes:
        """Return the next field, exactly 32 bytes."""
        return self.raw(limit=32, exactly=32)

    def integer(self, limit: int = 2**63 - 1) -> int:
        """Return the next field as an unsigned integer of at most `limit`."""
        (value,) = struct.unpack(">Q", self.raw(limit=8, exactly=8))
        if value > limit:
            raise MessageError(f"{self._what}: the number {value} is larger than {limit}")
        return int(value)

    def text(self, limit: int = 128) -> str:
        """Return the next field as UTF-8 text of at most `limit` bytes."""
        try:
            return self.raw(limit=limit).decode()
        except UnicodeDecodeError:
            raise MessageError(f"{self._what}: a text field is not UTF-8") from None

    def label(self, expected: str) -> None:
        """Read the first field of a message and require that it is `expected`."""
        if self.raw(limit=64) != expected.encode():
            raise MessageError(f"{self._what}: does not begin with {expected!r}")

    def more(self) -> bool:
        """Whether another field follows."""
        return self._at < len(self._data)

    def end(self) -> None:
        """Require that nothing follows."""
        if self._at != len(self._data):
            raise MessageError(f"{self._what}: {len(self._data) - self._at} bytes after the end")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name and shape of one tensor of a message."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Dense:
    """Every entry travels, as fp32 or fp16."""

    dtype: Literal["float16", "float32"]


@dataclass(frozen=True, slots=True)
class Codebook:
    """Blocks of `block` consecutive entries travel as one of at most `clusters` centroids and a code each."""

    block: int
    clusters: int


Coding = Dense | Codebook


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors that are coded together: one codebook serves them all."""

    coding: Coding
    tensors: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything that determines the form and the length of a message body in one direction."""

    groups: tuple[Group, ...]

    @property
    def tensors(self) -> tuple[TensorSpec, ...]:
        """All tensors in the order in which they travel."""
        return tuple(tensor for group in self.groups for tensor in group.tensors)

    @property
    def entries(self) -> int:
        """Number of entries of all tensors."""
        return sum(tensor.size for tensor in self.tensors)

    def to_bytes(self) -> bytes:
        """Canonical bytes; equal layouts give equal bytes."""
        parts: list[Field] = ["tfl/1 layout", len(self.groups)]
        for group in self.groups:
            coding = group.coding
            if isinstance(coding, Dense):
                parts += ("dense", coding.dtype, 0, 0)
            else:
                parts += ("codebook", "float16", coding.block, coding.clusters)
            parts.append(len(group.tensors))
            for tensor in group.tensors:
                parts += (tensor.name, len(tensor.shape), *tensor.shape)
        return enc(*parts)

    @classmethod
    def from_bytes(cls, data: bytes) -> Layout:
        """Read what `to_bytes` wrote.

        Raises:
            MessageError: unknown coding, too many tensors or entries, repeated name, anything malformed.
        """
        reader = Reader(data, "layout")
        reader.label("tfl/1 layout")
        groups = tuple(_read_group(reader) for _ in range(reader.integer(MAX_TENSORS)))
        reader.end()
        layout = cls(groups)
        names = [tensor.name for tensor in layout.tensors]
        if len(names) > MAX_TENSORS or len(set(names)) != len(names):
            raise MessageError("layout: too many tensors or a name that occurs twice")
        if layout.entries > MAX_ENTRIES:
            raise MessageError(f"layout: {layout.entries} entries, more than {MAX_ENTRIES}")
        return layout


def _read_group(reader: Reader) -> Group:
    kind, dtype = reader.text(), reader.text()
    block, clusters = reader.integer(2**16), reader.integer(2**16)
    coding: Coding
    if kind == "dense" and dtype in ("float16", "float32") and block == clusters == 0:
        coding = Dense("float16" if dtype == "float16" else "float32")
    elif kind == "codebook" and dtype == "float16" and block > 0 and clusters > 0:
        coding = Codebook(block, clusters)
    else:
        raise MessageError(f"layout: unknown coding {kind!r} with dtype {dtype!r}")
    tensors = []
    for _ in range(reader.integer(MAX_TENSORS)):
        name = reader.text(limit=512)
        shape = tuple(reader.integer(MAX_ENTRIES) for _ in range(reader.integer(8)))
        if not shape or min(shape) == 0:
            raise MessageError(f"layout: tensor {name!r} has the shape {shape}")
        tensors.append(TensorSpec(name, shape))
    if not tensors:
        raise MessageError("layout: a group without tensors")
    return Group(coding, tuple(tensors))


@dataclass(frozen=True, slots=True)
class Update:
    """What one client contributes to one exchange; it travels sealed.

    Attributes:
        round: number of the exchange, from 1.
        common_digest: digest of the common model G the drift was taken from (32 bytes).
        num_examples: training examples behind it; sets the client's share of the mean.
        salt: 32 random bytes, so that `commitment` tells nothing about the body.
        body: the coded tensors, in the order and form of the run's upload layout.
    """

    round: int
    common_digest: bytes
    num_examples: int
    salt: bytes
    body: bytes

    def to_bytes(self) -> bytes:
        """Bytes of a length that depends on the length of `body` only."""
        return enc("tfl/1 update", self.round, self.common_digest, self.num_examples, self.salt, self.body)

    @property
    def commitment(self) -> bytes:
        """Digest that a manifest lists for this update; hides it, since the salt is secret."""
        return digest(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, body_size: int) -> Update:
        """Read an update whose body has exactly `body_size` bytes.

        Raises:
            MessageError: malformed, a body of another length, or a count outside 1..MAX_EXAMPLES.
        """
        reader = Reader(data, "update")
        reader.label("tfl/1 update")
        number, common = reader.integer(), reader.bytes32()
        num_examples = reader.integer(MAX_EXAMPLES)
        if num_examples == 0:
            raise MessageError("update: claims 0 training examples")
        salt, body = reader.bytes32(), reader.raw(limit=body_size, exactly=body_size)
        reader.end()
        return cls(number, common, num_examples, salt, body)

    @staticmethod
    def length(body_size: int) -> int:
        """Length in bytes of an update whose body has `body_size` bytes."""
        return len(Update(0, bytes(32), 1, bytes(32), b"").to_bytes()) + body_size


@dataclass(frozen=True, slots=True)
class Aggregate:
    """The combined result of one exchange: the body is ē in the form of the run's answer layout."""

    round: int
    body: bytes

    def to_bytes(self) -> bytes:
        """Bytes of a length that depends on the length of `body` only."""
        return enc("tfl/1 aggregate", self.round, self.body)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, body_size: int) -> Aggregate:
        """Read an aggregate whose body has exactly `body_size` bytes; raises `MessageError`."""
        reader = Reader(data, "aggregate")
        reader.label("tfl/1 aggregate")
        number, body = reader.integer(), reader.raw(limit=body_size, exactly=body_size)
        reader.end()
        return cls(number, body)
