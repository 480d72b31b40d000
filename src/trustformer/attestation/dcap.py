# SPDX-License-Identifier: Apache-2.0
"""Verification of a DCAP quote under a pinned root: signatures, dates and revocation, nothing else.

`dcap-qvl` verifies, and then `diagnosis` does so again; both must agree before anything is claimed. Neither looks
at measurements, at most TCB statuses or for other TEEs: that is for the policy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import dcap_qvl

from trustformer.attestation.bundle import Collateral, Dated, dated_certificates, parse_collateral
from trustformer.attestation.claims import Claims, read_claims
from trustformer.attestation.diagnosis import diagnose, platform_status, quoting_enclave_status
from trustformer.attestation.errors import BadQuote, Refusal
from trustformer.attestation.parsing import Certificate, Malformed, parse_chain
from trustformer.attestation.pck import Pck, parse_pck
from trustformer.attestation.quote import Quote, parse_quote, parse_report

INTEL_ROOT_SHA256 = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
"""SHA-256 of the DER of the "Intel SGX Root CA", valid 2018-05-21 to 2049-12-31."""


@dataclass(frozen=True)
class Parsed:
    """Quote and collateral, well-formed and not yet verified."""

    quote: Quote
    chain: tuple[Certificate, ...]
    pck: Pck
    collateral: Collateral

    @property
    def root_sha256(self) -> str:
        """Fingerprint of the last certificate of the quote's chain, whatever it is."""
        return fingerprint(self.chain[-1].der)

    def certificate(self, sha256: str) -> Certificate | None:
        """The certificate with this fingerprint, if the evidence carries it."""
        carried = self.chain + self.collateral.certificates
        return next((one for one in carried if fingerprint(one.der) == sha256), None)

    def statuses(self) -> tuple[str, str] | None:
        """What the collateral says of platform and quoting enclave; None of other TEEs, which no policy accepts."""
        by, collateral = self.quote.signed_by, self.collateral
        if by is None:
            return None
        return platform_status(collateral, self.pck), quoting_enclave_status(parse_report(by.qe_report), collateral)

    def dated(self) -> list[Dated]:
        """Everything the verification depends on that expires."""
        return self.collateral.dated() + dated_certificates(self.chain)


def fingerprint(der: bytes) -> str:
    """Return the SHA-256 of a certificate, as 64 hex digits."""
    return hashlib.sha256(der).hexdigest()


def parse(quote: bytes, collateral: bytes | None) -> Parsed:
    """Read both, sizes first.

    Raises:
        BadQuote, BadCollateral: too large or malformed.
    """
    read = parse_quote(quote)
    pem = read.signed_by.pck_chain if read.signed_by else _foreign_chain(quote)
    try:
        chain = parse_chain(pem, "the quote's certificate chain")
    except Malformed as error:
        raise BadQuote(str(error), got=str(error), expected="a PEM chain of a PCK certificate") from error
    pck = parse_pck(pem)
    return Parsed(read, chain, pck, parse_collateral(collateral))


def _foreign_chain(quote: bytes) -> bytes:
    try:
        return bytes(_guard(lambda: dcap_qvl.parse_quote(quote).cert_chain_pem_bytes()) or b"")
    except _Refused as error:
        raise BadQuote(f"the quote cannot be read: {error}", expected="a DCAP quote") from error


class _Refused(Exception):  # noqa: N818 (never leaves this module)
    """dcap-qvl's answer when it does not accept."""


def _guard(call: Any) -> Any:
    """Call into dcap-qvl, with every way it can fail turned into one.

    Hostile bytes must not end in a panic of the Rust side either; it arrives as a BaseException that is not an
    Exception, so it is told from an interrupt by its name.
    """
    try:
        return call()
    except (ValueError, OverflowError, TypeError) as error:
        raise _Refused(str(error)[:300]) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _Refused("the verifier could not handle these bytes") from error


def verify(parsed: Parsed, roots: Iterable[Certificate], now: int) -> Claims:
    """Verify under any one of these roots at this time.

    Args:
        parsed: quote and collateral.
        roots: certificates whose fingerprints the policy pins; there may be none.
        now: seconds since 1970, by the clock of whoever verifies.

    Raises:
        BadQuote, BadCollateral, Expired, NotYetValid, Revoked: why it does not verify.
        DebugEnclave, TcbStatus: dcap-qvl refuses these already here.
    """
    refusals: list[Refusal] = []
    for root in sorted(roots, key=lambda root: root.der != parsed.chain[-1].der):
        try:
            return _verify_under(parsed, root, now)
        except Refusal as error:
            refusals.append(error)
    if refusals:  # the first root tried is the one the chain ends in, so its answer is the telling one
        raise refusals[0]
    raise BadQuote(
        "the quote's certificate chain does not end at a pinned root",
        "the machine that made this quote is not vouched for by a root the policy pins",
        got=f"root {parsed.root_sha256}",
        expected="a root with a pinned fingerprint",
    )


def _verify_under(parsed: Parsed, root: Certificate, now: int) -> Claims:
    texts = parsed.collateral.texts

    def call() -> Any:
        collateral = dcap_qvl.QuoteCollateralV3(
            texts.pck_crl_issuer_chain,
            bytes.fromhex(texts.root_ca_crl),
            bytes.fromhex(texts.pck_crl),
            texts.tcb_info_issuer_chain,
            texts.tcb_info,
            bytes.fromhex(texts.tcb_info_signature),
            texts.qe_identity_issuer_chain,
            texts.qe_identity,
            bytes.fromhex(texts.qe_identity_signature),
        )
        policy = dcap_qvl.QuotePolicy.claims_only(now)
        verifier = dcap_qvl.QuoteVerifier(root.der)
        return json.loads(verifier.verify_with_policy(parsed.quote.raw, collateral, now, policy).to_json())

    verified, answer = None, ""
    try:
        verified = _guard(call)
    except _Refused as error:
        answer = str(error)
    for refusal in diagnose(parsed.quote, parsed.chain, parsed.pck, parsed.collateral, root, now):
        raise refusal
    if verified is None:
        message = f"the quote does not verify: {answer}"
        raise BadQuote(message, got=answer, expected="a quote that verifies")
    try:
        return read_claims(
            *(parsed.quote, verified),
            dated=parsed.dated(),
            fmspc=parsed.pck.fmspc,
            statuses=parsed.statuses(),
            root_sha256=fingerprint(root.der),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadQuote("the two readings of the quote do not agree", got=str(error)[:120]) from error
