# SPDX-License-Identifier: Apache-2.0
"""The enclave as a server on a Unix or loopback socket: one thread, one loop, one request at a time.

    request   u32be length || operation (1 byte) || body          length counts operation and body
    reply     u32be length || status (1 byte: 0 done, 1 error) || body

The body of an error is enc(class, message, hint) of a `TrustformerError`: nothing from inside a payload is in one. A
length is compared with what the run's terms allow for that operation before anything is allocated; whoever
sends a longer one is told so and cut off, since the stream cannot be followed any further.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

from trustformer.enclave.config import RunConfig
from trustformer.enclave.session import Enclave
from trustformer.errors import ConfigError, MessageError, TrustformerError
from trustformer.message import Reader, Update, enc
from trustformer.secure.sealing import sealed_length
from trustformer.vq import body_size

HELLO, UPLOAD, CLOSE, SYNC, STATUS = b"H", b"U", b"C", b"S", b"?"
SMALL = 4096
"""Bound in bytes of every request but an upload."""
PATIENCE = 30.0
"""Seconds for a request to come, and one more for each of its MiB; also between two of its pieces, and for an answer to
be taken. Whoever is slow or silent must not stop the loop for others."""
_FIRST = 6.0
_TOGETHER = 2**16
"""Bytes of a reply that go with its head: two short writes over TCP wait for each other, 44 ms."""
MAX_PATH = 107  # sun_path, unix(7), less its final zero


def frame_limits(config: RunConfig) -> dict[bytes, int]:
    """Largest body in bytes of each operation, from the run's terms alone."""
    upload = sealed_length(Update.length(body_size(config.upload))) + SMALL
    return {HELLO: SMALL, UPLOAD: upload, CLOSE: SMALL, SYNC: SMALL, STATUS: 0}


class Service:
    """Serves one enclave until it is told to stop.

    Args:
        enclave: answers.
        config: the run's terms; bounds every frame.
        address: path of a Unix socket, made here with mode 0600, or `tcp:PORT` of the loopback device: Unix sockets
            of a library OS cannot be reached from outside. Whoever connects is as untrusted either way.
        linger: False to end when the last connection is closed, or when none comes within six seconds: whoever
            started this process connects at once, unless it was killed.

    Raises:
        ConfigError: the socket cannot be made.
    """

    def __init__(self, enclave: Enclave, config: RunConfig, address: str, *, linger: bool = True) -> None:
        self._enclave, self._limits, self._linger = enclave, frame_limits(config), linger
        self._terms = config.digest
        self._path = None if address.startswith("tcp:") else Path(address)
        self._listener = _listen(address)

    def run(self) -> None:
        """Serve; returns when `linger` is False and nobody is connected any more."""
        selector, connections, alone_since = selectors.DefaultSelector(), 0, time.monotonic()
        selector.register(self._listener, selectors.EVENT_READ)
        served = False
        try:
            while self._linger or connections or not (served or time.monotonic() - alone_since > _FIRST):
                for key, _ in selector.select(timeout=1.0):
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    if connection is self._listener:
                        with suppress(OSError):  # no file descriptor is left, or the caller is gone again
                            accepted = connection.accept()[0]
                            accepted.settimeout(PATIENCE)
                            selector.register(accepted, selectors.EVENT_READ)
                            connections, served = connections + 1, True
                    elif not self._serve(connection):
                        selector.unregister(connection)
                        connection.close()
                        connections -= 1
        finally:
            selector.close()
            self._listener.close()
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            if self._path is not None and not self._linger:
                with suppress(OSError):
                    self._path.parent.rmdir()  # the parent made it for this socket, and may be gone

    def _serve(self, connection: socket.socket) -> bool:
        """Answer one request; False when the connection is of no further use."""
        try:
            late = time.monotonic() + PATIENCE
            length, operation = struct.unpack(">Ic", receive(connection, 5, late))
            limit = self._limits.get(operation)
            if limit is None or not 1 <= length <= limit + 1:
                refusal = MessageError(f"frame: {length} bytes of operation {operation!r}, more than allowed here")
                _reply(connection, b"\1", _error(refusal))
                return False
            body = bytes(receive(connection, length - 1, late + length / 2**20))
            try:
                status, answer = b"\0", self._answer(operation, body)
            except TrustformerError as error:
                status, answer = b"\1", _error(error)
            except Exception as error:
                # A fault of this program: its text may quote a payload, so only its class is told.
                if operation in (UPLOAD, CLOSE) and not isinstance(error, OSError):
                    raise  # the round's sums may be gone or hold a part: another boot collects them anew
                print(f"error: {type(error).__name__} in operation {operation!r}", file=sys.stderr, flush=True)
                status, answer = b"\1", _error(TrustformerError(f"the enclave failed with {type(error).__name__}"))
            _reply(connection, status, answer)
        except (OSError, EOFError):  # gone, silent for too long, or cut off in the middle of a frame
            return False
        return True

    def _answer(self, operation: bytes, body: bytes) -> bytes:
        if operation == HELLO:
            return self._enclave.hello(body)
        if operation == UPLOAD:
            return self._enclave.upload(body)
        if operation == SYNC:
            return self._enclave.sync(body)
        if operation == STATUS:
            return enc(self._enclave.round, self._terms, *self._enclave.accepted)
        reader = Reader(body, "close")
        number = reader.integer()
        reader.end()
        released = self._enclave.close(number)
        return enc(released.manifest, released.aggregate)


def _listen(address: str) -> socket.socket:
    path, port = Path(address), address.removeprefix("tcp:")
    tcp = port != address
    if tcp and not (port.isdecimal() and int(port) < 2**16):
        raise ConfigError(f"{address!r} does not name a port")
    if not tcp and len(os.fsencode(path)) > MAX_PATH:
        raise ConfigError(f"the socket path {path} is longer than {MAX_PATH} bytes", "choose a shorter folder")
    listener, mask = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX), os.umask(0o177)
    try:
        if tcp:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif path.is_socket():
            path.unlink()  # of a process that was killed
        listener.bind(("127.0.0.1", int(port)) if tcp else os.fspath(path))
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise ConfigError(f"the socket {address} cannot be made: {error.strerror}") from None
    finally:
        os.umask(mask)
    return listener


def receive(connection: socket.socket, length: int, late: float = float("inf")) -> bytearray:
    """Read so many bytes; raises `OSError`, or `EOFError` too where one comes after `late`, of `time.monotonic`."""
    data = bytearray(length)
    view = memoryview(data)
    while view:
        count = connection.recv_into(view)
        if count == 0 or time.monotonic() > late:
            raise EOFError
        view = view[count:]
    return data


def _reply(connection: socket.socket, status: bytes, body: bytes) -> None:
    connection.sendall(struct.pack(">I", len(body) + 1) + status + body[:_TOGETHER])
    connection.sendall(memoryview(body)[_TOGETHER:])


def _error(error: TrustformerError) -> bytes:
    return enc(type(error).__name__, error.message, error.hint)
