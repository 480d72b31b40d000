# SPDX-License-Identifier: Apache-2.0
"""One error class per check, so that a refusal names what failed.

The letters are those of the checks a client makes, in this order:

    a  provider and sizes      ProviderNotAllowed (BadQuote, BadCollateral for sizes)
    b  signatures and dates    BadQuote, BadCollateral, Expired, NotYetValid, Revoked
    c  kind of enclave         WrongTee, DebugEnclave, Attributes
    d  identity                Measurement
    e  state of the platform   TcbStatus, Advisory, StaleCollateral, Platform
    f  binding to this session ReportData, ConfigMismatch
    g  the session's message   BadSignature, Rollback
"""

from __future__ import annotations

from typing import ClassVar

from trustformer.errors import AttestationError


class Refusal(AttestationError):  # noqa: N818 (a base of names the protocol fixes)
    """A numbered check that did not hold.

    Args:
        message: what was wrong; one sentence without a full stop.
        hint: what to do about it; the class's usual one when empty.
        got: the value found, as text.
        expected: what the check wants, as text.
        check: letter of the check; the class's own when empty.
    """

    letter: ClassVar[str] = ""
    usual_hint: ClassVar[str] = ""

    def __init__(self, message: str, hint: str = "", *, got: str = "", expected: str = "", check: str = "") -> None:
        super().__init__(message, hint or self.usual_hint)
        self.check = check or self.letter
        self.got = got
        self.expected = expected
        self.record: object | None = None  # the VerificationRecord of the refusal, where one was made


class ProviderNotAllowed(Refusal):
    """The kind of evidence is not one the policy names."""

    letter = "a"


class BadQuote(Refusal):
    """The quote is malformed, or a signature on the way from the pinned root to the report is wrong."""

    letter = "b"
    usual_hint = "the quote was damaged or forged, or is not one; ask for a new one"


class BadCollateral(Refusal):
    """The collateral is absent, malformed, not signed under the root, or made for another platform."""

    letter = "b"


class Expired(Refusal):
    """A certificate, CRL or signed statement is past its last day."""

    letter = "b"


class NotYetValid(Refusal):
    """A certificate, CRL or signed statement was issued after the time of the appraisal."""

    letter = "b"


class Revoked(Refusal):
    """A certificate of the chain is on a revocation list."""

    letter = "b"


class WrongTee(Refusal):
    """A genuine quote of something that is not an SGX enclave with a version 3 quote."""

    letter = "c"
    usual_hint = "ask the operator for a quote of the aggregator's SGX enclave"


class DebugEnclave(Refusal):
    """The enclave runs in debug mode: its memory is open to the host."""

    letter = "c"


class Attributes(Refusal):
    """The enclave's ATTRIBUTES flags are not exactly INIT and MODE64BIT."""

    letter = "c"


class Measurement(Refusal):
    """MRENCLAVE, MRSIGNER, ISVPRODID or ISVSVN is not what the policy lists."""

    letter = "d"
    usual_hint = "if the operator released a new version, pin its signed release with `trustformer attest pin`"


class TcbStatus(Refusal):
    """The platform's or quoting enclave's TCB status is not one the policy lists."""

    letter = "e"


class Advisory(Refusal):
    """A security advisory applies that the policy does not accept."""

    letter = "e"


class StaleCollateral(Refusal):
    """The TCB evaluation data number is below the policy's minimum."""

    letter = "e"


class Platform(Refusal):
    """The platform's flags, PPID or FMSPC are not what the policy allows."""

    letter = "e"
    usual_hint = "ask the operator which machine it is; or allow it in the policy, knowing what that means"


class ReportData(Refusal):
    """The quote is not bound to this client, nonce, run, configuration or these keys."""

    letter = "f"


class ConfigMismatch(Refusal):
    """The aggregator runs another configuration than the client agreed to."""

    letter = "f"


class BadSignature(Refusal):
    """An Ed25519 signature (of the attested key, or of a publisher) does not verify."""

    letter = "g"


class Rollback(Refusal):
    """The aggregator's round or manifest is not the successor of what the client has stored."""

    letter = "g"
