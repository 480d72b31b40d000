# SPDX-License-Identifier: Apache-2.0
"""The verification once more, step by step: to name what failed, and to agree with what was accepted.

dcap-qvl raises one error type for everything. After it has refused, the first step that does not hold names the
class. After it has accepted, all steps must hold as well: two readings of the same bytes have to agree.

Source: Intel "SGX ECDSA Quote Verification", steps of sgx_qv_verify_quote.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from trustformer.attestation.bundle import (
    FETCH_HINT,
    Collateral,
    Dated,
    PlatformLevel,
    dated_certificates,
)
from trustformer.attestation.errors import (
    BadCollateral,
    BadQuote,
    DebugEnclave,
    Expired,
    NotYetValid,
    Refusal,
    Revoked,
    TcbStatus,
)
from trustformer.attestation.parsing import Certificate, show_time
from trustformer.attestation.pck import Pck
from trustformer.attestation.quote import FLAG_DEBUG, SIGNED_BYTES, Quote, Report, SignatureData, parse_report

CLOCK_HINT = "or the clock of this machine is wrong"
REVOKED_HINT = "do not use this machine; ask its operator"


def diagnose(
    quote: Quote,
    chain: tuple[Certificate, ...],
    platform: Pck,
    collateral: Collateral,
    root: Certificate,
    now: int,
) -> Iterator[Refusal]:
    """Yield what does not hold, in the order of verification; the first is the reason."""
    yield from _pck_chain(chain, root)
    yield from _collateral_signatures(collateral, chain, root)
    yield from dates(collateral.dated() + dated_certificates(chain), now)
    yield from _revocation(collateral, chain)
    if quote.signed_by is None or quote.report is None:
        return
    yield from _platform_match(collateral, platform)
    yield from _quote_signatures(quote, quote.signed_by, chain[0])
    yield from _quoting_enclave(quote.signed_by, collateral)
    yield from _platform_level(collateral, platform)
    if quote.report.flags & FLAG_DEBUG:
        yield debug_enclave(quote.report.flags)


def collateral_faults(
    collateral: Collateral, chain: tuple[Certificate, ...], platform: Pck, root: Certificate
) -> Iterator[Refusal]:
    """Yield why collateral does not vouch for the platform of this chain under this root, dates aside."""
    yield from _collateral_signatures(collateral, chain, root)
    yield from _platform_match(collateral, platform)


def debug_enclave(flags: int) -> DebugEnclave:
    """The refusal of an enclave whose memory the host can read."""
    return DebugEnclave(
        "the enclave runs in debug mode, so the host can read its memory",
        "the operator must start a production build (sgx.debug = false)",
        got=f"ATTRIBUTES flags {flags:#x} with DEBUG",
        expected="DEBUG clear",
    )


def dates(items: list[Dated], now: int) -> Iterator[Refusal]:
    """Yield the item that expired first, then the one that becomes valid last, if `now` is outside."""
    first_end = min(items, key=lambda item: (item.not_after, item.last_second_counts))
    last_start = max(items, key=lambda item: item.not_before)
    if first_end.expired(now):
        yield Expired(
            f"{first_end.name} expired at {show_time(first_end.not_after)}; the time is {show_time(now)}",
            f"{FETCH_HINT} again, {CLOCK_HINT}",
            got=show_time(now),
            expected=f"at most {show_time(first_end.not_after)} ({first_end.name})",
        )
    if now < last_start.not_before:
        yield NotYetValid(
            f"{last_start.name} is valid from {show_time(last_start.not_before)}; the time is {show_time(now)}",
            f"the collateral is newer than the time given, {CLOCK_HINT}",
            got=show_time(now),
            expected=f"at least {show_time(last_start.not_before)} ({last_start.name})",
        )


def _chain_holds(chain: tuple[Certificate, ...], root: Certificate) -> bool:
    """Whether each certificate is issued by the next, a CA, and the last is, or is issued by, the root."""
    links = itertools.pairwise(chain)
    top = chain[-1]
    issued = all(issuer.is_ca and one.is_signed_by(issuer) for one, issuer in links)
    return issued and root.is_ca and (top.der == root.der or top.is_signed_by(root))


def _speaks_for_intel(chain: tuple[Certificate, ...], root: Certificate) -> bool:
    """Whether a chain is that of a TCB signer: the root issues these itself, and machines' certificates never.

    Without it the key of any one machine could sign its own TCB info; dcap-qvl 0.7 does not ask.
    """
    return _chain_holds(chain, root) and chain[0].is_signed_by(root) and not chain[0].is_ca


def _pck_chain(chain: tuple[Certificate, ...], root: Certificate) -> Iterator[Refusal]:
    if not _chain_holds(chain, root) or chain[0].is_ca:
        yield BadQuote(
            "the quote's certificate chain does not end at the pinned root",
            "the machine that made this quote is not vouched for by the root the policy pins",
            got=f"chain of {chain[0].name!r} ending in {hashlib.sha256(chain[-1].der).hexdigest()}",
            expected=f"root {hashlib.sha256(root.der).hexdigest()}",
        )


def _collateral_signatures(
    collateral: Collateral, chain: tuple[Certificate, ...], root: Certificate
) -> Iterator[Refusal]:
    texts = collateral.texts
    issuer = collateral.pck_crl_chain[0]
    statements = (
        (collateral.tcb_chain, texts.tcb_info, texts.tcb_info_signature),
        (collateral.qe_chain, texts.qe_identity, texts.qe_identity_signature),
    )
    steps: list[tuple[str, Callable[[], bool]]] = [
        ("the root's revocation list", lambda: collateral.root_crl.is_signed_by(root)),
        ("the chain of the PCK revocation list", lambda: issuer.is_ca and _chain_holds(collateral.pck_crl_chain, root)),
        ("the PCK revocation list", lambda: collateral.pck_crl.is_signed_by(issuer)),
        ("the chain of the TCB info", lambda: _speaks_for_intel(collateral.tcb_chain, root)),
        ("the TCB info", lambda: _signed(*statements[0])),
        ("the chain of the QE identity", lambda: _speaks_for_intel(collateral.qe_chain, root)),
        ("the QE identity", lambda: _signed(*statements[1])),
        ("the PCK revocation list (of another CA)", lambda: chain[0].is_signed_by(issuer)),
    ]
    for name, holds in steps:
        if not holds():
            yield _foreign(f"{name} is not signed as it must be", "a wrong or missing signature", name)


def _foreign(message: str, got: str, expected: str) -> BadCollateral:
    return BadCollateral(message, FETCH_HINT, got=got, expected=expected)


def _signed(chain: tuple[Certificate, ...], text: str, signature: str) -> bool:
    return verify_p256(chain[0].public_key, bytes.fromhex(signature), text.encode())


def verify_p256(key: ec.EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    """Whether r || s is an ECDSA P-256 signature over SHA-256 of the data."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def _revocation(collateral: Collateral, chain: tuple[Certificate, ...]) -> Iterator[Refusal]:
    revoked = [one for one in chain[:1] if one.serial in collateral.pck_crl.revoked]
    issued_by_root = (*chain[1:], *collateral.certificates)
    revoked += [one for one in issued_by_root if one.serial in collateral.root_crl.revoked]
    for one in revoked:
        yield Revoked(
            f"the certificate {one.name!r} is revoked",
            REVOKED_HINT,
            got=f"serial number {one.serial:x} on the revocation list",
            expected="no certificate of the chain revoked",
        )


