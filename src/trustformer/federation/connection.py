# SPDX-License-Identifier: Apache-2.0
"""A conversation with an enclave in another process, with the interface of `Enclave`; frames are those of `service`."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

import trustformer.errors
from trustformer.enclave import service
from trustformer.enclave.config import RunConfig
from trustformer.enclave.state import Released
from trustformer.errors import EnclaveLostError, MessageError, TrustformerError
from trustformer.message import Reader, enc

_MAX_REPLY = 2**32 - 1
MAX_BODY = 2**32 - 2
"""Bytes of the longest request whatever the terms: a frame's length counts its operation too, in four bytes."""
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
        self._limits = service.frame_limits(config)
        self._socket: socket.socket | None = None

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
        reader = Reader(self._ask(service.CLOSE, enc(number)), "released")
        released = Released(reader.raw(limit=_MAX_REPLY), reader.raw(limit=_MAX_REPLY))
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
        reader = Reader(self._ask(service.STATUS, b""), "status")
        number, accepted = reader.integer(), []
        while reader.more():
            accepted.append(reader.text())
        return number, tuple(accepted)

    def _ask(self, operation: bytes, body: bytes) -> bytes:
        if self._socket is None:
            raise TrustformerError("the conversation with the enclave has been ended")
        # Whoever sends the service a longer frame is cut off, and this connection carries all clients' requests.
        limit = min(self._limits[operation], MAX_BODY)
        if len(body) > limit:
            raise MessageError(
                f"{_NAMES[operation]}: {len(body)} bytes where the run's terms allow {limit}",
                "it was not passed to the enclave; send what the terms describe",
            )
        try:
            self._socket.sendall(struct.pack(">I", len(body) + 1) + operation)
            self._socket.sendall(body)
            (length,) = struct.unpack(">I", _receive(self._socket, 4))
            reply = _receive(self._socket, length)
        except (OSError, EOFError):
            self._disconnect()
            raise EnclaveLostError(self._lost(), "clients say hello again") from None
        if reply[:1] == b"\0":
            return bytes(memoryview(reply)[1:])
        raise read_error(bytes(memoryview(reply)[1:]))


def _receive(connection: socket.socket, length: int) -> bytearray:
    data = bytearray(length)
    view, at = memoryview(data), 0
    while at < length:
        count = connection.recv_into(view[at:])
        if count == 0:
            raise EOFError
        at += count
    return data


def read_error(data: bytes) -> TrustformerError:
    """The error that the other side raised and told as enc(class, message, hint), of the same class."""
    reader = Reader(data, "error")
    name, message, hint = reader.text(), reader.text(2**16), reader.text(2**16)
    reader.end()
    kind = getattr(trustformer.errors, name, None)
    if isinstance(kind, type) and issubclass(kind, TrustformerError):
        return kind(message, hint)
    return TrustformerError(f"{name[:40]}: {message}", hint)
