# SPDX-License-Identifier: Apache-2.0
"""What a platform's PCK certificate says about the machine, read before anything is verified."""

from __future__ import annotations

from dataclasses import dataclass

import dcap_qvl

from trustformer.attestation.errors import BadQuote


@dataclass(frozen=True)
class Pck:
    """Fields of the SGX extension 1.2.840.113741.1.13.1; identifiers in lower-case hex."""

    fmspc: str
    pce_id: str
    pce_svn: int
    cpu_svn: bytes


def parse_pck(pck_chain: bytes) -> Pck:
    """Read the SGX extension of the first certificate of a PEM chain.

    Raises:
        BadQuote: the certificate has none, or it is malformed.
    """
    try:
        extension = dcap_qvl.parse_pck_extension_from_pem(pck_chain)
        if len(extension.cpu_svn) != 16:
            raise ValueError("CPUSVN is not 16 bytes")
        return Pck(
            fmspc=extension.fmspc.hex(),
            pce_id=extension.pce_id.hex(),
            pce_svn=extension.pce_svn,
            cpu_svn=bytes(extension.cpu_svn),
        )
    except ValueError as error:
        raise BadQuote(
            "the quote's first certificate does not describe an SGX platform",
            got=str(error)[:120],
            expected="a PCK certificate",
        ) from error
