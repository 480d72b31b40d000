# SPDX-License-Identifier: Apache-2.0
"""The enclave as a process that this one starts: what the host talks to by default."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError, TrustformerError
from trustformer.federation.connection import REPLY_SECONDS, EnclaveConnection
from trustformer.federation.temporary import PREFIX, check_temporary

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_LOG_BYTES = 4096
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "262144"}
"""glibc keeps freed tensors in its heap otherwise: a model size more at the peak."""


class RemoteEnclave(EnclaveConnection):
    """Starts the enclave process, relays requests to it, and starts it again if it dies or hangs.

    Args:
        terms: file of the run's terms.
        state: folder of the sealed state.
        provider: kind of evidence the process makes.
        evidence: folder of the simulated root, or of Gramine's pseudo-files.
        log: where the process writes what it says.
        restarts: how often a dead process is replaced, also one that is killed as it starts; every further death is an
            error.

    Raises:
        ConfigError: the path of the temporary folder is too long.
        TrustformerError: the process ended while it started; the message is what it said last.
    """

    def __init__(
        self, terms: Path, state: Path, *, provider: str, evidence: Path | None, log: Path, restarts: int = 3
    ) -> None:
        super().__init__(RunConfig.from_bytes(terms.read_bytes()))
        # A path of its own in the temporary folder: that of a socket must be short.
        check_temporary(tempfile.gettempdir())
        self._folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._log, self._restarts = log, restarts
        self._command = [
            *(sys.executable, "-I", "-B", "-m", "trustformer.enclave", "--until-disconnect"),
            *("--socket", str(self._folder / "s"), "--terms", str(terms.resolve()), "--state", str(state.resolve())),
            *("--provider", provider, *(("--evidence", str(evidence.resolve())) if evidence else ())),
        ]
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Of the process that runs now."""
        assert self._process is not None
        return self._process.pid

    def __str__(self) -> str:
        return f"enclave {self.pid}"

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

    def _lost(self) -> str:
        """Start the enclave again; its keys and what it had accepted are gone."""
        assert self._process is not None
        self._process.kill()
        code = self._process.wait()
        if self._restarts == 0:
            raise TrustformerError(
                f"the enclave process died too often (last with {code})", f"read {self._log}, then --resume"
            )
        self._restarts -= 1
        self._start()
        return "the enclave process died and was started again"

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
                connection.settimeout(REPLY_SECONDS)
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
