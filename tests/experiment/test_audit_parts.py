# SPDX-License-Identifier: Apache-2.0
"""In a deployment the host has the rounds and each client its own quotes and receipts: any of them can be audited."""

import json
import shutil
from pathlib import Path

import pytest

from trustformer.cli import main
from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.audit import audit
from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run
from trustformer.flower.settings import NodeConfig
from trustformer.flower.witness import witness

CLIENTS = ("0", "1", "2")


class Stopping(PlainReporter):
    """Presses Ctrl-C after the first round."""

    def note(self, text: str) -> None:
        super().note(text)
        if "round 1/" in text:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def parted(settings: list[str], mini_model: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two boots, of which client 2 met the second only, laid out as a deployment leaves it."""
    folder = tmp_path_factory.mktemp("parted")
    cohorts, whole = folder / "rounds.jsonl", folder / "run"
    cohorts.write_text('{"present": ["0", "1"]}\n' + '{"present": ["0", "1", "2"]}\n' * 2, "utf-8")
    config = load_config(None, [*settings, f"clients.cohorts={cohorts}", "clients.min_clients=2"])
    with pytest.raises(KeyboardInterrupt):
        run(config, whole, Stopping(), resume=True)
    run(config, whole, PlainReporter(), resume=True)
    fed = folder / "fed"
    shutil.copytree(whole / "host", fed / "host" / "released")
    shutil.copy(whole / "terms.bin", fed / "host")
    (fed / "host" / "host.toml").touch()
    for client in CLIENTS:
        _client(fed / f"client-{client}", client, whole)
    return fed


def _client(folder: Path, client: str, whole: Path) -> None:
    (folder / "state").mkdir(parents=True)
    settings = NodeConfig(client=client, superlink="127.0.0.1:1", bundle="0" * 64)
    (folder / "node.toml").write_text(settings.to_toml(), "utf-8")
    for name in ("terms.bin", "policy.toml"):
        shutil.copy(whole / name, folder)
    shutil.copy(whole / "result.json", folder / "state")
    records = json.loads((whole / "attestation.json").read_text("utf-8"))["verifications"]
    own = [record for record in records if record["client"] == client]
    (folder / "state" / "attestation.json").write_text(json.dumps({"verifications": own}), "utf-8")
    lines = (whole / "receipts.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "state" / "receipts.jsonl").write_text(
        "".join(line for line in lines if json.loads(line)["client"] == client), "utf-8"
    )


@pytest.fixture
def fed(parted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(parted, tmp_path / "fed")


def failures(fed: Path, *clients: str) -> str:
    return "\n".join(audit(fed / "host", None, [witness(fed / f"client-{client}") for client in clients]).failed)


def test_host_and_clients_hold_together(fed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "audit", str(fed / "host"), *(str(fed / f"client-{client}") for client in CLIENTS)]) == 0
    printed = capsys.readouterr().out
    assert "5 quotes verify" in printed
    assert "3 of 3 rounds form one chain" in printed
    assert "8 receipts are by attested keys" in printed
    assert "nothing was checked" not in printed
    assert "policy: each client's own; --policy FILE takes yours" in printed


def test_one_client_alone_can_be_heard(fed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Client 2 never met the boot that closed round 1; round 2, signed by the boot it verified, vouches for it."""
    assert main(["attest", "audit", str(fed / "host"), str(fed / "client-2")]) == 0
    printed = capsys.readouterr().out
    assert "1 quotes verify" in printed
    assert "3 of 3 rounds form one chain" in printed
    assert "2 receipts are by attested keys" in printed
    assert "note  of 0, 1 nothing was checked but that they are on the roster" in printed


def test_every_byte_of_a_round_by_a_boot_nobody_met_matters_but_its_signature(fed: Path) -> None:
    path = fed / "host" / "released" / "round-00001.sealed"
    original = path.read_bytes()
    manifest = 4 + int.from_bytes(original[:4], "big")  # ends there, with its signature
    for at in range(8, len(original), len(original) // 60):
        path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        assert "round-0000" in failures(fed, "2") or manifest - 64 <= at < manifest, at


def test_last_rounds_that_no_attested_key_follows_are_noticed(fed: Path) -> None:
    for number in (2, 3):
        (fed / "host" / "released" / f"round-0000{number}.sealed").unlink()
    found = failures(fed, "2")
    assert "round-00001.sealed is not signed by an attested key" in found
    assert "of the 3 that clients took part in 2 are missing" in found


def test_a_receipt_lost_with_a_killed_client_is_told_and_no_failure(fed: Path) -> None:
    path = fed / "client-1" / "state" / "receipts.jsonl"
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    report = audit(fed / "host", None, [witness(fed / f"client-{client}") for client in ("0", "1")])
    assert report.failed == []
    assert any("client 1 has no receipt for round 3" in note for note in report.notes)
    path.write_text("", "utf-8")
    report = audit(fed / "host", None, [witness(fed / "client-1")])
    assert report.failed == []
    assert any("client 1 has no receipt for rounds 1, 2, 3" in note for note in report.notes)


def test_a_run_that_goes_on_is_checked_as_far_as_the_client_took_part(fed: Path) -> None:
    (fed / "client-0" / "state" / "result.json").unlink()
    (fed / "host" / "released" / "round-00003.sealed").unlink()
    assert "of the 3 that clients took part in 1 are missing" in failures(fed, "0")
    path = fed / "client-0" / "state" / "receipts.jsonl"
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:-1]), "utf-8")
    assert failures(fed, "0") == ""


def test_records_of_another_client_count_for_nothing(fed: Path) -> None:
    shutil.copy(fed / "client-0" / "state" / "attestation.json", fed / "client-1" / "state" / "attestation.json")
    found = failures(fed, "1")
    assert "holds a record of client 0" in found


def test_a_host_alone_has_nothing_to_show(fed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "audit", str(fed / "host")]) == 2
    assert "quotes and receipts are with the clients" in capsys.readouterr().err


def test_terms_of_another_federation_are_named(fed: Path) -> None:
    path = fed / "client-1" / "terms.bin"
    data, run_id = path.read_bytes(), RunConfig.from_bytes(path.read_bytes()).run_id
    path.write_bytes(data.replace(run_id, bytes(16)))
    with pytest.raises(DataError, match="client 1 agreed to other terms"):
        failures(fed, "0", "1")


def test_a_folder_of_no_client_is_named(fed: Path) -> None:
    with pytest.raises(ConfigError, match=r"host/node\.toml cannot be read"):
        witness(fed / "host")
    (fed / "client-0" / "state" / "receipts.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"receipts\.jsonl cannot be read"):
        failures(fed, "0")
