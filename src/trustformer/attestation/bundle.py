# SPDX-License-Identifier: Apache-2.0
"""Collateral as data: nine fields that vouch for a platform, read strictly before anything is verified.

Source: Intel "SGX Provisioning Certification Service API" v4. The JSON has the shape dcap-qvl reads: PEM issuer
chains, CRLs as hex DER, `tcb_info` and `qe_identity` as the exact signed text with signatures in hex.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from trustformer.attestation.errors import BadCollateral
from trustformer.attestation.evidence import MAX_COLLATERAL_BYTES
from trustformer.attestation.parsing import (
    Certificate,
    Malformed,
    RevocationList,
    parse_chain,
    parse_crl,
    parse_time,
    strict_json,
)

FETCH_HINT = "fetch the collateral of this quote with `trustformer attest fetch`"

T = TypeVar("T")


Byte = Annotated[int, msgspec.Meta(ge=0, le=2**8 - 1)]
Short = Annotated[int, msgspec.Meta(ge=0, le=2**16 - 1)]
Word = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Hex2 = Annotated[str, msgspec.Meta(pattern="^[0-9A-Fa-f]{4}$")]
Hex4 = Annotated[str, msgspec.Meta(pattern="^[0-9A-Fa-f]{8}$")]
Hex6 = Annotated[str, msgspec.Meta(pattern="^[0-9A-Fa-f]{12}$")]
Hex16 = Annotated[str, msgspec.Meta(pattern="^[0-9A-Fa-f]{32}$")]
Hex32 = Annotated[str, msgspec.Meta(pattern="^[0-9A-Fa-f]{64}$")]
Status = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
    "TDRelaunchAdvised",  # of TDX only, which the policy refuses
    "TDRelaunchAdvisedConfigurationNeeded",
]


class _Svn(msgspec.Struct, frozen=True):
    svn: Byte


class _PlatformTcb(msgspec.Struct, frozen=True):
    sgxtcbcomponents: Annotated[list[_Svn], msgspec.Meta(min_length=16, max_length=16)]
    pcesvn: Short


class _EnclaveTcb(msgspec.Struct, frozen=True):
    isvsvn: Short


class _Level(msgspec.Struct, frozen=True, kw_only=True):
    tcbDate: str  # noqa: N815
    tcbStatus: Status  # noqa: N815
    advisoryIDs: list[str] = []  # noqa: N815


class PlatformLevel(_Level, frozen=True, kw_only=True):
    """One row of the TCB info: the least versions a platform needs to have this status."""

    tcb: _PlatformTcb


class EnclaveLevel(_Level, frozen=True, kw_only=True):
    """One row of the QE identity."""

    tcb: _EnclaveTcb


class _Statement(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    version: int
    issueDate: str  # noqa: N815
    nextUpdate: str  # noqa: N815
    tcbEvaluationDataNumber: Word  # noqa: N815


class TcbInfo(_Statement, frozen=True, kw_only=True):
    """The part of a TCB info of version 3 that the checks need."""

    fmspc: Hex6
    pceId: Hex2  # noqa: N815
    tcbType: Word  # noqa: N815
    tcbLevels: list[PlatformLevel]  # noqa: N815


class QeIdentity(_Statement, frozen=True, kw_only=True):
    """The part of a QE identity of version 2 that the checks need."""

    miscselect: Hex4
    miscselectMask: Hex4  # noqa: N815
    attributes: Hex16
    attributesMask: Hex16  # noqa: N815
    mrsigner: Hex32
    isvprodid: Short
    tcbLevels: list[EnclaveLevel]  # noqa: N815


@dataclass(frozen=True)
class Texts:
    """The nine fields as they were written."""

    pck_crl_issuer_chain: str
    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: str
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: str


@dataclass(frozen=True)
class Dated:
    """Something that is valid for a time only; both ends are in seconds since 1970.

    The last second counts, but for a revocation list, whose successor is due then (RFC 5280, 5.1.2.5).
    """

    name: str
    not_before: int
    not_after: int
    last_second_counts: bool = True

    def expired(self, now: int) -> bool:
        """Whether the time is over."""
        return now > self.not_after or (now == self.not_after and not self.last_second_counts)


@dataclass(frozen=True)
class Collateral:
    """Collateral whose form is right and whose signatures are not yet verified."""

    texts: Texts
    pck_crl_chain: tuple[Certificate, ...]
    tcb_chain: tuple[Certificate, ...]
    qe_chain: tuple[Certificate, ...]
    root_crl: RevocationList
    pck_crl: RevocationList
    tcb_info: TcbInfo
    qe_identity: QeIdentity

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All certificates of the three chains."""
        return self.pck_crl_chain + self.tcb_chain + self.qe_chain

    def dated(self) -> list[Dated]:
        """Everything in here that expires; malformed dates were refused on reading."""
        info, identity = self.tcb_info, self.qe_identity
        texts = [("TCB info", info.issueDate, info.nextUpdate)]
        texts += [("QE identity", identity.issueDate, identity.nextUpdate)]
        items = [Dated(name, parse_time(start, name), parse_time(end, name)) for name, start, end in texts]
        lists = [("revocation list of the root", self.root_crl), ("revocation list of PCKs", self.pck_crl)]
        items += [Dated(name, crl.not_before, crl.not_after, False) for name, crl in lists]
        return items + dated_certificates(self.certificates)


