# SPDX-License-Identifier: Apache-2.0
"""What a policy file may say, what it means when it says nothing, and how it is told why not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pki import DER, MRENCLAVE, MRSIGNER, NOW, REPORT_DATA, Pki

from trustformer.attestation import errors
from trustformer.attestation.evidence import Evidence
from trustformer.attestation.policy import Policy
from trustformer.attestation.policy_file import PolicyFile, parse_policy
from trustformer.errors import AttestationError, ConfigError

HEX = "ab" * 32


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "mrenclave"),
        ("mrenclave = []", "mrenclave is empty"),
        (f'mrenclave = "{HEX}"', "mrenclave"),
        (f'mrenclave = ["{HEX[:-1]}"]', "mrenclave"),
        (f'mrenclave = ["{HEX}zz"]', "mrenclave"),
        (f'mrenclave = ["{HEX}\\n"]', "mrenclave"),
        (f'mrenclave = ["{HEX}"]\nmr_enclave = 1', "unknown key 'mr_enclave'"),
        (f'mrenclave = ["{HEX}"]\nmrenclave = ["{HEX}"]', "not TOML"),
        (f'mrenclave = ["{HEX}"]\nppid = []', "ppid is empty"),
        (f'mrenclave = ["{HEX}"]\nppid = ["ab"]', "ppid"),
        (f'mrenclave = ["{HEX}"]\nfmspc = ["ab"]', "fmspc"),
        (f'mrenclave = ["{HEX}"]\ntcb_status = []', "tcb_status is empty"),
        (f'mrenclave = ["{HEX}"]\ntcb_status = ["uptodate"]', "tcb_status"),
        (f'mrenclave = ["{HEX}"]\nroot_ca_sha256 = []', "root_ca_sha256 is empty"),
        (f'mrenclave = ["{HEX}"]\nroot_ca_sha256 = ["ab"]', "root_ca_sha256"),
        (f'mrenclave = ["{HEX}"]\nroot_ca_files = []', "root_ca_files is empty"),
        (f'mrenclave = ["{HEX}"]\nroot_ca_files = ["none.der"]', "root_ca_files"),
        (f'mrenclave = ["{HEX}"]\nroot_ca_files = ["a\\u0000.der"]', "root_ca_files"),
        (f'mrenclave = ["{HEX}"]\nadvisories = ["x y"]', "advisories"),
        (f'mrenclave = ["{HEX}"]\nmin_isv_svn = -1', "min_isv_svn"),
        (f'mrenclave = ["{HEX}"]\nmin_isv_svn = 65536', "min_isv_svn"),
        (f'mrenclave = ["{HEX}"]\nmin_isv_svn = true', "min_isv_svn"),
        (f'mrenclave = ["{HEX}"]\nmin_tcb_evaluation_data_number = "9"', "min_tcb_evaluation_data_number"),
        (f'mrenclave = ["{HEX}"]\nallow_smt = 1', "allow_smt"),
        (f'mrenclave = ["{HEX}"]\n[mrsigner]', "mrsigner"),
        (f'mrsigner = ["{HEX}"]', "isv_prod_id and min_isv_svn"),
        (f'mrsigner = ["{HEX}"]\nisv_prod_id = 1', "isv_prod_id and min_isv_svn"),
        ("a = " + "[" * 5000, "not TOML"),
        ("# " + "x" * 70_000, "at most"),
    ],
)
def test_refused_files_name_the_key(text: str, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Policy.parse(text.encode())


def test_not_text_is_refused() -> None:
    with pytest.raises(ConfigError):
        Policy.parse(b"\xff\xfe")


def test_defaults_are_strict() -> None:
    policy = Policy.parse(f'mrenclave = ["{HEX.upper()}"]'.encode())
    assert policy.keys == PolicyFile(mrenclave=(HEX,))
    assert policy.keys.tcb_status == ("UpToDate",)
    flags = ("allow_dynamic_platform", "allow_cached_keys", "allow_smt", "allow_simulated")
    assert not any(getattr(policy.keys, name) for name in flags)
    assert policy.pins == ("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",)


def test_canonical_text_reads_back_and_digests_alike(pki: Pki) -> None:
    policy = Policy.make(
        pki.policy(mrsigner=[MRSIGNER], isv_prod_id=0, min_isv_svn=2, advisories=["INTEL-SA-00615"], allow_smt=True)
    )
    again = parse_policy(policy.keys.to_toml().encode(), "again")
    assert again == policy.keys
    assert Policy(again).digest == policy.digest
    assert Policy.make(pki.policy()).digest != policy.digest


def test_a_root_comes_from_a_file_or_from_the_evidence_if_pinned(pki: Pki, tmp_path: Path) -> None:
    evidence = Evidence("simulated", pki.quote(), pki.collateral())
    (tmp_path / "root.der").write_bytes(pki.root_der)
    (tmp_path / "root.pem").write_text(pki.root.pem)
    for keys in ({}, {"root_ca_files": ["root.der"]}, {"root_ca_files": ["root.pem"]}):
        policy = Policy.make(pki.policy(**keys), folder=tmp_path)
        policy.check(evidence, now=NOW, expected_report_data=REPORT_DATA)
    unpinned = Policy.make(pki.policy(root_ca_sha256=None, root_ca_files=["root.der"]), folder=tmp_path)
    assert unpinned.kind_of(evidence.quote, evidence.collateral) == "simulated"
    with pytest.raises(errors.ProviderNotAllowed):
        unpinned.check(evidence, now=NOW, expected_report_data=None)
    (tmp_path / "root.der").write_bytes(b"no certificate")
    with pytest.raises(ConfigError, match=r"root\.der"):
        Policy.make(pki.policy(root_ca_files=["root.der"]), folder=tmp_path)


def test_a_root_that_is_a_pipe_is_not_waited_for(pki: Pki, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root.der")
    with pytest.raises(ConfigError, match=r"root_ca_files: cannot read '.*root\.der': it is no file"):
        Policy.make(pki.policy(root_ca_files=["root.der"]), folder=tmp_path)


def test_all_failures_are_shown_and_the_first_is_raised(pki: Pki) -> None:
    policy = Policy.make(pki.policy(mrenclave=["00" * 32], ppid=["00" * 16]))
    evidence = Evidence("simulated", pki.quote(flags=0x15), pki.collateral(tcb_status="OutOfDate"))
    appraisal = policy.appraise(evidence, now=NOW, expected_report_data=bytes(64))
    failed = [check.to_dict()["error"] for check in appraisal.checks if check.refusal]
    assert failed == ["Attributes", "Measurement", "TcbStatus", "Platform", "ReportData"]
    assert isinstance(appraisal.refusal, errors.Attributes)


def test_checks_that_were_not_reached_say_so(pki: Pki) -> None:
    policy = Policy.make(pki.policy())
    appraisal = policy.appraise(Evidence("simulated", b"", None), now=NOW, expected_report_data=None)
    assert [(one.check, one.result) for one in appraisal.checks] == [
        ("a", "passed"),
        ("a", "failed"),
        *((letter, "not checked") for letter in "bcdef"),
    ]


@pytest.mark.parametrize("kind", ["", "none", "gramine-DCAP", "simulated\0", "x" * 1000])
def test_unknown_providers(pki: Pki, kind: str) -> None:
    evidence = Evidence(kind, pki.quote(), pki.collateral())  # type: ignore[arg-type]
    with pytest.raises(errors.ProviderNotAllowed):
        Policy.make(pki.policy()).check(evidence, now=NOW, expected_report_data=None)


@pytest.mark.parametrize("now", [-1, 2**63, 10**18])
def test_times_that_are_none(pki: Pki, now: int) -> None:
    evidence = Evidence("simulated", pki.quote(), pki.collateral())
    with pytest.raises(ConfigError, match="time"):
        Policy.make(pki.policy()).check(evidence, now=now, expected_report_data=None)


def test_report_data_of_another_length_is_the_callers_mistake(pki: Pki) -> None:
    evidence = Evidence("simulated", pki.quote(), pki.collateral())
    with pytest.raises(ConfigError, match="64 bytes"):
        Policy.make(pki.policy()).check(evidence, now=NOW, expected_report_data=bytes(32))


def test_an_intermediate_can_be_no_root(pki: Pki) -> None:
    """Pinning a CA below the root must not turn off the root's revocation list."""
    import hashlib

    pin = hashlib.sha256(pki.pck_ca.cert.public_bytes(DER)).hexdigest()
    with pytest.raises(AttestationError):
        Policy.make(pki.policy(root_ca_sha256=[pin])).check(
            Evidence("simulated", pki.quote(), pki.collateral()), now=NOW, expected_report_data=None
        )


def test_every_check_has_its_class_and_letter() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    letters = {one.__name__: one.letter for one in classes if issubclass(one, errors.Refusal)}
    assert letters.pop("Refusal") == ""
    assert set(letters.values()) == set("abcdefg")
    assert all(issubclass(getattr(errors, name), AttestationError) for name in letters)
    assert MRENCLAVE != MRSIGNER
