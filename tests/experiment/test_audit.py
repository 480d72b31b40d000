# SPDX-License-Identifier: Apache-2.0
"""A third party verifies a run from its files alone, and notices what was changed afterwards."""

import base64
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trustformer.attestation.policy import Policy
from trustformer.cli import main
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import Manifest, Receipt, Welcome, split_signed
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.audit import Audit, _receipts, audit
from trustformer.experiment.testimony import Quotes, Witness, quotes_of
from trustformer.federation.host import split_kept


@pytest.fixture(scope="module")
def recorded(tiny_run: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("audit") / "run"
    tiny_run(out, "clients.late=0.4", "clients.duplicate=0.5", "clients.min_clients=2", "seed=4")
    return out


@pytest.fixture
def run(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "run")


def failures(run: Path, policy: Path | None = None) -> str:
    return "\n".join(audit(run, policy).failed)


def test_an_untouched_run_holds_without_keys_or_state(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("clients", "enclave", "model"):
        shutil.rmtree(run / folder)
    assert main(["attest", "audit", str(run)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("ok  ") == 3
    assert "3 quotes verify" in printed
    assert "3 of 3 rounds form one chain" in printed
    assert "note  SIMULATED ATTESTATION" in printed
    assert f"policy: {run / 'policy.toml'} (the run's own" in printed


def test_many_problems_of_one_cause_are_told_once(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = tmp_path / "mine.toml"
    text = (run / "policy.toml").read_text("utf-8")
    measured = re.search(r'mrenclave = \["([0-9a-f]{64})', text)
    assert measured
    policy.write_text(text.replace(measured[1], "ab" * 32), "utf-8")
    assert main(["attest", "audit", str(run), "--policy", str(policy)]) == 3
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["FAIL"] * 3 + ["note"] * 3
    assert all("MRENCLAVE" in line for line in lines[:3]), lines
    assert "(yours)" in lines[4]
    assert "rounds and receipts were not checked" in lines[5]


def test_more_problems_of_a_check_than_anyone_reads_are_counted(run: Path) -> None:
    path = run / "receipts.jsonl"
    path.write_text("{}\n" * 50 + path.read_text("utf-8"), "utf-8")
    found = audit(run).failed
    assert len(found) == 6
    assert found[-1] == "receipts: and 45 more like these"


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nope does not exist"):
        audit(tmp_path / "nope")


def test_every_byte_of_a_released_round_matters(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "host" / "round-00002.sealed"
    original = path.read_bytes()
    for at in range(8, len(original), len(original) // 40):
        path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        assert "round-00002" in failures(run), at
    assert main(["attest", "audit", str(run)]) == 3
    assert "FAIL" in capsys.readouterr().out


def test_a_round_left_out_breaks_the_chain(run: Path) -> None:
    (run / "host" / "round-00001.sealed").unlink()
    assert "does not follow the round before it" in failures(run)


def test_rounds_of_another_run_are_not_by_an_attested_key(run: Path, tiny_run: Any, tmp_path: Path) -> None:
    tiny_run(tmp_path / "other", "seed=4", "clients.min_clients=2")
    shutil.copy(tmp_path / "other" / "host" / "round-00001.sealed", run / "host" / "round-00001.sealed")
    assert "round-00001.sealed is not signed by an attested key" in failures(run)


@pytest.mark.parametrize("field", ["nonce", "run_id", "cfg", "vk_e", "boot_id", "client_id"])
def test_a_record_bound_to_anything_else_is_noticed(run: Path, field: str) -> None:
    path = run / "attestation.json"
    tree = json.loads(path.read_text("utf-8"))
    binding = tree["verifications"][0]["binding"]
    binding[field] = (
        "1" if field == "client_id" else ("00" if binding[field][:2] != "00" else "11") + binding[field][2:]
    )
    path.write_text(json.dumps(tree), "utf-8")
    assert "accepted evidence that does not verify" in failures(run)


def test_a_record_of_another_client_is_noticed(run: Path) -> None:
    path = run / "attestation.json"
    tree = json.loads(path.read_text("utf-8"))
    tree["verifications"][0]["client"], tree["verifications"][1]["client"] = "1", "0"
    path.write_text(json.dumps(tree), "utf-8")
    assert "bound to another run, config or client" in failures(run)


def test_a_client_that_sent_without_verifying_is_noticed(run: Path) -> None:
    path = run / "attestation.json"
    tree = json.loads(path.read_text("utf-8"))
    tree["verifications"] = [entry for entry in tree["verifications"] if entry["client"] != "1"]
    path.write_text(json.dumps(tree), "utf-8")
    assert "client 1 sent to a boot it had not verified" in failures(run)


def test_a_changed_receipt_is_noticed(run: Path) -> None:
    path = run / "receipts.jsonl"
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    receipt = lines[0]["receipt"]
    lines[0]["receipt"] = receipt[:60] + ("A" if receipt[60] != "A" else "B") + receipt[61:]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    assert "is not by an attested key" in failures(run)


def lines_of(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / "receipts.jsonl").read_text("utf-8").splitlines()]


def receipt_of(line: dict[str, str]) -> Receipt:
    return Receipt.from_bytes(split_signed(base64.b64decode(line["receipt"]), "receipt")[0])


def keep_receipts(run: Path, keep: Callable[[Receipt], bool]) -> None:
    kept = [line for line in lines_of(run) if keep(receipt_of(line))]
    (run / "receipts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept), "utf-8")


def keep_welcomes(run: Path, keep: Callable[[Welcome], bool]) -> None:
    path = run / "welcomes.jsonl"
    kept = []
    for line in path.read_text("utf-8").splitlines(keepends=True):
        signed = base64.b64decode(json.loads(line)["welcome"])
        if keep(Welcome.from_bytes(split_signed(signed, "welcome")[0])):
            kept.append(line)
    path.write_text("".join(kept), "utf-8")


def test_last_rounds_taken_away_are_noticed(run: Path) -> None:
    (run / "host" / "round-00003.sealed").unlink()
    assert "1 of the 3 that clients know to be closed are missing" in failures(run)
    (run / "result.json").unlink()  # as of a run that was not finished: round 3 may have been open
    keep_welcomes(run, lambda welcome: welcome.round < 3)
    report = audit(run)
    assert report.failed == []
    assert any(sentence.startswith("2 of 3 rounds form one chain") for sentence in report.passed)
    assert "round 3 was open when these files were taken" in report.notes
    (run / "host" / "round-00002.sealed").unlink()
    assert "1 of the 2 that clients know to be closed are missing" in failures(run)


def test_a_directory_without_receipts_or_rounds_shows_nothing(run: Path) -> None:
    (run / "receipts.jsonl").write_text("", "utf-8")
    found = failures(run)
    assert all(f"receipts: client {client} has no receipt for its update of round" in found for client in "012")
    shutil.rmtree(run / "host")
    assert "3 of the 3 that clients know to be closed are missing" in failures(run)


def test_a_folder_that_never_closed_a_round_says_so(run: Path) -> None:
    shutil.rmtree(run / "host")
    for name in ("receipts.jsonl", "welcomes.jsonl"):
        (run / name).write_text("", "utf-8")
    (run / "result.json").unlink()
    report = audit(run)
    assert report.failed == []
    assert "none of 3 rounds was closed as far as clients know, and there is none" in report.passed


def test_a_file_too_long_or_of_another_kind_is_not_read(run: Path) -> None:
    path = run / "host" / "round-00003.sealed"
    os.truncate(path, 2**35)
    assert "round-00003.sealed is not signed by an attested key or damaged" in failures(run)
    path.unlink()
    os.mkfifo(path)
    assert "round-00003.sealed is not signed by an attested key or damaged" in failures(run)
    os.truncate(run / "receipts.jsonl", 2**35)
    with pytest.raises(DataError, match=r"receipts\.jsonl is longer than"):
        audit(run)


def test_a_last_line_that_a_killed_process_left_counts_for_nothing(run: Path) -> None:
    with open(run / "receipts.jsonl", "ab") as file:
        file.write(b'{"client": "1", "rec')
    assert failures(run) == ""


def test_evidence_of_another_provider_than_agreed_counts_for_nothing(run: Path) -> None:
    """A client would have refused it: in a run of hardware no simulated quote shows anything."""
    terms = RunConfig.from_bytes((run / "terms.bin").read_bytes())
    policy = Policy.load(run / "policy.toml")
    witness = Witness(run, run / "terms.bin", run / "policy.toml")
    assert quotes_of([witness], terms, [policy]).count == 3
    quotes = quotes_of([witness], replace(terms, provider="gramine-dcap"), [policy])
    assert (quotes.count, quotes.keys) == (0, {})
    assert "another provider than gramine-dcap" in quotes.problems[0]


def test_a_policy_changed_since_is_told_and_judges(run: Path) -> None:
    policy = run / "policy.toml"
    text = policy.read_text("utf-8")
    policy.write_text(text + "allow_smt = true\n", "utf-8")
    report = audit(run)
    assert report.failed == []
    assert "3 quotes were accepted under a policy that has changed since" in report.notes
    policy.write_text(re.sub(r"[0-9a-f]{64}\"\]\n$", "ab" * 32 + '"]\n', text), "utf-8")
    assert "accepted evidence that does not verify" in failures(run)


def test_a_receipt_taken_away_is_noticed(run: Path) -> None:
    keep_receipts(run, lambda receipt: (receipt.round, receipt.client_id) != (2, "1"))
    assert "client 1 has no receipt for its update of round 2" in failures(run)


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize("other", [{}, {"attempt": 7}, {"boot_id": bytes(16)}], ids=["same", "attempt", "boot"])
def test_a_client_accepted_and_then_left_out_is_noticed(run: Path, attempt: int, other: dict[str, Any]) -> None:
    """Of the attempt that was closed: what an attempt with too few clients, or a lost enclave had, is sent again."""
    signed, _ = split_kept((run / "host" / "round-00003.sealed").read_bytes(), 2**24)
    closed = replace(Manifest.from_bytes(split_signed(signed, "manifest")[0]), attempt=attempt)
    listed = closed.uploads[:-1]
    left = closed.uploads[-1][0]
    receipts = [
        Receipt(closed.run_id, closed.boot_id, 3, attempt, client, bytes(32), "accepted") for client, _ in listed
    ]
    receipts.append(replace(receipts[0], client_id=left, **other))
    boots = {closed.boot_id.hex(), bytes(16).hex()}
    quotes = Quotes({}, {(client, boot) for client, _ in closed.uploads for boot in boots})
    report = Audit()
    _receipts(receipts, [], quotes, {3: replace(closed, uploads=listed)}, (), report)
    found = f"receipts: round 3: client {left} was accepted and then left out"
    assert report.failed == ([] if other else [found])


def test_a_client_that_refused_the_enclave_and_sent_is_noticed(run: Path) -> None:
    path = run / "attestation.json"
    tree = json.loads(path.read_text("utf-8"))
    record = next(entry for entry in tree["verifications"] if entry["client"] == "1")
    record["decision"] = "refused"
    path.write_text(json.dumps(tree), "utf-8")
    assert "client 1 sent to a boot it had not verified" in failures(run)
    record["decision"], record["quote"] = "accepted", record["quote"][:400]
    path.write_text(json.dumps(tree), "utf-8")
    found = failures(run)
    assert "client 1 accepted evidence that does not verify" in found
    assert "client 1 sent to a boot it had not verified" in found


FOREIGN = [
    b"{}",
    b"",
    b"[]",
    b"{",
    b'{"client": "1", "receipt": 7}',
    b'{"client": "1", "receipt": "\xc3\xa9"}',
    b'{"client": "\\ud800", "receipt": ""}',
    b'{"client": "\xff", "receipt": ""}',
    b'{"client": "1", "receipt": "", "more": ' + b"[" * 100_000,
]


@pytest.mark.parametrize("line", FOREIGN, ids=range(len(FOREIGN)))
def test_a_line_that_is_no_receipt_is_a_problem(run: Path, line: bytes) -> None:
    path = run / "receipts.jsonl"
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert "receipts.jsonl, line 1, is not by an attested key or damaged" in failures(run)


@pytest.mark.parametrize("data", FOREIGN, ids=range(len(FOREIGN)))
def test_records_that_cannot_be_read_are_said(run: Path, data: bytes) -> None:
    (run / "attestation.json").write_bytes(data)
    with pytest.raises(DataError, match=r"attestation\.json does not hold verification records"):
        audit(run)


def test_terms_and_rounds_that_cannot_be_read_are_said(run: Path) -> None:
    (run / "host" / "round-00003.sealed").unlink()
    (run / "host" / "round-00003.sealed").mkdir()
    assert "round-00003.sealed is not signed by an attested key or damaged" in failures(run)
    (run / "terms.bin").write_bytes(b"\0" * 40)
    with pytest.raises(DataError, match=r"terms\.bin: run config"):
        audit(run)


def test_the_auditors_own_policy_decides(run: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict.toml"
    strict.write_text(f'mrenclave = ["{"ab" * 32}"]\n', "utf-8")
    assert "accepted evidence that does not verify" in failures(run, strict)
    assert failures(run, run / "policy.toml") == ""


def test_a_run_that_exchanged_nothing_has_nothing_to_audit(tiny_run: Any, tmp_path: Path) -> None:
    tiny_run(tmp_path / "local", "method.name=local", "rounds=1")
    with pytest.raises(ConfigError, match="no exchange to audit"):
        audit(tmp_path / "local")
    assert main(["attest", "audit", str(tmp_path / "nowhere")]) == 2
