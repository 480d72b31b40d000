# SPDX-License-Identifier: Apache-2.0
"""The enclave as a process of its own, with the interface of `Enclave`: what the host talks to by default."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import trustformer.errors
from trustformer.enclave import service
from trustformer.enclave.config import RunConfig
from trustformer.enclave.state import Released
from trustformer.errors import ConfigError, EnclaveLostError, MessageError, TrustformerError
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
_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_LOG_BYTES = 4096
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "262144"}
"""glibc keeps freed tensors in its heap otherwise: a model size more at the peak."""


class RemoteEnclave:
    """Starts the enclave process, relays requests to it, and starts it again if it dies.

    Args:
        terms: file of the run's terms.
        state: folder of the sealed state.
        provider: kind of evidence the process makes.
        evidence: folder of the simulated root, or of Gramine's pseudo-files.
        log: where the process writes what it says.
        restarts: how often a dead process is replaced, also one that is killed as it starts; every further death is an
            error.

    Raises:
        TrustformerError: the process ended while it started; the message is what it said last.

    Every request raises `MessageError`, unsent, where it is longer than the terms allow.
    """

    def __init__(
        self, terms: Path, state: Path, *, provider: str, evidence: Path | None, log: Path, restarts: int = 3
    ) -> None:
        # A path of its own in the temporary folder: a socket's may not be longer than 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="trustformer-"))
        self._log, self._restarts = log, restarts
        self._command = [
            *(sys.executable, "-I", "-B", "-m", "trustformer.enclave", "--until-disconnect"),
            *("--socket", str(self._folder / "s"), "--terms", str(terms.resolve()), "--state", str(state.resolve())),
            *("--provider", provider, *(("--evidence", str(evidence.resolve())) if evidence else ())),
        ]
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
            self._limits = service.frame_limits(RunConfig.from_bytes(terms.read_bytes()))
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

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
        """End the process; what it has sealed stays. May be called again."""
        self._disconnect()
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _status(self) -> tuple[int, tuple[str, ...]]:
        reader = Reader(self._ask(service.STATUS, b""), "status")
        number, accepted = reader.integer(), []
        while reader.more():
            accepted.append(reader.text())
        return number, tuple(accepted)

    def _ask(self, operation: bytes, body: bytes) -> bytes:
        if self._socket is None:
            raise TrustformerError("the enclave process has been stopped")
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
            self._replace()
        if reply[:1] == b"\0":
            return bytes(memoryview(reply)[1:])
        raise read_error(bytes(memoryview(reply)[1:]))

    def _replace(self) -> None:
        """Start the enclave again; always raises, since its keys and what it had accepted are gone."""
        assert self._process is not None
        self._disconnect()
        self._process.kill()
        code = self._process.wait()
        if self._restarts == 0:
            raise TrustformerError(
                f"the enclave process died too often (last with {code})", f"read {self._log}, then --resume"
            )
        self._restarts -= 1
        self._start()
        raise EnclaveLostError("the enclave process died and was started again", "clients say hello again")

    def _start(self) -> None:
        """Start the process; again, if it is killed before it answers."""
        while not self._spawn():
            if self._restarts == 0:
                raise TrustformerError("the enclave process is killed whenever it starts", f"read {self._log}")
            self._restarts -= 1

    def _spawn(self) -> bool:
        """Whether the process came to answer; False if a signal ended it before."""
        self._folder.mkdir(mode=0o700, exist_ok=True)  # a process that ended by itself has removed it
        path = self._folder / "s"
        path.unlink(missing_ok=True)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=os.environ | _ENVIRONMENT
            )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                connection.connect(str(path))
                self._socket = connection
                return True
            except OSError:
                connection.close()
            code = self._process.poll()
            if code is not None and code < 0:
                return False
            if code is not None:
                said = self._log.read_bytes()[-_LOG_BYTES:].decode("utf-8", "replace").strip().splitlines()
                errors = [line for line in said if line.startswith("error: ")] or said or ["it said nothing"]
                raise ConfigError(
                    f"the enclave process did not start: {errors[-1].removeprefix('error: ')}",
                    f"read {self._log}; where it says nothing its disk may be full",
                )
            time.sleep(0.02)
        raise TrustformerError(f"the enclave process does not answer after {_START_SECONDS:g} s", f"read {self._log}")

    def _disconnect(self) -> None:
        if self._socket is not None:
            with suppress(OSError):
                self._socket.close()
            self._socket = None


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
