# SPDX-License-Identifier: Apache-2.0
"""Checks c to f: a policy's keys against the claims of a verified quote. Each is one comparison.

All are evaluated, so that a person sees everything that is wrong; the first that failed is the refusal.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from trustformer.attestation.claims import Claims
from trustformer.attestation.diagnosis import debug_enclave
from trustformer.attestation.errors import (
    Advisory,
    Attributes,
    Measurement,
    Platform,
    Refusal,
    ReportData,
    StaleCollateral,
    TcbStatus,
    WrongTee,
)
from trustformer.attestation.policy_file import PolicyFile
from trustformer.attestation.quote import FLAG_DEBUG, FLAG_INIT, FLAG_MODE64

ENCLAVE_FLAGS = FLAG_INIT | FLAG_MODE64
"""All other bits are refused, above all PROVISION_KEY (0x10) and EINITTOKEN_KEY (0x20)."""

REPORT_DATA_CHECK = "report data"


@dataclass(frozen=True)
class CheckResult:
    """One check, for the reader and for the record.

    Attributes:
        check: letter, see `attestation.errors`.
        name: what was compared; for a policy key, the key.
        result: "not checked" when an earlier failure or a missing input made it impossible.
        got, expected: the two sides, as text.
        refusal: the error to raise, if it failed.
    """

    check: str
    name: str
    result: Literal["passed", "failed", "not checked"]
    got: str = ""
    expected: str = ""
    refusal: Refusal | None = None

    def to_dict(self) -> dict[str, str]:
        """Return the check for JSON; `error` is the class of the refusal."""
        fields = {"check": self.check, "name": self.name, "result": self.result}
        error = {"error": type(self.refusal).__name__} if self.refusal else {}
        return fields | error | {"got": self.got, "expected": self.expected}


def passed(check: str, name: str, got: str = "", expected: str = "") -> CheckResult:
    """Return the result of a check that holds."""
    return CheckResult(check, name, "passed", got, expected)


def failed(name: str, refusal: Refusal) -> CheckResult:
    """Return the result of a check that does not hold."""
    return CheckResult(refusal.check, name, "failed", refusal.got, refusal.expected, refusal)


def _compare(
    kind: type[Refusal], name: str, holds: bool, got: object, expected: object, *, message: str, hint: str = ""
) -> CheckResult:
    if holds:
        return passed(kind.letter, name, str(got), str(expected))
    return failed(name, kind(message, hint, got=str(got), expected=str(expected)))


def check_claims(claims: Claims, policy: PolicyFile, expected: bytes | None) -> Iterator[CheckResult]:
    """Yield every check from c to f.

    Args:
        claims: of a quote that verified under a root the policy pins.
        policy: what the client accepts.
        expected: the 64 bytes of report data the client computed itself; None leaves f unchecked.
    """
    # c: the kind of enclave.
    is_sgx = claims.tee == "SGX" and claims.quote_version == 3
    got = f"{claims.tee}, quote version {claims.quote_version}"
    message = "the quote is genuine, but not of an SGX enclave in version 3"
    yield _compare(WrongTee, "tee", is_sgx, got, "SGX, quote version 3", message=message)
    if is_sgx:
        yield from _enclave_mode(claims.flags or 0)
        yield from _identity(claims, policy)  # d
        yield from _tcb(claims, policy)  # e
        yield from _machine(claims, policy)  # e
        yield _report_data(claims.report_data or "", expected)  # f


def _enclave_mode(flags: int) -> Iterator[CheckResult]:
    """c: not a debug enclave, and no attribute that a production enclave does not need."""
    if flags & FLAG_DEBUG:
        yield failed("debug", debug_enclave(flags))
    else:
        yield passed("c", "debug", f"{flags:#x}", "DEBUG clear")
    message = "the enclave's ATTRIBUTES flags are not exactly INIT and MODE64BIT"
    hint = "the operator must build it without PROVISION_KEY, EINITTOKEN_KEY and other special rights"
    good = flags & ~FLAG_DEBUG == ENCLAVE_FLAGS
    got, expected = f"{flags:#x}", f"{ENCLAVE_FLAGS:#x}"
    yield _compare(Attributes, "attributes", good, got, expected, message=message, hint=hint)


def _identity(claims: Claims, policy: PolicyFile) -> Iterator[CheckResult]:
    """d: which program it is."""
    for name, value in (("mrenclave", claims.mrenclave), ("mrsigner", claims.mrsigner)):
        accepted = getattr(policy, name)
        if accepted is not None:
            message = f"{name.upper()} is not on the policy's list"
            listed = ", ".join(accepted)
            yield _compare(Measurement, name, value in accepted, value, listed, message=message)
    if policy.isv_prod_id is not None:
        same = claims.isv_prod_id == policy.isv_prod_id
        message = "ISVPRODID is not the policy's"
        yield _compare(Measurement, "isv_prod_id", same, claims.isv_prod_id, policy.isv_prod_id, message=message)
    if policy.min_isv_svn is not None:
        enough = claims.isv_svn is not None and claims.isv_svn >= policy.min_isv_svn
        message = "ISVSVN is below the policy's minimum"
        expected = f"at least {policy.min_isv_svn}"
        yield _compare(Measurement, "min_isv_svn", enough, claims.isv_svn, expected, message=message)


def _tcb(claims: Claims, policy: PolicyFile) -> Iterator[CheckResult]:
    """e: what Intel says about the state of the platform, and how recently."""
    accepted = [status for status in policy.tcb_status if status != "Revoked"]  # never, even if listed
    # The overall status is the worse of the two; each must be acceptable by itself too.
    parts = {claims.platform_status, claims.qe_status} - {"UpToDate"}
    good = claims.tcb_status in accepted and parts <= set(accepted)
    yield _compare(
        TcbStatus,
        "tcb_status",
        good,
        f"{claims.tcb_status} (platform {claims.platform_status}, quoting enclave {claims.qe_status})",
        ", ".join(accepted) or "none",
        message=f"the TCB status is {claims.tcb_status}, which the policy does not list",
        hint="the operator should update the machine; or list the status in tcb_status, knowing what it means",
    )
    missing = [advisory for advisory in claims.advisories if advisory not in policy.advisories]
    yield _compare(
        Advisory,
        "advisories",
        not missing,
        ", ".join(claims.advisories) or "none",
        ", ".join(policy.advisories) or "none",
        message=f"the policy does not accept {', '.join(missing)}",
        hint="read each at intel.com/security-center, then list those that the enclave copes with",
    )
    if policy.min_tcb_evaluation_data_number is not None:
        number, least = claims.tcb_evaluation_data_number, policy.min_tcb_evaluation_data_number
        yield _compare(
            StaleCollateral,
            "min_tcb_evaluation_data_number",
            number >= least,
            number,
            f"at least {least}",
            message="the collateral is older than the policy asks: a later one may say that the TCB is out of date",
            hint="fetch fresh collateral with `trustformer attest fetch`",
        )


def _machine(claims: Claims, policy: PolicyFile) -> Iterator[CheckResult]:
    """e: how the machine is set up, and which one it is."""
    flags = (
        ("allow_dynamic_platform", claims.dynamic_platform, policy.allow_dynamic_platform),
        ("allow_cached_keys", claims.cached_keys, policy.allow_cached_keys),
        ("allow_smt", claims.smt_enabled, policy.allow_smt),
    )
    for name, value, allowed in flags:
        good = allowed or value in ("False", "Undefined")  # undefined: certificates of the Processor CA
        what = name.removeprefix("allow_").replace("_", " ")
        message = f"the platform has {what}, which the policy does not allow"
        yield _compare(Platform, name, good, value, "any" if allowed else "False", message=message)
    for name, identifier in (("ppid", claims.ppid), ("fmspc", claims.fmspc)):
        accepted: Iterable[str] | None = getattr(policy, name)
        if accepted is not None:
            message = f"the platform's {name.upper()} is not on the policy's list"
            yield _compare(Platform, name, identifier in accepted, identifier, ", ".join(accepted), message=message)


def _report_data(got: str, expected: bytes | None) -> CheckResult:
    """f: this session and no other."""
    if expected is None:
        return CheckResult("f", REPORT_DATA_CHECK, "not checked", got, "")
    return _compare(
        ReportData,
        REPORT_DATA_CHECK,
        hmac.compare_digest(bytes.fromhex(got), expected),
        got,
        expected.hex(),
        message="the quote is not bound to this client, nonce, run, configuration and these keys",
        hint="it was made for another session, or the host replaced a key",
    )
