# SPDX-License-Identifier: Apache-2.0
"""An enclave that somebody else starts and keeps running, such as one under Gramine, reached on the loopback device."""

from __future__ import annotations

import socket
import time

from trustformer.enclave.config import RunConfig
from trustformer.errors import TrustformerError
from trustformer.federation.connection import EnclaveConnection


class AttachedEnclave(EnclaveConnection):
    """Relays requests to the enclave at an address, and waits for its next boot if it dies.

    Args:
        config: the run's terms. Clients refuse an enclave that was started with others.
        address: `HOST:PORT` where it serves.
        patience: seconds to wait until it answers.

    Raises:
        TrustformerError: nothing answers there.
    """

    def __init__(self, config: RunConfig, address: str, *, patience: float = 120.0) -> None:
        super().__init__(config)
        self._address, self._patience = address, patience
        self._connect()

    def __str__(self) -> str:
        return f"enclave at {self._address}"

    def _lost(self) -> str:
        self._connect()
        return f"the enclave at {self._address} was gone, and answers again"

    def _connect(self) -> None:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                self._socket = self._dial()
                return
            except (OSError, OverflowError) as error:
                if time.monotonic() > deadline:
                    raise TrustformerError(
                        f"no enclave answers at {self._address}: {error}",
                        "start it there with the terms.bin of this federation, then go on",
                    ) from None
            time.sleep(0.2)

    def _dial(self) -> socket.socket:
        host, _, port = self._address.rpartition(":")
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=10.0)
        if connection.getsockname() == connection.getpeername():
            connection.close()
            raise OSError("nobody listens")  # the kernel had given this end the same port
        connection.settimeout(None)  # combining many updates may take minutes
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
