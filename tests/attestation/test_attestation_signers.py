# SPDX-License-Identifier: Apache-2.0
"""Whose signature counts for what: one key of any machine must not make every machine current."""

from __future__ import annotations

import pytest
from pki import FMSPC, NOW, REPORT_DATA, Issuer, Pki, extension, issue, raw_signature

from trustformer.attestation import errors
from trustformer.attestation.dcap import parse
from trustformer.attestation.diagnosis import diagnose
from trustformer.attestation.evidence import Evidence
from trustformer.attestation.parsing import parse_certificate, parse_chain
from trustformer.attestation.policy import Policy

NAMES = {"tcb_info": "TCB info", "qe_identity": "QE identity"}


def check(pki: Pki, collateral: bytes, **keys: object) -> None:
    evidence = Evidence("simulated", pki.quote(), collateral)
    Policy.make(pki.policy(**keys)).check(evidence, now=NOW, expected_report_data=REPORT_DATA)


def another_pck(by: Issuer) -> Issuer:
    return issue("Made-up SGX PCK Certificate", by, None, extension(fmspc=FMSPC, ppid="11" * 16, flags=None))


def signed(which: str, text: str, by: Issuer, *above: Issuer) -> dict[str, str]:
    """Fields of collateral with one statement signed by somebody else."""
    chain = "".join(one.pem for one in (by, *above))
    signature = raw_signature(by.key, text.encode()).hex()
    return {which: text, f"{which}_issuer_chain": chain, f"{which}_signature": signature}


@pytest.mark.parametrize("which", NAMES)
@pytest.mark.parametrize("who", ["its own PCK", "another PCK", "the PCK CA", "another CA"])
def test_statements_signed_by_a_machine_or_a_ca_are_refused(pki: Pki, which: str, who: str) -> None:
    by, *above = {
        "its own PCK": (pki.pck, pki.pck_ca, pki.root),
        "another PCK": (another_pck(pki.pck_ca), pki.pck_ca, pki.root),
        "the PCK CA": (pki.pck_ca, pki.root),
        "another CA": (issue("Made-up SGX TCB Signing", pki.root, 0), pki.root),
    }[who]
    text = dict(zip(NAMES, pki.statements(), strict=True))[which]
    with pytest.raises(errors.BadCollateral, match=f"the chain of the {NAMES[which]} is not signed as it must be"):
        check(pki, pki.collateral(fields=signed(which, text, by, *above)))


def test_an_old_platform_cannot_call_itself_current(pki: Pki) -> None:
    old = {"tcb_status": "OutOfDate", "advisories": ("INTEL-SA-00615",)}
    with pytest.raises(errors.TcbStatus):
        check(pki, pki.collateral(**old))
    forged = signed("tcb_info", pki.statements(number=999)[0], pki.pck, pki.pck_ca, pki.root)
    with pytest.raises(errors.BadCollateral):
        check(pki, pki.collateral(**old, fields=forged), min_tcb_evaluation_data_number=17)


def test_a_machines_certificate_issues_none(pki: Pki) -> None:
    """The second reading says so by itself, whatever dcap-qvl makes of it."""
    chain = "".join(one.pem for one in (another_pck(pki.pck), pki.pck, pki.pck_ca, pki.root))
    parsed, root = parse(pki.quote(), pki.collateral()), parse_certificate(pki.root_der, "root")
    below = parse_chain(chain, "chain")
    found = list(diagnose(parsed.quote, below, parsed.pck, parsed.collateral, root, NOW))
    assert isinstance(found[0], errors.BadQuote)
    own = list(diagnose(parsed.quote, parsed.chain, parsed.pck, parsed.collateral, root, NOW))
    assert own == []


def test_collateral_whose_signers_are_right_is_accepted(pki: Pki) -> None:
    signer = issue("Any name", pki.root, None)
    check(pki, pki.collateral(fields=signed("tcb_info", pki.statements()[0], signer, pki.root)))
