# SPDX-License-Identifier: Apache-2.0
"""What an attester hands out, and what its quote is bound to.

This module is imported by the enclave process: it needs the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from trustformer.message import digest, enc

Kind = Literal["gramine-dcap", "simulated"]

REPORT_DATA_BYTES = 64
MAX_QUOTE_BYTES = 16 * 1024
MAX_COLLATERAL_BYTES = 1024 * 1024
REPORT_DATA_SLICE = slice(368, 432)  # of a version 3 quote: 48-byte header, body offset 320
REPORT_LABEL = "tfl/1 report"


@dataclass(frozen=True)
class Evidence:
    """A quote and, if the sender has it, the collateral that verifies it.

    Args:
        kind: what the sender says this is; the receiver's policy decides whether it may be.
        quote: a DCAP quote, at most 16 KiB.
        collateral: JSON of nine fields, at most 1 MiB; None if the sender has none, and then a client refuses it.
    """

    kind: Kind
    quote: bytes
    collateral: bytes | None


class Attester(Protocol):
    """A source of evidence about the process that asks."""

    @property
    def kind(self) -> Kind:
        """Which provider this is."""

    def evidence(self, report_data: bytes) -> Evidence:
        """Return evidence whose quote carries exactly these 64 bytes."""


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Everything a quote is bound to for one client in one handshake.

    Args:
        suite: name of the cipher suite.
        run_id: 16 bytes, chosen for the run.
        boot_id: 16 bytes, drawn when the enclave started.
        pk_e: the enclave's HPKE public key.
        vk_e: the enclave's Ed25519 public key.
        cfg: digest of the run's configuration, computed by whoever builds this object.
        client_id: the client the quote is for.
        nonce: 32 bytes drawn by that client.
    """

    suite: str | bytes
    run_id: bytes
    boot_id: bytes
    pk_e: bytes
    vk_e: bytes
    cfg: bytes
    client_id: str | bytes
    nonce: bytes

    def report_data(self) -> bytes:
        """Return the 64 bytes the quote must carry: SHA-512/256 of all fields, then 32 zero bytes."""
        session = (self.suite, self.run_id, self.boot_id, self.pk_e, self.vk_e)
        fields = (*session, self.cfg, self.client_id, self.nonce)
        return digest(enc(REPORT_LABEL, *fields)).ljust(REPORT_DATA_BYTES, b"\0")
