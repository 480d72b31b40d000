# SPDX-License-Identifier: Apache-2.0
"""A third party verifies a whole run again, offline, from what its directory holds.

It needs the run's terms, the clients' policy, verification records, receipts and the released rounds; no key, no
private text, no network. It shows that every client checked an enclave before it sent anything, that the rounds form
one unbroken chain under keys those quotes are bound to, and that what was accepted was combined.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from trustformer.attestation.handshake import VerificationRecord, reappraise
from trustformer.attestation.policy import Policy
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import MAX_MESSAGE, NO_HASH, Manifest, Receipt, split_signed
from trustformer.errors import ConfigError, DataError, TrustformerError
from trustformer.federation.host import split_kept
from trustformer.message import digest
from trustformer.secure.identity import verify
from trustformer.secure.sealing import sealed_length
from trustformer.vq import body_size


class _Verification(VerificationRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    client: str


class _Verifications(msgspec.Struct, frozen=True):
    verifications: list[_Verification]


class _Line(msgspec.Struct, frozen=True):
    client: str
    receipt: str


_SHOWN = 5
"""Problems of one check that are told; more of a kind say nothing new."""
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on foreign JSON; the last where it is nested too deeply."""


@dataclass
class Audit:
    """What was checked, and what did not hold.

    Attributes:
        passed: one sentence for each check that held.
        failed: one sentence for everything that speaks against a check, after its name.
        notes: what a reader must know to judge the rest.
    """

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, held: str, problems: list[str]) -> None:
        """Record a check: what `held`, or the first few of the problems."""
        self.failed += [f"{name}: {problem}" for problem in problems[:_SHOWN]]
        if len(problems) > _SHOWN:
            self.failed.append(f"{name}: and {len(problems) - _SHOWN} more like these")
        if not problems:
            self.passed.append(held)


@dataclass
class _Quotes:
    """What the records that passed vouch for: signing key by boot, and (client, boot) that a client accepted; hex."""

    keys: dict[str, str] = field(default_factory=dict)
    accepted: set[tuple[str, str]] = field(default_factory=set)

    def check(self, boot_id: bytes, signed: tuple[bytes, bytes], what: str) -> None:
        """Raise `SealError` if a message is not signed by an attested key of its boot."""
        body, signature = signed
        verify(bytes.fromhex(self.keys.get(boot_id.hex(), "")), signature, body, what)


def audit(run: Path, policy: Path | None = None) -> Audit:
    """Verify a run directory again.

    Args:
        run: the run directory.
        policy: the auditor's own policy; the run's own when None.

    Raises:
        ConfigError: the directory is not a run that exchanges anything, or lacks a file.
        DataError: a file that is damaged as a whole; names it.
    """
    if not run.is_dir():
        raise ConfigError(f"{run} does not exist", "give a run directory")
    if not (run / "terms.bin").is_file():
        known = (run / "config.toml").is_file()
        hint = "runs of local and centralized send nothing" if known else "give a run directory: this is none"
        raise ConfigError(f"{run} holds no exchange to audit", hint)
    try:
        terms = RunConfig.from_bytes(_read(run / "terms.bin"))
    except TrustformerError as error:
        raise DataError(f"{run / 'terms.bin'}: {error.message}", "get the file the clients agreed to") from None
    report = Audit()
    if terms.provider == "simulated":
        report.notes.append(
            "SIMULATED ATTESTATION: the quotes prove nothing about hardware, nor about what read the data"
        )
    whose = "yours" if policy else "the run's own; --policy FILE takes yours"
    report.notes.append(f"policy: {policy or run / 'policy.toml'} ({whose})")
    records = _records(run / "attestation.json")
    quotes = _verifications(records, terms, Policy.load(policy or run / "policy.toml"), policy is not None, report)
    if not quotes.accepted:
        report.notes.append("rounds and receipts were not checked: no quote vouches for a key they could be signed by")
        return report
    receipts, unsigned = _signed_receipts(run / "receipts.jsonl", quotes)
    due = terms.rounds
    if not (run / "result.json").is_file():  # not finished
        due = max((receipt.round for receipt in receipts if receipt.status == "accepted"), default=0)
    manifests = _manifests(run, terms, quotes, due, report)
    _receipts(receipts, unsigned, quotes, manifests, report)
    return report


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", "an audit needs the whole run directory"
        ) from None


def _records(path: Path) -> list[_Verification]:
    try:
        return msgspec.json.decode(_read(path), type=_Verifications).verifications
    except _UNREADABLE as error:
        raise DataError(
            f"{path} does not hold verification records: {str(error)[:200]}", "get the file as the run left it"
        ) from None


