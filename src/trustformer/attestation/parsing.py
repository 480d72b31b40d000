# SPDX-License-Identifier: Apache-2.0
"""Bounded, strict readers of hostile bytes: JSON, certificate chains, revocation lists, Intel's dates.

Every function raises `Malformed` and nothing else; callers turn it into the class of their check.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

MAX_DEPTH = 16
MAX_CERTIFICATES = 6  # a PCK chain has three
MAX_REVOKED = 100_000


class Malformed(Exception):  # noqa: N818 (never leaves this package)
    """The bytes do not have the form they must have; the message says where."""


def strict_json(data: bytes | str, what: str) -> Any:
    """Parse JSON, refusing duplicate keys, NaN, broken text and more than `MAX_DEPTH` levels."""

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(items)
        if len(result) != len(items):
            raise Malformed(f"{what} has a duplicate key")
        return result

    def refuse(text: str) -> Any:
        raise Malformed(f"{what} has the number {text[:20]}")

    try:
        text = data if isinstance(data, str) else data.decode()
        text.encode()  # a lone surrogate would fail later, where nobody expects it
        value = json.loads(text, object_pairs_hook=pairs, parse_constant=refuse, parse_float=refuse)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"{what} is not JSON: {str(error)[:120]}") from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
    if level:
        raise Malformed(f"{what} is nested more than {MAX_DEPTH} levels deep")
    return value


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def parse_time(value: object, what: str) -> int:
    """Return seconds since 1970 of a date such as 2026-01-31T00:00:00Z."""
    try:
        if not isinstance(value, str) or len(value) > 40:
            raise ValueError
        when = datetime.fromisoformat(value)
        if when.tzinfo is None:
            raise ValueError
        return int(when.timestamp())
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{what} is not a date: {str(value)[:40]!r}") from error


def show_time(seconds: int) -> str:
    """Return the date of a number of seconds since 1970, as 2026-01-31T00:00:00Z."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s after 1970"


@dataclass(frozen=True)
class Certificate:
    """What the checks need of one certificate, read once so that nothing fails later."""

    name: str
    serial: int
    not_before: int
    not_after: int
    public_key: ec.EllipticCurvePublicKey
    is_ca: bool
    der: bytes
    raw: x509.Certificate

    def is_signed_by(self, issuer: Certificate) -> bool:
        """Whether issuer's name and key are those that issued this certificate."""
        try:
            self.raw.verify_directly_issued_by(issuer.raw)
        except Exception:  # any failure to verify is a failure to verify
            return False
        return True


@dataclass(frozen=True)
class RevocationList:
    """What the checks need of one CRL."""

    not_before: int
    not_after: int
    revoked: frozenset[int]
    raw: x509.CertificateRevocationList

    def is_signed_by(self, issuer: Certificate) -> bool:
        """Whether issuer's name and key are those that signed this list."""
        try:
            return self.raw.issuer == issuer.raw.subject and self.raw.is_signature_valid(issuer.public_key)
        except Exception:  # as above
            return False


def _read_certificate(raw: x509.Certificate) -> Certificate:
    key = raw.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("its key is not on the curve P-256")
    common = raw.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    constraints = [one.value for one in raw.extensions if isinstance(one.value, x509.BasicConstraints)]
    return Certificate(
        name=str(common[0].value) if common else raw.subject.rfc4514_string(),
        serial=raw.serial_number,
        not_before=int(raw.not_valid_before_utc.timestamp()),
        not_after=int(raw.not_valid_after_utc.timestamp()),
        public_key=key,
        is_ca=any(one.ca for one in constraints),
        der=raw.public_bytes(Encoding.DER),
        raw=raw,
    )


def parse_chain(pem: bytes | str, what: str) -> tuple[Certificate, ...]:
    """Read a PEM chain, leaf first."""
    # The parser of `cryptography` is lazy and raises many types (and warnings, which a caller may have
    # turned into errors): whatever it raises on hostile bytes means that they are not a chain.
    try:
        data = pem.encode() if isinstance(pem, str) else pem
        if not 1 <= data.count(b"-----BEGIN") <= MAX_CERTIFICATES:
            raise ValueError(f"{data.count(b'-----BEGIN')} certificates")
        return tuple(_read_certificate(raw) for raw in x509.load_pem_x509_certificates(data))
    except Exception as error:
        raise Malformed(f"{what} cannot be read: {str(error)[:120]}") from error


def parse_certificate(der: bytes, what: str) -> Certificate:
    """Read one DER or PEM certificate."""
    try:
        load = x509.load_pem_x509_certificate if b"-----BEGIN" in der else x509.load_der_x509_certificate
        return _read_certificate(load(der))
    except Exception as error:  # as above
        raise Malformed(f"{what} cannot be read: {str(error)[:120]}") from error


def parse_crl(der: bytes, what: str) -> RevocationList:
    """Read a DER revocation list."""
    try:
        raw = x509.load_der_x509_crl(der)
        if len(raw) > MAX_REVOKED:
            raise ValueError(f"{len(raw)} entries")
        if raw.next_update_utc is None:
            raise ValueError("it does not say until when it holds")
        return RevocationList(
            not_before=int(raw.last_update_utc.timestamp()),
            not_after=int(raw.next_update_utc.timestamp()),
            revoked=frozenset(entry.serial_number for entry in raw),
            raw=raw,
        )
    except Exception as error:  # as above
        raise Malformed(f"{what} cannot be read: {str(error)[:120]}") from error
