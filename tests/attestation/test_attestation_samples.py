# SPDX-License-Identifier: Apache-2.0
"""Every published sample through `attest check`: the decision and the error class, and what is claimed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustformer.attestation.parsing import parse_certificate, show_time

data = os.environ.get("TRUSTFORMER_DATA")
CASES = Path(data).parent / "sgx" / "synthetic" / "cases.json" if data else None
SAMPLES: dict[str, Any] = json.loads(CASES.read_text()) if CASES and CASES.exists() else {"cases": []}
BY_NAME = {case["case"]: case for case in SAMPLES["cases"]}

CLASSES = {
    "intel_root": "BadQuote",
    "wrong_root": "BadQuote",
    "mixed_roots": "BadQuote",
    "debug": "DebugEnclave",
    "isv_svn_0": "Measurement",
    "isv_prod_id_other": "Measurement",
    "mr_enclave_other": "Measurement",
    "mr_signer_other": "Measurement",
    "report_data_other": "ReportData",
    "attr_provision_key": "Attributes",
    "attr_einittoken_key": "Attributes",
    "attr_no_init": "Attributes",
    "attr_32bit": "Attributes",
    "qe_isv_svn_low": "TcbStatus",
    "qe_OutOfDate": "TcbStatus",
    "qe_Revoked": "TcbStatus",
    "above_platform": "TcbStatus",
    "pck_revoked": "Revoked",
    "pck_ca_revoked": "Revoked",
    "tcb_signer_revoked": "Revoked",
    "other_fmspc": "BadCollateral",
    "tcb_id_tdx": "BadCollateral",
    "tcb_info_edited": "BadCollateral",
    "low_eval_number": "StaleCollateral",
    "collateral_expired": "Expired",
    "collateral_not_yet": "NotYetValid",
}


def error_class(name: str) -> str:
    return "TcbStatus" if name.startswith("tcb_") and name not in CLASSES else CLASSES.get(name, "BadQuote")


def write_policy(folder: Path, samples: Path, root: str, **keys: Any) -> Path:
    """A policy for the valid quote that every sample is held against."""
    fields = SAMPLES["fields_of_valid"]
    policy = {
        "mrenclave": [fields["mr_enclave"]],
        "mrsigner": [fields["mr_signer"]],
        "isv_prod_id": fields["isv_prod_id"],
        "min_isv_svn": fields["isv_svn"],
        "min_tcb_evaluation_data_number": SAMPLES["tcb_evaluation_data_number"],
    }
    if root.endswith(".der"):
        from trustformer.attestation.dcap import fingerprint

        file = samples / "synthetic" / root
        policy |= {"root_ca_files": [str(file)], "allow_simulated": True}
        policy["root_ca_sha256"] = [fingerprint(parse_certificate(file.read_bytes(), root).der)]
    path = folder / "policy.toml"
    lines = (f"{name} = {json.dumps(value)}\n" for name, value in (policy | keys).items() if value is not None)
    path.write_text("".join(lines))
    return path


def options(samples: Path, case: dict[str, Any]) -> list[object]:
    folder = samples / "synthetic"
    return [
        *("--quote", folder / case["quote"], "--collateral", folder / case["collateral"]),
        *("--at", show_time(case["now"]), "--report-data", SAMPLES["fields_of_valid"]["report_data"]),
    ]


@pytest.mark.skipif(not BY_NAME, reason="the quote samples are not beside TRUSTFORMER_DATA")
def test_there_are_46_cases() -> None:
    assert len(BY_NAME) == 46


@pytest.mark.parametrize("name", BY_NAME)
def test_synthetic(name: str, samples: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    case = BY_NAME[name]
    policy = write_policy(tmp_path, samples, case["root_ca"])
    outcome = cli("check", *options(samples, case), "--policy", policy)
    if case["expect"].startswith("accept"):
        assert (outcome.code, outcome.json["decision"], outcome.json["failed"]) == (0, "accepted", None)
        assert outcome.json["claims"]["mrenclave"] == SAMPLES["fields_of_valid"]["mr_enclave"]
    else:
        assert (outcome.code, outcome.json["decision"]) == (3, "refused")
        assert outcome.json["failed"]["error"] == error_class(name) == type(outcome.error).__name__
        assert outcome.error.hint
        assert outcome.error.got
        assert outcome.error.expected


LISTED = [name for name in BY_NAME if name.startswith("tcb_") and error_class(name) == "TcbStatus"]


@pytest.mark.parametrize("name", LISTED)
def test_synthetic_with_the_status_listed(name: str, samples: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    case, status = BY_NAME[name], name.removeprefix("tcb_")
    policy = write_policy(tmp_path, samples, case["root_ca"], tcb_status=["UpToDate", status])
    outcome = cli("check", *options(samples, case), "--policy", policy)
    refusal = "TcbStatus" if status == "Revoked" else "Advisory"
    assert (outcome.code, outcome.json["failed"]["error"]) == (3, refusal)
    listed = {"tcb_status": ["UpToDate", status], "advisories": ["INTEL-SA-00000"]}
    policy = write_policy(tmp_path, samples, case["root_ca"], **listed)
    assert cli("check", *options(samples, case), "--policy", policy).code == (3 if status == "Revoked" else 0)


@pytest.mark.parametrize("name", ["sgx_processor_ca", "sgx_debug_enclave", "tdx_not_sgx"])
def test_real(name: str, samples: Path, tmp_path: Path, cli: Callable[..., Any]) -> None:
    folder = samples / "real" / name
    expected = json.loads((folder / "expected.json").read_text())
    fields = expected["fields"]
    policy = tmp_path / "policy.toml"
    policy.write_text(f'mrenclave = ["{fields.get("mr_enclave", "00" * 32)}"]\n')

    def check(at: int) -> Any:
        files = ("--quote", folder / "quote.bin", "--collateral", folder / "collateral.json")
        return cli("check", *files, "--policy", policy, "--at", show_time(at))

    inside = check(expected["verify_at"])
    refusal = {"sgx_debug_enclave": "DebugEnclave", "tdx_not_sgx": "WrongTee"}.get(name, "TcbStatus")
    assert (inside.code, inside.json["failed"]["error"]) == (3, refusal)
    assert inside.json["report_data"] == "not checked"
    assert check(expected["window"]["not_before"] - 1).json["failed"]["error"] == "NotYetValid"
    assert check(expected["window"]["not_after"] + 1).json["failed"]["error"] == "Expired"
    if name == "sgx_debug_enclave":
        assert inside.json["unverified_quote"]["mrenclave"] == fields["mr_enclave"]
        return
    claims = inside.json["claims"]
    assert (claims["fmspc"], claims["ppid"]) == (expected["fmspc"].lower(), expected["ppid"])
    assert (claims["not_before"], claims["not_after"]) == (
        expected["window"]["not_before_utc"],
        expected["window"]["not_after_utc"],
    )
    if name == "sgx_processor_ca":
        policy.write_text(
            policy.read_text() + 'tcb_status = ["ConfigurationAndSWHardeningNeeded"]\n'
            'advisories = ["INTEL-SA-00289", "INTEL-SA-00615"]\n'
        )
        assert check(expected["verify_at"]).code == 0
        assert check(expected["window"]["not_before"]).code == 0
        assert check(expected["window"]["not_after"]).code == 0
        for key in ("mr_enclave", "mr_signer", "isv_svn", "isv_prod_id", "report_data", "attributes"):
            assert claims[key.replace("mr_", "mr")] == fields[key]