def _verifications(
    records: list[_Verification], terms: RunConfig, policy: Policy, foreign: bool, report: Audit
) -> _Quotes:
    quotes, problems, count = _Quotes(), [], 0
    for record in records:
        client, binding = record.client, record.binding or {}
        expected = {"run_id": terms.run_id.hex(), "cfg": terms.digest.hex(), "client_id": client}
        if foreign:
            record = msgspec.structs.replace(record, policy=policy.digest.hex())
        try:
            reappraise(record, policy)
            terms.key_of(client)
        except TrustformerError as error:
            if record.decision == "accepted":
                problems.append(f"client {client} accepted evidence that does not verify: {error.message}")
            continue
        if any(binding.get(key) != value for key, value in expected.items()):
            problems.append(f"a quote for client {client} is bound to another run, config or client")
        elif quotes.keys.setdefault(binding["boot_id"], binding["vk_e"]) != binding["vk_e"]:
            problems.append(f"two signing keys for the boot {binding['boot_id']}")
        elif record.decision == "accepted":
            quotes.accepted.add((client, binding["boot_id"]))
            count += 1
    what = f"{count} quotes verify under the policy and are bound to this run, its terms and their client"
    report.add("quotes", what, problems or ([] if count else ["no client has a record of one that it accepted"]))
    return quotes


def _manifests(run: Path, terms: RunConfig, quotes: _Quotes, due: int, report: Audit) -> dict[int, Manifest]:
    manifests: dict[int, Manifest] = {}
    problems: list[str] = []
    limit = MAX_MESSAGE + sealed_length(body_size(terms.answer) + 1024)
    previous, files = NO_HASH, sorted((run / "host").glob("round-*.sealed"))
    for number, file in enumerate(files, 1):
        try:
            signed, sealed = split_kept(_read(file), limit)
            body, signature = split_signed(signed, "manifest")
            manifest = Manifest.from_bytes(body)
            quotes.check(manifest.boot_id, (body, signature), "manifest")
        except (TrustformerError, ValueError) as error:
            problems.append(f"{file.name} is not signed by an attested key or damaged: {error}")
            continue
        if (manifest.round, manifest.previous, manifest.cfg) != (number, previous, terms.digest):
            problems.append(f"{file.name} does not follow the round before it, or belongs to other terms")
        if manifest.aggregate_digest != digest(sealed):
            problems.append(f"{file.name}: the sealed aggregate is not the one its manifest names")
        known = {client for client, _ in terms.roster}
        listed = {client for client, _ in manifest.uploads}
        if len(listed) < terms.min_clients or not listed <= known:
            problems.append(f"{file.name} combines too few clients, or one that is not on the roster")
        manifests[number], previous = manifest, manifest.hash
    if not files:
        problems.append("there is none")
    elif len(files) < due:
        problems.append(f"of the {due} that clients took part in {due - len(files)} are missing or were not closed")
    report.add("rounds", f"{len(files)} of {terms.rounds} rounds form one chain under attested keys", problems)
    return manifests


def _signed_receipts(path: Path, quotes: _Quotes) -> tuple[list[Receipt], list[str]]:
    """Return receipts by attested keys, and what is wrong with all other lines."""
    receipts, problems = [], []
    for number, line in enumerate(_read(path).splitlines(), 1):
        try:
            entry = msgspec.json.decode(line, type=_Line)
            body, signature = split_signed(base64.b64decode(entry.receipt), "receipt")
            receipt = Receipt.from_bytes(body)
            quotes.check(receipt.boot_id, (body, signature), "receipt")
        except (TrustformerError, ValueError, *_UNREADABLE) as error:
            problems.append(f"{path.name}, line {number}, is not by an attested key or damaged: {str(error)[:200]}")
            continue
        receipts.append(receipt)
    return receipts, problems


def _receipts(
    receipts: list[Receipt], problems: list[str], quotes: _Quotes, manifests: dict[int, Manifest], report: Audit
) -> None:
    held: dict[int, set[str]] = {}
    for receipt in receipts:
        if (receipt.client_id, receipt.boot_id.hex()) not in quotes.accepted:
            problems.append(f"client {receipt.client_id} sent to a boot it had not verified")
        if receipt.status != "accepted":
            continue
        held.setdefault(receipt.round, set()).add(receipt.client_id)
        manifest = manifests.get(receipt.round)
        if manifest is not None and (manifest.boot_id, manifest.attempt) == (receipt.boot_id, receipt.attempt):
            listed = {client for client, _ in manifest.uploads}
            if receipt.client_id not in listed:
                problems.append(f"round {receipt.round}: client {receipt.client_id} was accepted and then left out")
    for number, manifest in manifests.items():
        lacking = [client for client, _ in manifest.uploads if client not in held.get(number, ())]
        if lacking:
            problems.append(f"round {number}: no receipt of {', '.join(lacking)}, whose update it combines")
    if not receipts:
        problems.append("there is none")
    report.add(
        "receipts", f"{len(receipts)} receipts are by attested keys, and what they accept was combined", problems
    )
