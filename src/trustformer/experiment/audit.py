# SPDX-License-Identifier: Apache-2.0
"""A third party verifies a whole run again, offline, from files.

It needs the run's terms, the clients' policy, verification records, welcomes and receipts, and the released rounds; no
key, no private text, no network. It shows that every client had verified what combined its updates, that the rounds
form one chain which keys bound to those quotes vouch for, and that what a closed try accepted was combined. In a
deployment the rounds are the host's and each client keeps its own records: it shows this of the clients given.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trustformer.attestation.policy import Policy
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import Manifest, Receipt, Welcome
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.chain import Chain, read_chain
from trustformer.experiment.testimony import Quotes, Witness, check_file, quotes_of, read_terms, signed_lines

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
        ConfigError: there is no exchange to audit, or a file cannot be read.
        DataError: a file that is damaged as a whole, or terms that a client did not agree to; names it.
    """
    terms = _terms(run, clients)
    witnesses = clients or [Witness(run, run / "terms.bin", run / "policy.toml")]
    report = Audit()
    if terms.provider == "simulated":
        report.notes.append(
            "SIMULATED ATTESTATION: the quotes prove nothing about hardware, nor about what read the data"
        )
    for witness in witnesses:
        check_file(witness.policy)
    policies = [Policy.load(policy or witness.policy) for witness in witnesses]
    own = "each client's own" if clients else f"{run / 'policy.toml'} (the run's own)"
    report.notes.append(f"policy: {f'{policy} (yours)' if policy else f'{own}; --policy FILE takes yours'}")
    if len({one.digest for one in policies}) > 1:
        report.notes.append("the clients' policies differ, and each is believed: --policy FILE judges all by one")
    quotes = quotes_of(witnesses, terms, policies)
    _quotes(quotes, policy is not None, clients, report)
    heard = {client for client, _ in terms.roster if not clients or client in {one.client for one in clients}}
    if silent := [client for client, _ in terms.roster if client not in heard]:
        report.notes.append(f"of {', '.join(silent)} nothing was checked but that they are on the roster")
    if not quotes.accepted:
        report.notes.append("rounds and receipts were not checked: no quote vouches for a key they could be signed by")
        return report
    unsigned: list[str] = []
    told = {
        (welcome.round, welcome.manifest_hash): client
        for client, welcome in signed_lines(witnesses, quotes, Welcome, unsigned)
        if welcome.round
    }
    receipts = [receipt for _, receipt in signed_lines(witnesses, quotes, Receipt, unsigned)]
    chain = read_chain(run / ("released" if clients else "host"), terms, quotes, told)
    finished = not clients and (run / "result.json").is_file()
    due = terms.rounds if finished else max((number for number, _ in told), default=0)
    _rounds(chain, terms, due, receipts, report)
    lost = _lost(receipts, chain.manifests, heard)
    if clients:
        report.notes += [
            f"{one}: it was lost with a killed process, or somebody else sends in its name" for one in lost
        ]
    else:  # clients and enclave end together there, so that none is lost
        unsigned += lost
    _receipts(receipts, unsigned, quotes, chain.manifests, heard, report)
    return report


def _terms(run: Path, clients: Sequence[Witness]) -> RunConfig:
    """The terms of the run, once it is known to be one, and that the clients agreed to them."""
    if not run.is_dir():
        raise ConfigError(f"{run} does not exist", "give a run directory")
    if not (run / "terms.bin").is_file():
        known = (run / "config.toml").is_file()
        hint = "runs of local and centralized send nothing" if known else "give a run directory: this is none"
        raise ConfigError(f"{run} holds no exchange to audit", hint)
    part = next((name for name in ("host.toml", "node.toml", "released") if (run / name).exists()), None)
    if clients and not (run / "released").is_dir():
        raise ConfigError(f"{run} has no folder released", "name the host's folder first, then folders of clients")
    if not clients and part is not None:
        raise ConfigError(
            f"{run} is one party's folder: the host has the rounds, each client its own quotes and receipts",
            "name the host's folder first, then folders of clients: fed/host fed/client-0",
        )
    terms, names = read_terms(run / "terms.bin"), [witness.client for witness in clients]
    for witness in clients:
        if witness.client not in {client for client, _ in terms.roster}:
            raise DataError(f"{witness.folder} is of {str(witness.client)[:64]!r}, which is not on the roster")
        if names.count(witness.client) > 1:
            raise ConfigError(f"client {witness.client} is given twice", "name each folder once")
        if read_terms(witness.terms).digest != terms.digest:
            raise DataError(
                f"client {witness.client} agreed to other terms ({witness.terms}) than those of {run / 'terms.bin'}",
                "give folders of one and the same federation",
            )
    return terms


