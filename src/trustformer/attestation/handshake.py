# SPDX-License-Identifier: Apache-2.0
"""The client's side of the attested handshake: bind, appraise, compare, and keep a record.

A client that has received an aggregator's signed answer calls, in this order,

    check_config       f   the configuration is the one it agreed to
    appraise           a-f the evidence, against its policy and a binding it computed itself
    check_signature    g   the answer is signed by the key that the quote is bound to
    check_progress     g   the aggregator is not behind, or beside, what the client has seen

and sends nothing unless all four return.
"""

from __future__ import annotations

import base64
import hmac
from typing import Any

import msgspec

from trustformer.attestation.checks import CheckResult
from trustformer.attestation.errors import BadSignature, ConfigMismatch, Rollback
from trustformer.attestation.evidence import MAX_COLLATERAL_BYTES, MAX_QUOTE_BYTES, Binding, Evidence, Kind
from trustformer.attestation.policy import Policy
from trustformer.errors import MessageError, SealError
from trustformer.secure.identity import verify

NO_HASH = bytes(32)
"""Manifest hash of a client, or an aggregator, that has seen no round."""

MAX_RECORD_BYTES = 4 * (MAX_QUOTE_BYTES + MAX_COLLATERAL_BYTES)


class VerificationRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One appraisal, complete enough for somebody else to repeat it offline.

    Attributes:
        time: of the appraisal, seconds since 1970, by the client's clock.
        kind: provider the evidence was appraised as.
        quote, collateral: base64; collateral is empty if there was none.
        policy: hex digest of the policy's keys (`Policy.digest`).
        decision: "accepted" or "refused".
        error: class of the refusal, empty if accepted.
        checks: every check with both sides, in order.
        binding: fields of the expected report data (bytes as hex); None if it was not checked.
    """

    time: int
    kind: str
    quote: str
    collateral: str
    policy: str
    decision: str
    error: str
    checks: list[dict[str, str]]
    binding: dict[str, str] | None

    def to_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return msgspec.structs.asdict(self)

    @classmethod
    def from_dict(cls, value: Any) -> VerificationRecord:
        """Read a record; raises `MessageError` if it is not one."""
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise MessageError(f"not a verification record: {str(error)[:200]}") from error

    def evidence(self) -> Evidence:
        """Return the evidence as it was received; raises `MessageError`."""
        if len(self.quote) + len(self.collateral) > MAX_RECORD_BYTES:
            raise MessageError("the record's evidence is too large")
        try:
            quote = base64.b64decode(self.quote, validate=True)
            collateral = base64.b64decode(self.collateral, validate=True)
        except ValueError as error:
            raise MessageError("the record's evidence is not base64") from error
        kinds: dict[str, Kind] = {"gramine-dcap": "gramine-dcap", "simulated": "simulated"}
        if self.kind not in kinds:
            raise MessageError(f"the record names the provider {self.kind[:40]!r}")
        return Evidence(kinds[self.kind], quote, collateral or None)


def appraise(evidence: Evidence, policy: Policy, now: int, *, binding: Binding | None = None) -> VerificationRecord:
    """Check evidence against a policy and return the record of it.

    Args:
        evidence: as received.
        policy: the client's own.
        now: seconds since 1970, by the client's own clock.
        binding: what the quote must be bound to, with the client's own nonce, id, run and config digest;
            None only for evidence that belongs to no session.

    Raises:
        Refusal: of the class of the first failed check; its `record` is the VerificationRecord.
    """
    expected = binding.report_data() if binding else None
    appraisal = policy.appraise(evidence, now=now, expected_report_data=expected)
    refusal = appraisal.refusal
    record = VerificationRecord(
        time=now,
        kind=evidence.kind,
        quote=base64.b64encode(evidence.quote).decode(),
        collateral=base64.b64encode(evidence.collateral or b"").decode(),
        policy=policy.digest.hex(),
        decision="refused" if refusal else "accepted",
        error=type(refusal).__name__ if refusal else "",
        checks=[check.to_dict() for check in appraisal.checks],
        binding=_show(binding) if binding else None,
    )
    if refusal:
        refusal.record = record
        raise refusal
    return record


def reappraise(record: VerificationRecord, policy: Policy) -> list[CheckResult]:
    """Repeat a recorded appraisal, at its own time, and return the results.

    Raises:
        Refusal: the evidence does not satisfy the policy, whatever the record says.
        MessageError: the record is malformed or belongs to another policy.
    """
    if record.policy != policy.digest.hex():
        raise MessageError("the record was made under another policy", "give the policy kept with the run")
    expected = None if record.binding is None else _read(record.binding).report_data()
    return policy.check(record.evidence(), now=record.time, expected_report_data=expected)


def _show(binding: Binding) -> dict[str, str]:
    fields = {name: getattr(binding, name) for name in Binding.__dataclass_fields__}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}


def _read(fields: dict[str, str]) -> Binding:
    """Inverse of `_show`, for bindings whose suite and client id are text."""
    texts = ("suite", "client_id")
    if set(fields) != set(Binding.__dataclass_fields__):
        raise MessageError("the record's binding does not have exactly the fields of one")
    try:
        raw = {name: bytes.fromhex(value) for name, value in fields.items() if name not in texts}
    except ValueError as error:
        raise MessageError("the record's binding is not hexadecimal") from error
    return Binding(suite=fields["suite"], client_id=fields["client_id"], **raw)


def check_config(got: bytes, agreed: bytes) -> None:
    """f: the aggregator's config digest is the one this client agreed to.

    Raises:
        ConfigMismatch: a host started the right program with, say, min_clients = 1 or a roster of its own.
    """
    if not hmac.compare_digest(got, agreed):
        raise ConfigMismatch(
            "the aggregator runs another configuration than this client agreed to",
            "compare roster, min_clients, rounds and limits with the operator",
            got=got.hex(),
            expected=agreed.hex(),
        )


def check_signature(vk_e: bytes, signature: bytes, body: bytes) -> None:
    """g: the answer is signed by the Ed25519 key that the quote is bound to.

    Raises:
        BadSignature: it is not, or the key is not one.
    """
    try:
        verify(vk_e, signature, body, "the aggregator's answer")
    except SealError as error:
        raise BadSignature(
            "the aggregator's answer is not signed by the attested key",
            "somebody between this client and the enclave changed it",
            got="a wrong signature",
            expected=f"a signature of {vk_e.hex()}",
        ) from error


def check_progress(*, round_: int, manifest: bytes, stored_round: int, stored_manifest: bytes) -> None:
    """g: the aggregator is not behind what this client has seen, and not beside it.

    Where it is ahead, the caller fetches the manifests between and verifies that they follow one another.

    Args:
        round_: newest released round of the aggregator; 0 before the first.
        manifest: hash of that round's manifest; `NO_HASH` before the first.
        stored_round: newest round this client has adopted.
        stored_manifest: hash of that round's manifest.

    Raises:
        Rollback: it is behind, or has another history (a fork).
    """
    behind = round_ < stored_round
    forked = round_ == stored_round and not hmac.compare_digest(manifest, stored_manifest)
    if behind or forked:
        raise Rollback(
            "the aggregator " + ("is behind this client" if behind else "has another history than this client"),
            "its state was rolled back or forked; do not continue before the operator explains it",
            got=f"round {round_}, manifest {manifest.hex()}",
            expected=f"round {stored_round} or later, after manifest {stored_manifest.hex()}",
        )
