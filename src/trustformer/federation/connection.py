# SPDX-License-Identifier: Apache-2.0
"""A conversation with an enclave in another process, with the interface of `Enclave`; frames are those of `service`."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import trustformer.errors
from trustformer.enclave import service
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import MAX_MESSAGE
from trustformer.enclave.state import Released
from trustformer.errors import EnclaveLostError, MessageError, TrustformerError
from trustformer.foreign import printable
from trustformer.message import Aggregate, Reader, enc
from trustformer.secure.sealing import sealed_length
from trustformer.vq import body_size

MAX_BODY = 2**32 - 2
"""Bytes of the longest request whatever the terms: a frame's length counts its operation too, in four bytes."""
REPLY_SECONDS = 3600.0
"""An enclave that is silent for so long counts as dead. It combines many updates in minutes."""
LOOK = "look what listens there"
_NAMES = {
    service.HELLO: "hello",
    service.UPLOAD: "upload",
    service.CLOSE: "close",
    service.SYNC: "sync",
    service.STATUS: "status",
}


class EnclaveConnection:
    """Relays requests over one connection; how an enclave is found again after it died is up to the subclass.

    Args:
        config: the run's terms, which bound every request.

    Every request raises `MessageError`, unsent, where it is longer than the terms allow.
    """

    def __init__(self, config: RunConfig) -> None:
        self._limits, self._replies = service.frame_limits(config), _reply_limits(config)
        self._socket: socket.socket | None = None
        self._ended = TrustformerError("the conversation with the enclave has been ended")

    @property
    def limit(self) -> int:
        """Bytes of the longest request that the terms allow."""
        return min(max(self._limits.values()), MAX_BODY)

    @property
    def round(self) -> int:
        """The last round closed."""
        return self._status()[0]

    @property
    def accepted(self) -> tuple[str, ...]:
        """Clients whose update of the open round was accepted."""
        return self._status()[1]

    def hello(self, request: bytes) -> bytes:
        """As `Enclave.hello`."""
        return self._ask(service.HELLO, request)

    def upload(self, request: bytes) -> bytes:
        """As `Enclave.upload`."""
        return self._ask(service.UPLOAD, request)

    def sync(self, request: bytes) -> bytes:
        """As `Enclave.sync`."""
        return self._ask(service.SYNC, request)

    def close(self, number: int) -> Released:
        """As `Enclave.close`."""
        limit = self._replies[service.CLOSE]
        reader = Reader(self._ask(service.CLOSE, enc(number)), "released")
        released = Released(reader.raw(limit=limit), reader.raw(limit=limit))
        reader.end()
        return released

    def stop(self) -> None:
        """End the conversation. May be called again."""
        self._disconnect()

    def _lost(self) -> str:
        """Connect to the enclave's next boot and say what became of the last; raises `TrustformerError`."""
        raise NotImplementedError

    def _disconnect(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None

    def _status(self) -> tuple[int, tuple[str, ...]]:
        number, _, accepted = _read_status(self._ask(service.STATUS, b""))
        return number, accepted

    def _ask(self, operation: bytes, body: bytes) -> bytes:
        if self._socket is None:
            raise self._ended
        # Whoever sends the service a longer frame is cut off, and this connection carries all clients' requests.
        limit = min(self._limits[operation], MAX_BODY)
        if len(body) > limit:
            raise MessageError(
                f"{_NAMES[operation]}: {len(body)} bytes where the run's terms allow {limit}",
                "it was not passed to the enclave; send what the terms describe",
            )
        try:
            status, reply = converse(self._socket, operation, body, self._replies[operation])
        except (OSError, EOFError):
            self._disconnect()
            try:
                said = self._lost()
            except TrustformerError as error:
                self._ended = error  # whoever asks next is told the same
                raise
            raise EnclaveLostError(said, "clients say hello again") from None
        except NoEnclaveError as error:
            self._disconnect()
            self._ended = error
            raise
        if status == b"\0":
            return reply
        raise read_error(reply)


class NoEnclaveError(TrustformerError):
    """What answers does not do so as an enclave does."""


def converse(connection: socket.socket, operation: bytes, body: bytes, limit: int) -> tuple[bytes, bytes]:
    """Send one request; return status and body of the reply.

    Raises:
        OSError, EOFError: the connection is gone.
        NoEnclaveError: the reply is empty, longer than `limit`, or of no known status.
    """
    connection.sendall(struct.pack(">I", len(body) + 1) + operation)
    connection.sendall(body)
    (length,) = struct.unpack(">I", service.receive(connection, 4))
    if not 1 <= length <= limit + 1:
        raise NoEnclaveError(f"what answers is no enclave of this project: a reply of {length:,} bytes", LOOK)
    reply = memoryview(service.receive(connection, length))
    if reply[0] > 1:
        raise NoEnclaveError(f"what answers is no enclave of this project: a reply of status {reply[0]}", LOOK)
    return bytes(reply[:1]), bytes(reply[1:])


def terms_of(connection: socket.socket) -> bytes:
    """Digest of the terms that the enclave at the other end was started with; raises as `converse`."""
    status, reply = converse(connection, service.STATUS, b"", MAX_MESSAGE)
    try:
        if status == b"\0":
            return _read_status(reply)[1]
    except MessageError:
        pass
    raise NoEnclaveError("what answers is no enclave of this project, or of another version", LOOK)


def _read_status(reply: bytes) -> tuple[int, bytes, tuple[str, ...]]:
    reader = Reader(reply, "status")
    number, terms, accepted = reader.integer(), reader.bytes32(), []
    while reader.more():
        accepted.append(reader.text())
    return number, terms, tuple(accepted)


def _reply_limits(config: RunConfig) -> dict[bytes, int]:
    """Largest reply in bytes to each operation; an error's may be a `MAX_MESSAGE`."""
    limits = dict.fromkeys(_NAMES, 4 * MAX_MESSAGE)
    answer = sealed_length(len(Aggregate(0, b"").to_bytes()) + body_size(config.answer))
    return limits | {service.CLOSE: 4 * MAX_MESSAGE + answer}


def read_error(data: bytes) -> TrustformerError:
    """The error that the other side raised and told as enc(class, message, hint), of the same class."""
    reader = Reader(data, "error")
    name, message, hint = reader.text(), printable(reader.text(2**16)), printable(reader.text(2**16))
    reader.end()
    kind = getattr(trustformer.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, TrustformerError):
        return kind(message, hint)
    return TrustformerError(f"{name[:40]}: {message}", hint)