def _platform_match(collateral: Collateral, platform: Pck) -> Iterator[Refusal]:
    info, identity = collateral.tcb_info, collateral.qe_identity
    if info.id != "SGX" or identity.id != "QE":
        got = f"{info.id} and {identity.id}"
        yield _foreign("the collateral is for another kind of TEE", got, "SGX and QE")
    if info.fmspc.lower() != platform.fmspc:
        yield _foreign("the collateral is for another platform", f"FMSPC {info.fmspc}", platform.fmspc)
    if info.pceId.lower() != platform.pce_id:
        yield _foreign("the collateral is for another platform", f"PCE id {info.pceId}", platform.pce_id)


def _quote_signatures(quote: Quote, by: SignatureData, leaf: Certificate) -> Iterator[Refusal]:
    if not verify_p256(leaf.public_key, by.qe_signature, by.qe_report):
        yield _bad_signature("the quoting enclave's report is not signed by the platform's certificate")
    bound = hashlib.sha256(by.attestation_key + by.auth_data).digest()
    if parse_report(by.qe_report).report_data != bound.ljust(64, b"\0"):
        yield _bad_signature("the quoting enclave did not vouch for this attestation key")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\4" + by.attestation_key)
    except ValueError:
        yield _bad_signature("the attestation key is not a point of P-256")
        return
    if not verify_p256(key, by.signature, quote.raw[:SIGNED_BYTES]):
        yield _bad_signature("the report is not signed by the attestation key: a field of it was changed")


