# SPDX-License-Identifier: Apache-2.0
"""The bytes of a DCAP quote, read by fixed offsets before anything is verified.

Source: Intel "SGX ECDSA Quote Library Reference", appendix A.4 (version 3):

    0    header          48    version, key type, tee type, ..., vendor id (12..28)
    48   report body     384   ATTRIBUTES +48, MRENCLAVE +64, MRSIGNER +128, ISVPRODID +256, ISVSVN +258,
                               report data +320
    432  length          4     little endian; the quote ends exactly there
    436  signature 64 | attestation key 64 | QE report 384 | its signature 64 | auth data | certification data
"""

from __future__ import annotations

from dataclasses import dataclass

from trustformer.attestation.errors import BadQuote
from trustformer.attestation.evidence import MAX_QUOTE_BYTES

HEADER_BYTES, SGX_BODY_BYTES, TDX_BODY_BYTES = 48, 384, 584
SIGNED_BYTES = HEADER_BYTES + SGX_BODY_BYTES
FIXED_SIGNATURE_BYTES = 64 + 64 + 384 + 64
TEE_SGX, TEE_TDX = 0, 0x81
INTEL_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
KEY_ECDSA_P256 = 2
PCK_CHAIN = 5

FLAG_INIT, FLAG_DEBUG, FLAG_MODE64 = 0x01, 0x02, 0x04


@dataclass(frozen=True)
class Report:
    """An enclave report body: what the hardware says about one enclave."""

    misc_select: int
    flags: int
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    isv_prod_id: int
    isv_svn: int
    report_data: bytes


@dataclass(frozen=True)
class SignatureData:
    """Who signed a version 3 quote: the attestation key, and the quoting enclave that vouches for it."""

    signature: bytes
    attestation_key: bytes
    qe_report: bytes
    qe_signature: bytes
    auth_data: bytes
    pck_chain: bytes


@dataclass(frozen=True)
class Quote:
    """A quote whose lengths are right and whose signatures are not yet verified.

    `report` and `signed_by` are None for a well-formed quote that is not of an SGX enclave in version 3.
    """

    raw: bytes
    version: int
    tee_type: int
    report: Report | None
    signed_by: SignatureData | None


def parse_report(body: bytes) -> Report:
    """Read the 384 bytes of a report body."""
    return Report(
        misc_select=_le(body, 16, 4),
        flags=_le(body, 48, 8),
        attributes=body[48:64],
        mrenclave=body[64:96],
        mrsigner=body[128:160],
        isv_prod_id=_le(body, 256, 2),
        isv_svn=_le(body, 258, 2),
        report_data=body[320:384],
    )


def parse_quote(raw: bytes) -> Quote:
    """Read a quote; its length must be exactly what it declares.

    Raises:
        BadQuote: too large, cut, followed by other bytes, or not a quote at all.
    """
    if len(raw) > MAX_QUOTE_BYTES:
        raise BadQuote(
            f"the quote has more than {MAX_QUOTE_BYTES} bytes",
            check="a",
            got=f"{len(raw)} bytes or more",
            expected=f"at most {MAX_QUOTE_BYTES} bytes",
        )
    version, key_type, tee_type = _le(raw, 0, 2), _le(raw, 2, 2), _le(raw, 4, 4)
    known = (version == 3 and tee_type == TEE_SGX) or (version in (4, 5) and tee_type in (TEE_SGX, TEE_TDX))
    if len(raw) < SIGNED_BYTES or not known or key_type != KEY_ECDSA_P256 or raw[12:28] != INTEL_VENDOR:
        raise BadQuote(
            "the bytes do not begin like a DCAP quote",
            "give the raw quote, not its base64 or hex form",
            check="a",
            got=f"{len(raw)} bytes, beginning {raw[:8].hex() or 'with nothing'}",
            expected="a version 3 quote with an ECDSA P-256 key",
        )
    start = HEADER_BYTES + _body_size(raw, version, tee_type) + 4
    expected = start + _le(raw, start - 4, 4)
    # Quotes of other TEEs are refused by the policy whatever follows them; real ones come padded.
    if len(raw) < expected or (version == 3 and len(raw) != expected):
        raise BadQuote(
            f"the quote declares {expected} bytes and has {len(raw)}",
            "the file was cut, or something was appended to it",
            check="a",
            got=f"{len(raw)} bytes",
            expected=f"{expected} bytes",
        )
    if version != 3:
        return Quote(raw, version, tee_type, None, None)
    report = parse_report(raw[HEADER_BYTES:SIGNED_BYTES])
    return Quote(raw, version, tee_type, report, _signature_data(raw[start:]))


def _body_size(raw: bytes, version: int, tee_type: int) -> int:
    if version == 5:  # the body begins with its type and size
        return 6 + _le(raw, HEADER_BYTES + 2, 4)
    return TDX_BODY_BYTES if tee_type == TEE_TDX else SGX_BODY_BYTES


def _signature_data(data: bytes) -> SignatureData:
    at = FIXED_SIGNATURE_BYTES
    auth_end = at + 2 + _le(data, at, 2)
    chain_at = auth_end + 6
    if len(data) < at + 2 or len(data) < chain_at or len(data) != chain_at + _le(data, auth_end + 2, 4):
        raise BadQuote(
            "the lengths inside the quote's signature data do not add up",
            check="a",
            got=f"{len(data)} bytes of signature data",
            expected="authentication and certification data that fill them exactly",
        )
    kind = _le(data, auth_end, 2)
    if kind != PCK_CHAIN:
        raise BadQuote(
            "the quote does not carry its PCK certificate chain",
            "configure the machine's quote provider to put the chain in the quote (certification data type 5)",
            got=f"certification data type {kind}",
            expected=f"certification data type {PCK_CHAIN}",
        )
    return SignatureData(
        signature=data[:64],
        attestation_key=data[64:128],
        qe_report=data[128:512],
        qe_signature=data[512:576],
        auth_data=data[at + 2 : auth_end],
        pck_chain=data[chain_at:].rstrip(b"\0"),  # Intel's quotes end the PEM text with a zero byte
    )


def _le(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