def dated_certificates(chain: Iterable[Certificate]) -> list[Dated]:
    """Validity of each certificate."""
    return [Dated(f"certificate {one.name!r}", one.not_before, one.not_after) for one in chain]


def parse_collateral(data: bytes | None) -> Collateral:
    """Read collateral.

    Raises:
        BadCollateral: absent, too large, malformed, or not TCB info version 3 and QE identity version 2.
    """
    if data is None or not data:
        raise BadCollateral("there is no collateral", FETCH_HINT, check="a", got="nothing", expected="collateral")
    if len(data) > MAX_COLLATERAL_BYTES:
        raise BadCollateral(
            f"the collateral has more than {MAX_COLLATERAL_BYTES} bytes",
            FETCH_HINT,
            check="a",
            got=f"{len(data)} bytes or more",
            expected=f"at most {MAX_COLLATERAL_BYTES} bytes",
        )
    try:
        return _read(_texts(strict_json(data, "the collateral")))
    except Malformed as error:
        raise BadCollateral(
            str(error), FETCH_HINT, got=str(error), expected="collateral as Intel's service gives it"
        ) from error


def _texts(value: Any) -> Texts:
    names = {field.name for field in fields(Texts)}
    # dcap-qvl writes a tenth field for quotes without a PCK chain; such quotes are refused, so it is unread.
    if not isinstance(value, dict) or set(value) - {"pck_certificate_chain"} != names:
        raise Malformed(f"the collateral does not have exactly the fields {', '.join(sorted(names))}")
    if not all(isinstance(value[name], str) for name in names):
        raise Malformed("a field of the collateral is not text")
    return Texts(**{name: value[name] for name in names})


def _read(texts: Texts) -> Collateral:
    signatures = (texts.tcb_info_signature, texts.qe_identity_signature)
    if any(len(parse_hex(signature, "a signature")) != 64 for signature in signatures):
        raise Malformed("a signature of the collateral does not have 64 bytes")
    collateral = Collateral(
        texts=texts,
        pck_crl_chain=parse_chain(texts.pck_crl_issuer_chain, "the chain of the PCK revocation list"),
        tcb_chain=parse_chain(texts.tcb_info_issuer_chain, "the chain of the TCB info"),
        qe_chain=parse_chain(texts.qe_identity_issuer_chain, "the chain of the QE identity"),
        root_crl=parse_crl(parse_hex(texts.root_ca_crl, "the root's CRL"), "the root's revocation list"),
        pck_crl=parse_crl(parse_hex(texts.pck_crl, "the PCK CRL"), "the PCK revocation list"),
        tcb_info=_statement(texts.tcb_info, TcbInfo, "TCB info", 3),
        qe_identity=_statement(texts.qe_identity, QeIdentity, "QE identity", 2),
    )
    collateral.dated()
    for level in (*collateral.tcb_info.tcbLevels, *collateral.qe_identity.tcbLevels):
        parse_time(level.tcbDate, "a TCB level")
    return collateral


def _statement(text: str, kind: type[T], what: str, version: int) -> T:
    value = strict_json(text, what)
    if isinstance(value, dict) and value.get("version") != version:
        raise Malformed(f"the {what} has version {str(value.get('version'))[:20]}, not {version}")
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"the {what} is not of version {version}: {str(error)[:120]}") from error


def parse_hex(text: str, what: str) -> bytes:
    """Return the bytes of a hex text; raises `Malformed`."""
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise Malformed(f"{what} is not hexadecimal") from error
