# SPDX-License-Identifier: Apache-2.0
"""In a deployment the host has the rounds and each client its own quotes and receipts: any of them can be audited."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trustformer.cli import main
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import Manifest, sign, split_signed
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.audit import Audit, audit
from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run
from trustformer.federation.host import split_kept
from trustformer.flower.settings import NodeConfig
from trustformer.flower.witness import witness
from trustformer.message import enc
from trustformer.secure.identity import Identity

CLIENTS = ("0", "1", "2")


class Stopping(PlainReporter):
    """Presses Ctrl-C after the first round."""

    def note(self, text: str) -> None:
        super().note(text)
        if "round 1/" in text:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def parted(settings: list[str], mini_model: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two boots, of which client 0 met the first only and client 2 the second, as a deployment leaves it."""
    folder = tmp_path_factory.mktemp("parted")
    cohorts, whole = folder / "rounds.jsonl", folder / "run"
    cohorts.write_text('{"present": ["0", "1"]}\n' + '{"present": ["1", "2"]}\n' * 2, "utf-8")
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
    records = json.loads((whole / "attestation.json").read_text("utf-8"))["verifications"]
    own = [record for record in records if record["client"] == client]
    (folder / "state" / "attestation.json").write_text(json.dumps({"verifications": own}), "utf-8")
    for name in ("receipts.jsonl", "welcomes.jsonl"):
        lines = (whole / name).read_text("utf-8").splitlines(keepends=True)
        (folder / "state" / name).write_text("".join(x for x in lines if json.loads(x)["client"] == client), "utf-8")


def manifest_of(path: Path) -> Manifest:
    signed, _ = split_kept(path.read_bytes(), 2**24)
    return Manifest.from_bytes(split_signed(signed, "manifest")[0])


def records_of(fed: Path, client: str, keep: Callable[[dict[str, Any]], bool]) -> None:
    path = fed / f"client-{client}" / "state" / "attestation.json"
    kept = [record for record in json.loads(path.read_text("utf-8"))["verifications"] if keep(record)]
    path.write_text(json.dumps({"verifications": kept}), "utf-8")


def keep(fed: Path, client: str, name: str, count: int) -> None:
    """Keep the first so many receipts or welcomes."""
    path = fed / f"client-{client}" / "state" / f"{name}.jsonl"
    path.write_text("".join(path.read_text("utf-8").splitlines(keepends=True)[:count]), "utf-8")


def released(fed: Path, number: int) -> Path:
    return fed / "host" / "released" / f"round-{number:05d}.sealed"


def forge(fed: Path, number: int, **changes: Any) -> None:
    """Put another round in the place of one, by a boot that nobody attested."""
    key = Identity.generate()
    manifest = replace(manifest_of(released(fed, number)), boot_id=b"forged boot 0000", **changes)
    _, sealed = split_kept(released(fed, number).read_bytes(), 2**24)
    released(fed, number).write_bytes(enc(sign(manifest.to_bytes(), key), sealed))