def _quotes(quotes: Quotes, foreign: bool, clients: Sequence[Witness], report: Audit) -> None:
    if not quotes.count:
        quotes.problems += [
            f"client {one.client} has receipts for what it sent, and no quote that holds and that it accepted"
            for one in clients
            if b"\n" in one.kept("receipts.jsonl")
        ]
    what = f"{quotes.count} quotes verify under the policy and are bound to this run, its terms and their client"
    if quotes.count or quotes.problems or not clients:
        report.add("quotes", what, quotes.problems or ([] if quotes.count else ["no client has one that it accepted"]))
    else:
        report.notes.append("none of these clients has accepted a quote")
    if quotes.changed and not foreign:
        report.notes.append(f"{quotes.changed} quotes were accepted under a policy that has changed since")


def _rounds(chain: Chain, terms: RunConfig, due: int, receipts: Sequence[Receipt], report: Audit) -> None:
    """Hold the chain against what clients know of it; `due` rounds were closed as they were told."""
    newest = max((receipt.round for receipt in receipts if receipt.status == "accepted"), default=0)
    if chain.unvouched:
        report.notes.append(f"nothing vouches for {_list(chain.unvouched)}: none of these clients met what closed them")
    if chain.relayed:
        report.notes.append(
            f"none of these clients met what closed {_list(chain.relayed)}: what they met vouches for it"
        )
    if reset := [number for number, manifest in chain.manifests.items() if manifest.residual_reset]:
        report.notes.append(f"the enclave had lost its state before {_list(reset)}: s of its last answer was lost")
    if chain.length < due:
        chain.problems.append(f"{due - chain.length} of the {due} that clients know to be closed are missing")
    elif chain.length < newest:
        report.notes.append(f"round {newest} was open when these files were taken")
    vouched = chain.length - len(chain.unvouched)
    held = f"{vouched} of {terms.rounds} rounds form one chain that attested keys vouch for"
    if not chain.length:
        held = f"none of {terms.rounds} rounds was closed as far as clients know, and there is none"
    if chain.problems or vouched or not chain.length:
        report.add("rounds", held, chain.problems)


def _receipts(
    receipts: Sequence[Receipt],
    problems: list[str],
    quotes: Quotes,
    manifests: dict[int, Manifest],
    heard: Collection[str],
    report: Audit,
) -> None:
    """Hold receipts and rounds of the clients that are `heard` against the boots that each of them verified."""
    other = 0
    for receipt in receipts:
        if (receipt.client_id, receipt.boot_id.hex()) not in quotes.accepted:
            problems.append(f"client {receipt.client_id} sent to a boot it had not verified")
        manifest = manifests.get(receipt.round)
        if receipt.status != "accepted" or manifest is None:
            continue
        if (manifest.boot_id, manifest.attempt) != (receipt.boot_id, receipt.attempt):
            other += 1
        elif receipt.client_id not in {client for client, _ in manifest.uploads}:
            problems.append(f"round {receipt.round}: client {receipt.client_id} was accepted and then left out")
    for number, manifest in manifests.items():
        for client, _ in manifest.uploads:
            if client in heard and (client, manifest.boot_id.hex()) not in quotes.accepted:
                problems.append(f"round {number} combines client {client}, which had not verified what closed it")
    if other:
        report.notes.append(f"{other} receipts are of tries at a round that were not the one closed")
    held = f"{len(receipts)} receipts are by attested keys, and what closed tries accepted was combined"
    report.add("receipts", held, problems)


def _lost(receipts: Sequence[Receipt], manifests: dict[int, Manifest], heard: Collection[str]) -> list[str]:
    """Return whose update was combined and who has no receipt for it."""
    held = {(receipt.client_id, receipt.round) for receipt in receipts if receipt.status == "accepted"}
    lacking: dict[str, list[int]] = {}
    for number, manifest in manifests.items():
        for client, _ in manifest.uploads:
            if client in heard and (client, number) not in held:
                lacking.setdefault(client, []).append(number)
    return [f"client {client} has no receipt for its update of {_list(rounds)}" for client, rounds in lacking.items()]


def _list(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:_SHOWN]))
    return f"round{'s' * (len(numbers) > 1)} {shown}{' and others' * (len(numbers) > _SHOWN)}"
