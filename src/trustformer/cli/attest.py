# SPDX-License-Identifier: Apache-2.0
"""`trustformer attest`: check, explain, fetch, sign, pin and audit. Data to stdout, people to stderr.

What this module needs is imported in the functions, so that `--help` stays fast.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustformer.cli.release import add_verbs, keep_apart
from trustformer.errors import ConfigError
from trustformer.foreign import shown

if TYPE_CHECKING:
    from trustformer.attestation.evidence import Evidence
    from trustformer.attestation.policy import Policy

CHECK_EXAMPLES = """\
examples:
  trustformer attest check --quote quote.bin --collateral collateral.json --policy policy.toml
  trustformer attest check --quote quote.bin --collateral collateral.json --policy policy.toml \\
      --at 2026-03-02T00:00:00Z --report-data 082ef01a...

exit status: 0 accepted, 3 refused (the JSON names the failed check), 2 a file or option that cannot be used
"""
EXPLAIN_EXAMPLES = """\
examples:
  trustformer attest explain --quote quote.bin --collateral collateral.json
  trustformer attest explain --quote quote.bin --collateral collateral.json --policy policy.toml
"""
AUDIT_EXAMPLES = """\
examples:
  trustformer attest audit runs/demo/centroid-seed1
  trustformer attest audit fed/host fed/client-0 fed/client-1

In a deployment the rounds are with the host and each client keeps its own quotes and receipts: name the host's folder,
then folders of clients. docs/deploy-flower.md says which files of them are enough, none of them a key or a model.
Checks quotes against the policy, what they are bound to, the chain of rounds and the receipts, from files alone.
exit status: 0 all holds, 3 something does not, or nothing could be verified (notes alone say why)
"""
_OF_A_CHECK = ("at", "report_data", "provider")
"""Options of `explain` that say nothing without a policy."""
FETCH_EXAMPLES = """\
examples:
  trustformer attest fetch --quote quote.bin --service intel --out collateral.json
  trustformer attest fetch --quote quote.bin --service https://pccs.example.org:8081 --out collateral.json
"""


def add_parser(subparsers: Any) -> None:
    """Add `attest` with its sub-verbs; each sets `run`, a function from arguments to an exit status."""
    attest = subparsers.add_parser("attest", help="verify what will read your centroids")
    verbs = attest.add_subparsers(dest="attest_verb", required=True, metavar="VERB")

    check = _verb(verbs, "check", "check a quote against a policy; JSON on stdout", CHECK_EXAMPLES)
    _evidence_options(check, policy_required=True)
    check.add_argument("--report-data", metavar="HEX", help="the 64 bytes the quote must carry (f)")
    check.set_defaults(run=run_check)

    explain = _verb(verbs, "explain", "say in words what a quote says", EXPLAIN_EXAMPLES)
    _evidence_options(explain, policy_required=False)
    explain.add_argument("--report-data", metavar="HEX", help="the 64 bytes the quote must carry (f)")
    explain.set_defaults(run=run_explain)

    fetch = _verb(verbs, "fetch", "fetch the collateral of a quote; uses the network", FETCH_EXAMPLES)
    fetch.add_argument("--quote", type=Path, required=True, metavar="FILE", help="raw DCAP quote")
    fetch.add_argument("--service", required=True, metavar="intel|URL", help="Intel's service or a PCCS")
    fetch.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write it")
    fetch.set_defaults(run=run_fetch)

    add_verbs(verbs, _verb)

    audit = _verb(verbs, "audit", "verify a whole run again, offline", AUDIT_EXAMPLES)
    audit.add_argument("run_directory", type=Path, metavar="RUN", help="run directory, or a host's folder")
    audit.add_argument("client", type=Path, nargs="*", metavar="CLIENT", help="clients' folders of a deployment")
    audit.add_argument("--policy", type=Path, metavar="FILE", help="your own policy instead of the clients'")
    audit.set_defaults(run=run_audit)


def _verb(verbs: Any, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    form = argparse.RawDescriptionHelpFormatter
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary.capitalize() + ".", epilog=examples, formatter_class=form
    )
    return parser


def _evidence_options(parser: argparse.ArgumentParser, *, policy_required: bool) -> None:
    parser.add_argument("--quote", type=Path, required=True, metavar="FILE", help="raw DCAP quote")
    parser.add_argument("--collateral", type=Path, required=True, metavar="FILE", help="collateral JSON")
    parser.add_argument("--policy", type=Path, required=policy_required, metavar="FILE", help="policy TOML")
    parser.add_argument("--at", metavar="TIME", help="time of the check, such as 2026-03-02T00:00:00Z (now)")
    kinds = ("gramine-dcap", "simulated")
    parser.add_argument("--provider", choices=kinds, help="appraise as this kind (by the root it ends in)")


def run_check(args: argparse.Namespace) -> int:
    """Print claims and checks as JSON; raise the refusal, if there is one."""
    from trustformer.attestation import account
    from trustformer.attestation.policy import Policy

    policy, now = Policy.load(args.policy), _time(args.at)
    evidence = _read_evidence(args, policy)
    appraisal = policy.appraise(evidence, now=now, expected_report_data=_report_data(args.report_data))
    report = account.as_json(appraisal, policy, now)
    print(json.dumps(report, indent=2))
    if appraisal.refusal:
        raise appraisal.refusal
    return 0


def run_explain(args: argparse.Namespace) -> int:
    """Print an account in words; raise the refusal, if a policy was given and refuses."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    from trustformer.attestation import account
    from trustformer.attestation.dcap import parse
    from trustformer.attestation.policy import Policy

    console = Console(highlight=False, markup=False, soft_wrap=False)

    def section(title: str, lines: Any) -> None:
        console.print(f"\n{title}", style="bold")
        for line in lines:
            console.print(Padding(Text(shown(line, None)), (0, 0, 0, 2)))

    if not args.policy and (unused := [name for name in _OF_A_CHECK if vars(args)[name] is not None]):
        raise ConfigError(
            f"--{unused[0].replace('_', '-')} is of a check, and without --policy nothing is checked",
            "give --policy FILE, or leave it out",
        )
    policy = Policy.load(args.policy) if args.policy else None
    evidence = _read_evidence(args, policy)
    section("What a quote is", [account.INTRODUCTION])
    parsed = parse(evidence.quote, evidence.collateral)
    section("What the bytes say (anybody could have written them)", account.describe_quote(parsed))
    if policy is None:
        section("Verdict", ["None: nothing was verified. Give --policy to have it checked."])
        return 0
    appraisal = policy.appraise(evidence, now=_time(args.at), expected_report_data=_report_data(args.report_data))
    if appraisal.claims:
        section("What the root vouches for", account.describe_claims(appraisal.claims))
    for question, answers in account.describe_checks(appraisal):
        section(question, answers)
    section("Verdict", [account.verdict(appraisal), account.LIMITS])
    if appraisal.refusal:
        raise appraisal.refusal
    return 0