@pytest.fixture
def fed(parted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(parted, tmp_path / "fed")


def audited(fed: Path, *clients: str) -> Audit:
    return audit(fed / "host", None, [witness(fed / f"client-{client}") for client in clients])


def failures(fed: Path, *clients: str) -> str:
    return "\n".join(audited(fed, *clients).failed)


def test_host_and_clients_hold_together(fed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attest", "audit", str(fed / "host"), *(str(fed / f"client-{client}") for client in CLIENTS)]) == 0
    printed = capsys.readouterr().out
    assert "4 quotes verify" in printed
    assert "3 of 3 rounds form one chain that attested keys vouch for" in printed
    assert "6 receipts are by attested keys" in printed
    assert "nothing was checked" not in printed
    assert "policy: each client's own; --policy FILE takes yours" in printed


def test_one_client_alone_can_be_heard(fed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Client 2 never met the boot that closed round 1; round 2, signed by the boot it verified, vouches for it."""
    assert main(["attest", "audit", str(fed / "host"), str(fed / "client-2")]) == 0
    printed = capsys.readouterr().out
    assert "1 quotes verify" in printed
    assert "3 of 3 rounds form one chain that attested keys vouch for" in printed
    assert "2 receipts are by attested keys" in printed
    assert "note  of 0, 1 nothing was checked but that they are on the roster" in printed


def test_every_byte_of_a_round_by_a_boot_nobody_met_matters_but_its_signature(fed: Path) -> None:
    path = released(fed, 1)
    original = path.read_bytes()
    manifest = 4 + int.from_bytes(original[:4], "big")  # ends there, with its signature
    for at in range(8, len(original), len(original) // 60):
        path.write_bytes(original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :])
        assert "round-0000" in failures(fed, "2") or manifest - 64 <= at < manifest, at


def test_a_welcome_vouches_for_the_round_it_names(fed: Path) -> None:
    """Client 2 came after round 1, and round 2 is still open."""
    for number in (2, 3):
        released(fed, number).unlink()
    keep(fed, "2", "welcomes", 1)
    keep(fed, "2", "receipts", 1)
    report = audited(fed, "2")
    assert report.failed == []
    assert "1 of 3 rounds form one chain that attested keys vouch for" in report.passed
    assert "round 2 was open when these files were taken" in report.notes
    forge(fed, 1)
    assert "client 2 was told of another round 1 than this one" in failures(fed, "2")


def test_a_client_that_was_away_when_the_last_rounds_were_closed_can_be_heard(fed: Path) -> None:
    """Client 0 met the first boot only, and nothing it holds speaks for or against what followed."""
    for change in (lambda: None, lambda: forge(fed, 3)):
        change()
        report = audited(fed, "0")
        assert report.failed == []
        assert "1 of 3 rounds form one chain that attested keys vouch for" in report.passed
        assert any("nothing vouches for rounds 2, 3" in note for note in report.notes)
    assert "round 3 combines client 1, which had not verified what closed it" in failures(fed, "0", "1")


def test_a_chain_that_nobody_vouches_for_is_not_said_to_hold(fed: Path) -> None:
    keep(fed, "0", "receipts", 0)
    keep(fed, "0", "welcomes", 0)
    for number in (1, 2, 3):
        before = manifest_of(released(fed, number - 1)).hash if number > 1 else bytes(32)
        forge(fed, number, previous=before, uploads=tuple((name, bytes(32)) for name in ("1", "2")))
    report = audited(fed, "0")
    assert not [sentence for sentence in report.passed if "rounds form" in sentence]
    assert any("nothing vouches for rounds 1, 2, 3" in note for note in report.notes)


def test_another_chain_than_a_client_was_told_of_is_noticed(fed: Path) -> None:
    forge(fed, 2)
    found = failures(fed, "1")
    assert "client 1 was told of another round 2 than this one" in found
    assert "round-00002.sealed is not signed by an attested key" in found


def test_a_client_combined_by_a_boot_it_had_not_verified_is_noticed(fed: Path) -> None:
    """Whoever vouches for the key: a colluding client could vouch for an enclave of the host's."""
    first = manifest_of(released(fed, 1)).boot_id.hex()
    records_of(fed, "1", lambda record: record["binding"]["boot_id"] != first)
    keep(fed, "1", "receipts", 0)
    assert "round 1 combines client 1, which had not verified what closed it" in failures(fed, *CLIENTS)
    records_of(fed, "1", lambda record: False)
    assert "round 3 combines client 1, which had not verified what closed it" in failures(fed, *CLIENTS)


def test_a_receipt_lost_with_a_killed_client_is_told_and_no_failure(fed: Path) -> None:
    keep(fed, "1", "receipts", 2)
    report = audited(fed, "0", "1")
    assert report.failed == []
    assert any("client 1 has no receipt for its update of round 3" in note for note in report.notes)
    (fed / "client-1" / "state" / "receipts.jsonl").unlink()
    report = audited(fed, "1")
    assert report.failed == []
    assert any("client 1 has no receipt for its update of rounds 1, 2, 3" in note for note in report.notes)


def test_a_client_that_never_joined_has_nothing_to_show_and_hides_nothing(fed: Path) -> None:
    shutil.rmtree(fed / "client-2" / "state")
    assert "round 2 combines client 2, which had not verified what closed it" in failures(fed, *CLIENTS)
    report = audited(fed, "2")
    assert report.failed == []
    assert "none of these clients has accepted a quote" in report.notes


@pytest.mark.parametrize("own", [False, True], ids=["clients", "own"])
@pytest.mark.parametrize("lost", ["all", "decisions"])
def test_clients_that_sent_and_have_no_quote_they_accepted_do_not_pass(
    fed: Path, lost: str, own: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    for client in CLIENTS:
        path = fed / f"client-{client}" / "state" / "attestation.json"
        if lost == "all":
            path.unlink()
        else:
            path.write_text(path.read_text("utf-8").replace('"accepted"', '"refused"'), "utf-8")
    policy = ["--policy", str(fed / "client-0" / "policy.toml")] if own else []
    folders = [str(fed / f"client-{client}") for client in CLIENTS]
    assert main(["attest", "audit", str(fed / "host"), *folders, *policy]) == 3
    printed = capsys.readouterr().out
    for client in CLIENTS:
        assert f"FAIL  quotes: client {client} has receipts for what it sent, and no quote" in printed


def test_an_audit_that_verified_nothing_does_not_pass(fed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(fed / "client-2" / "state")
    assert main(["attest", "audit", str(fed / "host"), str(fed / "client-2")]) == 3
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"note"}


def test_a_run_that_goes_on_is_checked_as_far_as_it_is(fed: Path) -> None:
    released(fed, 3).unlink()
    report = audited(fed, *CLIENTS)
    assert report.failed == []
    assert "round 3 was open when these files were taken" in report.notes
    released(fed, 2).unlink()
    assert "1 of the 2 that clients know to be closed are missing" in failures(fed, *CLIENTS)


def test_records_and_receipts_of_another_client_count_for_nothing(fed: Path) -> None:
    for name in ("attestation.json", "receipts.jsonl", "welcomes.jsonl"):
        shutil.copy(fed / "client-0" / "state" / name, fed / "client-1" / "state" / name)
    found = failures(fed, "0", "1")
    assert "has a record of client 0" in found
    assert found.count("line 1, is another client's") == 2


def test_a_record_of_nobody_is_not_printed(fed: Path) -> None:
    path = fed / "client-1" / "state" / "attestation.json"
    tree = json.loads(path.read_text("utf-8"))
    tree["verifications"][0]["client"] = "1\nok    all is well"
    path.write_text(json.dumps(tree), "utf-8")
    found = failures(fed, "1")
    assert "has a record of no client of the roster" in found
    assert "all is well" not in found


def test_policies_that_differ_are_told(fed: Path) -> None:
    with open(fed / "client-1" / "policy.toml", "a", encoding="utf-8") as file:
        file.write("allow_smt = true\n")
    report = audited(fed, "0", "1")
    assert report.failed == []
    assert any("the clients' policies differ" in note for note in report.notes)


def test_more_rounds_than_agreed_are_noticed(fed: Path) -> None:
    shutil.copy(released(fed, 3), released(fed, 4))
    assert "there are 4 where 3 were agreed" in failures(fed, "0")


def test_a_pipe_is_not_waited_for(fed: Path) -> None:
    for path in (fed / "client-1" / "policy.toml", fed / "client-1" / "node.toml"):
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(ConfigError, match=f"{path.name} is no file"):
            failures(fed, "1")


@pytest.mark.parametrize("folders", [["host"], ["client-0"], ["client-0", "client-1"]], ids=" ".join)
def test_one_partys_folder_alone_is_explained(
    fed: Path, folders: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attest", "audit", *(str(fed / folder) for folder in folders)]) == 2
    assert "name the host's folder first, then folders of clients" in capsys.readouterr().err


def test_terms_of_another_federation_are_named(fed: Path) -> None:
    path = fed / "client-1" / "terms.bin"
    data, run_id = path.read_bytes(), RunConfig.from_bytes(path.read_bytes()).run_id
    path.write_bytes(data.replace(run_id, bytes(16)))
    with pytest.raises(DataError, match="client 1 agreed to other terms"):
        failures(fed, "0", "1")


def test_a_folder_of_no_client_of_the_roster_is_named(fed: Path) -> None:
    with pytest.raises(ConfigError, match=r"host/node\.toml cannot be read"):
        witness(fed / "host")
    with pytest.raises(ConfigError, match="client 0 is given twice"):
        failures(fed, "0", "1", "0")
    path = fed / "client-0" / "node.toml"
    path.write_text(path.read_text("utf-8").replace('client = "0"', 'client = "99"'), "utf-8")
    with pytest.raises(DataError, match="'99', which is not on the roster"):
        failures(fed, "0")
    path.write_text(f"client = {'[' * 5000}", "utf-8")
    with pytest.raises(ConfigError, match=r"node\.toml"):
        failures(fed, "0")
