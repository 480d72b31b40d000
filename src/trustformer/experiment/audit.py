# SPDX-License-Identifier: Apache-2.0
"""A third party verifies a whole run again, offline, from files.

It needs the run's terms, the clients' policy, verification records, receipts and the released rounds; no key, no
private text, no network. It shows that every client checked an enclave before it sent anything, that the rounds form
one unbroken chain under keys those quotes are bound to, and that what was accepted was combined. In a deployment the
rounds are the host's and each client keeps its own records: it shows this of the clients whose folders are given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import MAX_MESSAGE, NO_HASH, Manifest, Receipt, split_signed
from trustformer.errors import ConfigError, DataError, TrustformerError
from trustformer.experiment.testimony import Quotes, Witness, quotes_of, read_file, read_terms, receipts_of
from trustformer.federation.host import split_kept
from trustformer.message import digest
from trustformer.secure.sealing import sealed_length
from trustformer.vq import body_size

_SHOWN = 5
"""Problems of one check that are told; more of a kind say nothing new."""


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


def audit(run: Path, policy: Path | None = None, clients: Sequence[Witness] = ()) -> Audit:
    """Verify a run again.

    Args:
        run: the run directory; of a deployment the host's, or a copy of its `terms.bin` and `released`.
        policy: the auditor's own policy; the clients' when None.
        clients: of a deployment, those that show what they kept.

    Raises:
        ConfigError: there is no exchange to audit, or a file is missing.
        DataError: a file that is damaged as a whole, or terms that a client did not agree to; names it.
    """
    terms = _terms(run, clients)
    witnesses = clients or [Witness(run, run / "terms.bin", run / "policy.toml")]
    report = Audit()
    if terms.provider == "simulated":
        report.notes.append(
            "SIMULATED ATTESTATION: the quotes prove nothing about hardware, nor about what read the data"
        )
    own = "each client's own" if clients else f"{run / 'policy.toml'} (the run's own)"
    report.notes.append(f"policy: {f'{policy} (yours)' if policy else f'{own}; --policy FILE takes yours'}")
    quotes = quotes_of(witnesses, terms, policy)
    _quotes(quotes, report)
    heard = {str(witness.client) for witness in clients}
    if silent := [client for client, _ in terms.roster if clients and client not in heard]:
        report.notes.append(f"of {', '.join(silent)} nothing was checked but that they are on the roster")
    if not quotes.accepted:
        report.notes.append("rounds and receipts were not checked: no quote vouches for a key they could be signed by")
        return report
    receipts, unsigned = receipts_of(witnesses, quotes)
    due = terms.rounds
    if not all(witness.finished for witness in witnesses):
        due = max((receipt.round for receipt in receipts if receipt.status == "accepted"), default=0)
    manifests = _manifests(run / ("released" if clients else "host"), terms, quotes, due, report)
    _receipts(receipts, unsigned, quotes, manifests, heard, report)
    return report


def _terms(run: Path, clients: Sequence[Witness]) -> RunConfig:
    """The terms of the run, once it is known to be one, and that the clients agreed to them."""
    if not run.is_dir():
        raise ConfigError(f"{run} does not exist", "give a run directory")
    if not (run / "terms.bin").is_file():
        known = (run / "config.toml").is_file()
        hint = "runs of local and centralized send nothing" if known else "give a run directory: this is none"
        raise ConfigError(f"{run} holds no exchange to audit", hint)
    if not clients and not (run / "attestation.json").is_file() and (run / "host.toml").is_file():
        raise ConfigError(
            f"{run} is a host's folder: quotes and receipts are with the clients",
            "name folders of clients after it, such as fed/client-0",
        )
    terms = read_terms(run / "terms.bin")
    for witness in clients:
        if read_terms(witness.terms).digest != terms.digest:
            raise DataError(
                f"client {witness.client} agreed to other terms ({witness.terms}) than those of {run / 'terms.bin'}",
                "give folders of one and the same federation",
            )
    return terms


def _quotes(quotes: Quotes, report: Audit) -> None:
    what = f"{quotes.count} quotes verify under the policy and are bound to this run, its terms and their client"
    problems = quotes.problems or ([] if quotes.count else ["no client has a record of one that it accepted"])
    report.add("quotes", what, problems)


def _manifests(folder: Path, terms: RunConfig, quotes: Quotes, due: int, report: Audit) -> dict[int, Manifest]:
    manifests: dict[int, Manifest] = {}
    problems: list[str] = []
    limit = MAX_MESSAGE + sealed_length(body_size(terms.answer) + 1024)
    previous, files = NO_HASH, sorted(folder.glob("round-*.sealed"))
    unvouched: list[str] = []  # by boots that no client at hand met: the next attested round that follows vouches
    for number, file in enumerate(files, 1):
        try:
            signed, sealed = split_kept(read_file(file), limit)
            body, signature = split_signed(signed, "manifest")
            manifest = Manifest.from_bytes(body)
            attested = manifest.boot_id.hex() in quotes.keys
            if attested:
                quotes.check(manifest.boot_id, (body, signature), "manifest")
        except (TrustformerError, ValueError) as error:
            problems.append(f"{file.name} is not signed by an attested key or damaged: {error}")
            continue
        follows = (manifest.round, manifest.previous, manifest.cfg) == (number, previous, terms.digest)
        if attested and follows:
            unvouched.clear()
        elif not attested:
            unvouched.append(file.name)
        if not follows:
            problems.append(f"{file.name} does not follow the round before it, or belongs to other terms")
            problems += [f"{name} is not signed by an attested key" for name in unvouched]
            unvouched.clear()
        if manifest.aggregate_digest != digest(sealed):
            problems.append(f"{file.name}: the sealed aggregate is not the one its manifest names")
        known = {client for client, _ in terms.roster}
        listed = {client for client, _ in manifest.uploads}
        if len(listed) < terms.min_clients or not listed <= known:
            problems.append(f"{file.name} combines too few clients, or one that is not on the roster")
        manifests[number], previous = manifest, manifest.hash
    problems += [f"{name} is not signed by an attested key" for name in unvouched]
    if not files:
        problems.append("there is none")
    elif len(files) < due:
        problems.append(f"of the {due} that clients took part in {due - len(files)} are missing or were not closed")
    report.add("rounds", f"{len(files)} of {terms.rounds} rounds form one chain under attested keys", problems)
    return manifests


def _receipts(
    receipts: list[Receipt],
    problems: list[str],
    quotes: Quotes,
    manifests: dict[int, Manifest],
    clients: Collection[str],
    report: Audit,
) -> None:
    """`clients` are those of a deployment that show what they kept; empty for a run on one machine."""
    held: dict[str, set[int]] = {}
    for receipt in receipts:
        if (receipt.client_id, receipt.boot_id.hex()) not in quotes.accepted:
            problems.append(f"client {receipt.client_id} sent to a boot it had not verified")
        if receipt.status != "accepted":
            continue
        held.setdefault(receipt.client_id, set()).add(receipt.round)
        manifest = manifests.get(receipt.round)
        if manifest is not None and (manifest.boot_id, manifest.attempt) == (receipt.boot_id, receipt.attempt):
            listed = {client for client, _ in manifest.uploads}
            if receipt.client_id not in listed:
                problems.append(f"round {receipt.round}: client {receipt.client_id} was accepted and then left out")
    lacking: dict[str, list[int]] = {}
    for number, manifest in manifests.items():
        for client, _ in manifest.uploads:
            if number not in held.get(client, ()):
                lacking.setdefault(client, []).append(number)
    for client, rounds in lacking.items():
        said = f"client {client} has no receipt for {_rounds(rounds)}, whose result its update is in"
        if not clients:  # clients and enclave end together there, so that none is lost
            problems.append(said)
        elif client in clients:
            report.notes.append(f"{said}: it was killed before it kept one, or its key was used elsewhere")
    if not receipts and not clients:
        problems.append("there is none")
    report.add(
        "receipts", f"{len(receipts)} receipts are by attested keys, and what they accept was combined", problems
    )


def _rounds(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return f"round{'s' * (len(numbers) > 1)} {shown}{' and others' * (len(numbers) > _SHOWN)}"