def run_fetch(args: argparse.Namespace) -> int:
    """Fetch collateral and write it; say on stderr how long it holds."""
    from trustformer.attestation import collateral
    from trustformer.attestation.evidence import MAX_QUOTE_BYTES
    from trustformer.attestation.files import read_bounded

    keep_apart(args.out, args.quote, "--quote")
    quote = read_bounded(args.quote, MAX_QUOTE_BYTES, "the quote")
    valid = collateral.save(args.out, collateral.fetch(quote, args.service))
    print(f"{shown(str(args.out), None)}: {valid}", file=sys.stderr)
    return 0


def run_audit(args: argparse.Namespace) -> int:
    """Print what holds and what does not; return 3 unless something was verified and all of it holds."""
    from trustformer.experiment.audit import audit
    from trustformer.flower.witness import witness

    report = audit(args.run_directory, args.policy, [witness(folder) for folder in args.client])
    for kind, sentences in (("ok", report.passed), ("FAIL", report.failed), ("note", report.notes)):
        for sentence in sentences:
            print(f"{kind:5} {shown(sentence, 2000)}")
    return 3 if report.failed or not report.passed else 0


def _read_evidence(args: argparse.Namespace, policy: Policy | None) -> Evidence:
    from trustformer.attestation.evidence import MAX_COLLATERAL_BYTES, MAX_QUOTE_BYTES, Evidence
    from trustformer.attestation.files import read_bounded

    quote = read_bounded(args.quote, MAX_QUOTE_BYTES, "the quote")
    collateral = read_bounded(args.collateral, MAX_COLLATERAL_BYTES, "the collateral")
    guess = policy.kind_of(quote, collateral) if policy else "gramine-dcap"
    return Evidence(args.provider or guess, quote, collateral)


def _time(text: str | None) -> int:
    if text is None:
        return int(time.time())
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            raise ValueError
        return int(when.timestamp())
    except (ValueError, OverflowError) as error:
        hint = "write it as 2026-03-02T00:00:00Z"
        raise ConfigError(f"--at: {text!r} is not a time with its zone", hint) from error


def _report_data(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        data = bytes.fromhex(text)
    except ValueError as error:
        raise ConfigError("--report-data is not hexadecimal") from error
    if len(data) not in (32, 64):
        raise ConfigError(f"--report-data has {len(data)} bytes", "give 64 bytes, or 32 that zeros follow")
    return data.ljust(64, b"\0")
