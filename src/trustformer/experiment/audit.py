# SPDX-License-Identifier: Apache-2.0
"""A third party verifies a whole run again, offline, from what its directory holds.

It needs the run's terms, the clients' policy, verification records, receipts and the released rounds; no key, no
private text, no network. It shows that every client checked an enclave before it sent anything, that the rounds form
one unbroken chain under keys those quotes are bound to, and that what was accepted was combined.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trustformer.attestation.handshake import VerificationRecord, reappraise
from trustformer.attestation.policy import Policy
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import MAX_MESSAGE, NO_HASH, Manifest, Receipt, split_signed
from trustformer.errors import ConfigError, TrustformerError
from trustformer.federation.host import split_kept
from trustformer.message import digest
from trustformer.secure.identity import verify
from trustformer.secure.sealing import sealed_length
from trustformer.vq import body_size


@dataclass
class Audit:
    """What was checked, and what did not hold.

    Attributes:
        passed: one sentence for each check that held.
        failed: one sentence for each that did not.
    """

    passed: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, what: str, problems: list[str]) -> None:
        """Record a check with everything that speaks against it."""
        if problems:
            self.failed += [f"{what}: {problem}" for problem in problems]
        else:
            self.passed.append(what)


def audit(run: Path, policy: Path | None = None) -> Audit:
    """Verify a run directory again.

    Args:
        run: the run directory.
        policy: the auditor's own policy; the run's own when None.

    Raises:
        ConfigError: the directory is not a run that exchanges anything.
    """
    if not (run / "terms.bin").is_file():
        raise ConfigError(f"{run} holds no exchange to audit", "runs of local and centralized send nothing")
    terms = RunConfig.from_bytes((run / "terms.bin").read_bytes())
    report = Audit()
    records = json.loads(_read(run / "attestation.json"))["verifications"]
    boots = _verifications(records, terms, Policy.load(policy or run / "policy.toml"), policy is not None, report)
    manifests = _manifests(run, terms, boots, report)
    _receipts(run, terms, boots, manifests, records, report)
    return report


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", "an audit needs the whole run directory"
        ) from None


def _verifications(
    records: list[dict[str, Any]], terms: RunConfig, policy: Policy, foreign: bool, report: Audit
) -> dict[str, str]:
    """Return the signing key of each boot that a quote vouches for (hex)."""
    boots: dict[str, str] = {}
    problems = []
    for entry in records:
        client = entry["client"]
        record = VerificationRecord.from_dict({key: value for key, value in entry.items() if key != "client"})
        binding = record.binding or {}
        expected = {"run_id": terms.run_id.hex(), "cfg": terms.digest.hex(), "client_id": client}
        try:
            if foreign:
                record = VerificationRecord.from_dict(record.to_dict() | {"policy": policy.digest.hex()})
            reappraise(record, policy)
            terms.key_of(client)
        except TrustformerError as error:
            if record.decision == "accepted":
                problems.append(f"client {client} accepted evidence that does not verify: {error.message}")
            continue
        if any(binding.get(key) != value for key, value in expected.items()):
            problems.append(f"a quote for client {client} is bound to another run, config or client")
        elif boots.setdefault(binding["boot_id"], binding["vk_e"]) != binding["vk_e"]:
            problems.append(f"two signing keys for the boot {binding['boot_id']}")
    what = f"{len(records)} quotes verify under the policy and are bound to this run, its terms and their client"
    report.add(what, problems or ([] if records else ["there is no verification record"]))
    return boots


def _manifests(run: Path, terms: RunConfig, boots: dict[str, str], report: Audit) -> dict[int, Manifest]:
    manifests: dict[int, Manifest] = {}
    problems: list[str] = []
    limit = MAX_MESSAGE + sealed_length(body_size(terms.answer) + 1024)
    previous, files = NO_HASH, sorted((run / "host").glob("round-*.sealed"))
    for number, file in enumerate(files, 1):
        try:
            signed, sealed = split_kept(file.read_bytes(), limit)
            body, signature = split_signed(signed, "manifest")
            manifest = Manifest.from_bytes(body)
            verify(bytes.fromhex(boots.get(manifest.boot_id.hex(), "")), signature, body, "manifest")
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
    report.add(f"{len(files)} rounds form one chain under attested keys", problems)
    return manifests


def _receipts(
    run: Path,
    terms: RunConfig,
    boots: dict[str, str],
    manifests: dict[int, Manifest],
    records: list[dict[str, Any]],
    report: Audit,
) -> None:
    verified = {(entry["client"], (entry["binding"] or {}).get("boot_id")) for entry in records}
    problems, count = [], 0
    for line in _read(run / "receipts.jsonl").splitlines():
        entry = json.loads(line)
        try:
            body, signature = split_signed(base64.b64decode(entry["receipt"]), "receipt")
            receipt = Receipt.from_bytes(body)
            verify(bytes.fromhex(boots.get(receipt.boot_id.hex(), "")), signature, body, "receipt")
        except (TrustformerError, ValueError) as error:
            problems.append(f"a receipt of client {entry['client']} is not by an attested key: {error}")
            continue
        count += 1
        if (receipt.client_id, receipt.boot_id.hex()) not in verified:
            problems.append(f"client {receipt.client_id} sent to a boot it had not verified")
        manifest = manifests.get(receipt.round)
        if receipt.status == "accepted" and manifest is not None and manifest.boot_id == receipt.boot_id:
            excluded = receipt.client_id not in {client for client, _ in manifest.uploads}
            if excluded and manifest.attempt == 1:
                problems.append(f"round {receipt.round}: client {receipt.client_id} was accepted and then left out")
    report.add(f"{count} receipts are by attested keys, and what they accept was combined", problems)
