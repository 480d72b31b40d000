# SPDX-License-Identifier: Apache-2.0
"""The verb: JSON for programs, words for people, and an exit status for scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pki import MRENCLAVE, REPORT_DATA, Pki, extension, issue

from trustformer.attestation.collateral import save
from trustformer.attestation.policy import Policy
from trustformer.errors import ConfigError

AT = ("--at", "2026-05-28T00:00:00Z")


@pytest.fixture
def files(pki: Pki, tmp_path: Path) -> list[object]:
    (tmp_path / "quote.bin").write_bytes(pki.quote())
    (tmp_path / "collateral.json").write_bytes(pki.collateral())
    (tmp_path / "policy.toml").write_text(Policy.make(pki.policy()).keys.to_toml())
    return [
        *("--quote", tmp_path / "quote.bin"),
        *("--collateral", tmp_path / "collateral.json"),
        *("--policy", tmp_path / "policy.toml"),
    ]


def test_accepted(files: list[object], cli: Callable[..., Any]) -> None:
    outcome = cli("check", *files, *AT, "--report-data", REPORT_DATA.hex())
    assert (outcome.code, outcome.json["decision"], outcome.json["report_data"]) == (0, "accepted", "passed")
    assert [check["check"] for check in outcome.json["checks"]] == list("aabcccdeeeeef")
    assert outcome.json["claims"]["mrenclave"] == MRENCLAVE


def test_report_data(files: list[object], cli: Callable[..., Any]) -> None:
    without = cli("check", *files, *AT)
    assert (without.code, without.json["report_data"]) == (0, "not checked")
    short = cli("check", *files, *AT, "--report-data", REPORT_DATA[:32].hex())
    assert (short.code, short.json["report_data"]) == (0, "passed")
    other = cli("check", *files, *AT, "--report-data", "00" * 64)
    assert (other.code, other.json["failed"]["check"], other.json["failed"]["error"]) == (3, "f", "ReportData")
    assert other.json["failed"]["got"] == REPORT_DATA.hex()
    for bad in ("xyz", "00", ""):
        assert cli("check", *files, "--report-data", bad).code == 2


def test_refused_quotes_are_still_described(files: list[object], pki: Pki, cli: Callable[..., Any]) -> None:
    quote = bytearray(pki.quote())
    quote[112] ^= 1
    Path(str(files[1])).write_bytes(quote)
    outcome = cli("check", *files, *AT)
    assert (outcome.code, outcome.json["failed"]["error"], outcome.json["claims"]) == (3, "BadQuote", None)
    assert outcome.json["unverified_quote"]["mrenclave"] != MRENCLAVE


@pytest.mark.parametrize("time", ["tomorrow", "2026-05-28", "2026-05-28T00:00:00", "1780000000"])
def test_times_need_a_zone(files: list[object], cli: Callable[..., Any], time: str) -> None:
    outcome = cli("check", *files, "--at", time)
    assert (outcome.code, type(outcome.error)) == (2, ConfigError)


def test_the_provider_can_be_said(files: list[object], cli: Callable[..., Any]) -> None:
    outcome = cli("check", *files, *AT, "--provider", "gramine-dcap")
    assert (outcome.code, outcome.json["failed"]["error"]) == (3, "ProviderNotAllowed")


@pytest.mark.parametrize("missing", [1, 3, 5])
def test_missing_files(files: list[object], cli: Callable[..., Any], missing: int) -> None:
    Path(str(files[missing])).unlink()
    assert cli("check", *files, *AT).code == 2


def test_explain(files: list[object], cli: Callable[..., Any]) -> None:
    words = cli("explain", *files, *AT)
    assert words.code == 0
    plain = " ".join(words.out.split())
    for text in (MRENCLAVE, "ACCEPTED", "physical access", "is simulated", "not checked report data"):
        assert text in plain
    unchecked = cli("explain", *files[:4])
    assert unchecked.code == 0
    assert "nothing was verified" in unchecked.out
    refused = cli("explain", *files, "--at", "2027-01-01T00:00:00Z")
    assert refused.code == 3
    assert "REFUSED at check b (Expired)" in " ".join(refused.out.split())


@pytest.mark.parametrize("option", [AT, ("--report-data", "00" * 64), ("--provider", "simulated")], ids=" ".join)
def test_what_is_of_a_check_needs_a_policy(
    files: list[object], cli: Callable[..., Any], option: tuple[str, str]
) -> None:
    refused = cli("explain", *files[:4], *option)
    assert (refused.code, type(refused.error), refused.out) == (2, ConfigError, "")
    assert f"{option[0]} is of a check" in refused.error.message


def test_names_in_a_quote_cannot_steer_the_terminal(files: list[object], cli: Callable[..., Any]) -> None:
    forged = Pki()
    name = "\x1b[2J\x9b2J\x07\nVerdict\n  ACCEPTED: every check\u202e"
    forged.pck = issue(name, forged.pck_ca, None, extension(fmspc=forged.fmspc, ppid=forged.ppid, flags=None))
    Path(str(files[1])).write_bytes(forged.quote())
    for arguments in ([*files, *AT], files[:4]):
        lines = cli("explain", *arguments).out.splitlines()
        assert all(line.isprintable() for line in lines)
        assert lines.count("Verdict") == 1


def test_what_was_fetched_is_not_written_over_its_quote(files: list[object], cli: Callable[..., Any]) -> None:
    before = Path(str(files[1])).read_bytes()
    refused = cli("fetch", *files[:2], "--service", "http://127.0.0.1:9", "--out", files[1])
    assert (refused.code, type(refused.error)) == (2, ConfigError)
    assert "--out" in refused.error.message
    assert Path(str(files[1])).read_bytes() == before


def test_no_file_takes_the_place_of_a_device(pki: Pki, tmp_path: Path) -> None:
    """As root a rename would replace /dev/null itself."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="not a file"):
        save(tmp_path / "pipe", pki.collateral())
    assert (tmp_path / "pipe").is_fifo()
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.parametrize("verb", ["check", "explain", "fetch", "sign", "pin"])
def test_help_has_examples(cli: Callable[..., Any], verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli(verb, "--help")
    assert stopped.value.code == 0
    assert "examples:" in capsys.readouterr().out


def test_building_the_parser_loads_no_verifier() -> None:
    program = (
        "import argparse, sys\nfrom trustformer.cli import attest\n"
        "attest.add_parser(argparse.ArgumentParser().add_subparsers())\n"
        "sys.exit(1 if {'dcap_qvl', 'cryptography', 'torch'} & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
