# SPDX-License-Identifier: Apache-2.0
"""An enclave that somebody else starts and keeps running, such as one under Gramine, reached on the loopback device."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError, TrustformerError
from trustformer.federation.connection import REPLY_SECONDS, EnclaveConnection, NoEnclaveError, terms_of

_GREETING_SECONDS = 10.0


class AttachedEnclave(EnclaveConnection):
    """Relays requests to the enclave at an address, and waits for its next boot if it dies.

    Args:
        config: the run's terms, with which the enclave must have been started.
        address: `HOST:PORT` where it serves.
        patience: seconds to wait until it answers, at first and after each death.
        restarts: how many deaths are borne.
        note: shows one line when there is something to wait for.

    Raises:
        ConfigError: the address is none, or the enclave there was started with other terms.
        TrustformerError: nothing answers there, or nothing that is an enclave.
    """

    def __init__(
        self,
        config: RunConfig,
        address: str,
        *,
        patience: float = 600.0,
        restarts: int = 20,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(config)
        self._terms, self._address, self._patience, self._note = config.digest, address, patience, note
        self._restarts = restarts
        self._connect()

    def __str__(self) -> str:
        return f"enclave at {self._address}"

    def _lost(self) -> str:
        if self._restarts == 0:
            raise TrustformerError(f"the {self} died too often", "find out why, then serve again")
        self._restarts -= 1
        self._connect()
        return f"the {self} was gone, and answers again"

    def _connect(self) -> None:
        started = time.monotonic()
        told = False
        while True:
            try:
                self._socket = self._dial()
                return
            except (OSError, EOFError) as error:
                if time.monotonic() - started > self._patience:
                    raise TrustformerError(
                        f"no enclave answers at {self._address}: {error or type(error).__name__}",
                        "start it there with the terms.bin of this federation, then serve again",
                    ) from None
            if not told:
                self._note(f"waiting for the {self}, {self._patience:g} s at most")
                told = True
            time.sleep(0.2)

    def _dial(self) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        try:
            if not 0 < int(port) < 2**16:
                raise ValueError
            connection = socket.create_connection((host.strip("[]"), int(port)), timeout=_GREETING_SECONDS)
        except ValueError:
            raise ConfigError(f"{self._address!r} is no address", "HOST:PORT, such as 127.0.0.1:7911") from None
        try:
            if connection.getsockname() == connection.getpeername():
                raise OSError("nobody listens")  # the kernel had given this end the same port
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._check(terms_of(connection))
            connection.settimeout(REPLY_SECONDS)
        except NoEnclaveError as error:
            connection.close()
            raise NoEnclaveError(f"{self._address}: {error.message}", error.hint) from None
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, terms: bytes) -> None:
        if terms != self._terms:
            raise ConfigError(
                f"the {self} was started with other terms than this federation's",
                "end it, and start it with the terms.bin of this folder (docs/deploy-gramine.md)",
            )
