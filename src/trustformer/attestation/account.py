# SPDX-License-Identifier: Apache-2.0
"""An appraisal told to others: as JSON, and in words for a person who has never seen a quote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trustformer.attestation.checks import REPORT_DATA_CHECK
from trustformer.attestation.claims import Claims
from trustformer.attestation.dcap import INTEL_ROOT_SHA256, Parsed
from trustformer.attestation.parsing import show_time
from trustformer.attestation.policy import Appraisal, Policy
from trustformer.attestation.quote import FLAG_DEBUG, Report

INTRODUCTION = (
    "A quote is a statement, signed inside a processor with Intel SGX: 'a program with this measurement runs in "
    "an enclave on this machine, and it asked me to repeat these 64 bytes'. An enclave is memory that the "
    "machine's owner can neither read nor change. Collateral is what Intel says about the machine: whether its "
    "key is revoked and whether its firmware is up to date. A policy says which of all this its author accepts."
)

LETTERS = {
    "a": "Is it a kind of evidence the policy names, and is it well-formed?",
    "b": "Is it signed, through every certificate, under a pinned root, and still valid?",
    "c": "Is it an SGX enclave that nobody can debug?",
    "d": "Is it the program I expect?",
    "e": "Is the machine in a state I accept?",
    "f": "Was it made for me, now, with these keys and this configuration?",
}

STATUS = {
    "UpToDate": "Firmware and settings are what Intel asks for.",
    "SWHardeningNeeded": "Firmware is current; the program itself must defend against the advisories listed.",
    "ConfigurationNeeded": "Firmware is current; a setting of the machine (often hyper-threading) is not.",
    "ConfigurationAndSWHardeningNeeded": "Both a setting and defences in the program are wanted.",
    "OutOfDate": "Firmware with known holes is running.",
    "OutOfDateConfigurationNeeded": "Firmware with known holes is running, and a setting is wrong too.",
}

LIMITS = (
    "What this cannot say: that nobody with physical access taps the memory bus. Attacks published in 2025 take "
    "a machine's signing key that way, and can then sign any measurement. A list of known machines (ppid in the "
    "policy) keeps out quotes signed with a key stolen from some other machine."
)


def describe_quote(parsed: Parsed) -> Iterator[str]:
    """Yield sentences about the bytes alone; nothing in them has been verified."""
    quote = parsed.quote
    yield f"{len(quote.raw)} bytes, version {quote.version}."
    if quote.report is None:
        yield "It is not a quote of an SGX enclave in version 3 (for example, of a TDX virtual machine)."
    else:
        yield from _describe_report(quote.report)
    names = " <- ".join(one.name for one in parsed.chain)
    yield f"Signed by a machine of type {parsed.pck.fmspc} (FMSPC), certified by: {names}."
    yield f"The root of that chain has the fingerprint {parsed.root_sha256}."
    first = min(parsed.dated(), key=lambda item: item.not_after)
    yield f"Quote and collateral together hold until {show_time(first.not_after)} ({first.name})."


def _describe_report(report: Report) -> Iterator[str]:
    yield f"MRENCLAVE {report.mrenclave.hex()}: the measurement of the program, every byte of code it loaded."
    yield f"MRSIGNER {report.mrsigner.hex()}: who signed the program."
    yield f"ISVPRODID {report.isv_prod_id}, ISVSVN {report.isv_svn}: product and security version it claims."
    debug = "DEBUG IS SET, so the host can read everything" if report.flags & FLAG_DEBUG else "debug is off"
    yield f"ATTRIBUTES flags {report.flags:#x}: {debug}."
    yield f"Report data {report.report_data.hex()}: what the program asked to be repeated."


def describe_claims(claims: Claims) -> Iterator[str]:
    """Yield sentences about what Intel, or the pinned root, says of the machine."""
    if claims.root_sha256 != INTEL_ROOT_SHA256:
        yield "The pinned root is not Intel's: this is simulated, and proves nothing about any hardware."
    yield f"TCB status {claims.tcb_status}. {STATUS.get(claims.tcb_status, 'Not a known status.')}"
    listed = ", ".join(claims.advisories)
    yield f"Security advisories that apply: {listed or 'none'}."
    yield f"Intel's judgement is number {claims.tcb_evaluation_data_number}; higher is more recent."
    yield f"The machine itself has the identifier {claims.ppid} (PPID)."
    yield (
        f"Dynamic platform: {claims.dynamic_platform}. Cached keys: {claims.cached_keys}. "
        f"Hyper-threading: {claims.smt_enabled}."
    )
    yield f"Valid from {show_time(claims.not_before)} to {show_time(claims.not_after)}."


def describe_checks(appraisal: Appraisal) -> Iterator[tuple[str, list[str]]]:
    """Yield each question with its answers."""
    for letter, question in LETTERS.items():
        answers = []
        for check in appraisal.checks:
            if check.check == letter:
                detail = f": {check.refusal.message}" if check.refusal else ""
                answers.append(f"{check.result}  {check.name}{detail}")
        yield f"{letter}  {question}", answers


def verdict(appraisal: Appraisal) -> str:
    """Return the decision in one sentence."""
    refusal = appraisal.refusal
    if refusal is None:
        return "ACCEPTED: every check that could be made holds."
    return f"REFUSED at check {refusal.check} ({type(refusal).__name__}): {refusal.message}."


def as_json(appraisal: Appraisal, policy: Policy, now: int) -> dict[str, Any]:
    """Return decision, failed check, all checks and claims.

    `claims` is None when the quote did not verify; the fields of its bytes are then under `unverified_quote`.
    """
    refusal = appraisal.refusal
    failed = refusal and {
        "check": refusal.check,
        "error": type(refusal).__name__,
        "message": refusal.message,
        "hint": refusal.hint,
        "got": refusal.got,
        "expected": refusal.expected,
    }
    report = appraisal.parsed.quote.report if appraisal.parsed and not appraisal.claims else None
    unverified = report and {
        name: value.hex() if isinstance(value, bytes) else value for name, value in vars(report).items()
    }
    return {
        "decision": "refused" if refusal else "accepted",
        "at": show_time(now),
        "provider": appraisal.kind,
        "policy_digest": policy.digest.hex(),
        "failed": failed,
        "report_data": next(one.result for one in appraisal.checks if one.name == REPORT_DATA_CHECK),
        "checks": [check.to_dict() for check in appraisal.checks],
        "claims": appraisal.claims.to_dict() if appraisal.claims else None,
        "unverified_quote": unverified,
    }