def _bad_signature(message: str) -> BadQuote:
    return BadQuote(message, got="a wrong signature", expected="a signature over these bytes")


def _quoting_enclave(by: SignatureData, collateral: Collateral) -> Iterator[Refusal]:
    report, identity = parse_report(by.qe_report), collateral.qe_identity
    misc = report.misc_select.to_bytes(4, "little")
    same = (
        _masked(identity.attributesMask, identity.attributes, report.attributes)
        and _masked(identity.miscselectMask, identity.miscselect, misc)
        and identity.mrsigner.lower() == report.mrsigner.hex()
    )
    if report.flags & FLAG_DEBUG or not same or report.isv_prod_id != identity.isvprodid:
        yield BadQuote(
            "the quote was signed by something that is not the quoting enclave of the collateral",
            "ask the operator which quoting enclave the machine runs",
            got=f"MRSIGNER {report.mrsigner.hex()}, ISVPRODID {report.isv_prod_id}, flags {report.flags:#x}",
            expected=f"MRSIGNER {identity.mrsigner.lower()}, ISVPRODID {identity.isvprodid}, no debug",
        )
    yield from _level("quoting enclave", f"ISVSVN {report.isv_svn}", quoting_enclave_status(report, collateral))


def quoting_enclave_status(report: Report, collateral: Collateral) -> str:
    """Status of the first level that the quoting enclave reaches; empty for none."""
    levels = collateral.qe_identity.tcbLevels
    return next((level.tcbStatus for level in levels if report.isv_svn >= level.tcb.isvsvn), "")


def _masked(mask: str, want: str, got: bytes) -> bool:
    bits = zip(bytes.fromhex(mask), bytes.fromhex(want), got, strict=True)
    return all(m & w == m & g for m, w, g in bits)


def _platform_level(collateral: Collateral, platform: Pck) -> Iterator[Refusal]:
    yield from _level("platform", f"CPUSVN {platform.cpu_svn.hex()}", platform_status(collateral, platform))


def platform_status(collateral: Collateral, platform: Pck) -> str:
    """Status of the first level that the platform reaches; empty for none."""

    def reached(level: PlatformLevel) -> bool:
        least = [component.svn for component in level.tcb.sgxtcbcomponents]
        return platform.pce_svn >= level.tcb.pcesvn and all(
            have >= need for have, need in zip(platform.cpu_svn, least, strict=True)
        )

    return next((level.tcbStatus for level in collateral.tcb_info.tcbLevels if reached(level)), "")


def _level(what: str, got: str, status: str) -> Iterator[Refusal]:
    if status in ("", "Revoked"):
        yield TcbStatus(
            f"the {what} is {'revoked' if status else 'older than every level the collateral knows'}",
            REVOKED_HINT if status else "its operator must update the machine",
            got=f"{got}, status {status or 'none'}",
            expected="a status that may be listed",
        )
