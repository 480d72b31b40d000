# SPDX-License-Identifier: Apache-2.0
"""`doctor` finds what is wrong with a machine; `completion` and `--version` do what shells and people ask."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from cli_kit import Cli

from trustformer.experiment import doctor
from trustformer.message import WIRE_VERSION


def findings(cli: Cli) -> tuple[int, dict[str, dict[str, str]]]:
    code, shown, err = cli("doctor", "--json")
    assert err == ""
    return code, {finding["what"]: finding for finding in json.loads(shown)}


def test_here_everything_a_run_needs_is_found(cli: Cli) -> None:
    code, found = findings(cli)
    assert code == 0
    assert {"python", "trustformer", "packages", "torch", "threads", "disk", "corpora", "SGX", "ports"} <= found.keys()
    assert f"numpy {version('numpy')}" in found["packages"]["found"]
    assert WIRE_VERSION in found["trustformer"]["found"]
    assert all(f"{extra}" in found["extras"]["found"] for extra in ("flower", "dp: opacus", "hf: datasets"))
    real = all(Path(device).exists() for device in doctor.SGX_DEVICES)
    assert ("simulated" in found["SGX"]["found"]) != real
    code, shown, _ = cli("doctor")
    assert code == 0
    assert "FIX" not in shown


def test_a_folder_of_corpora_that_is_not_there_must_be_fixed(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUSTFORMER_DATA", "/nowhere/at/all")
    code, found = findings(cli)
    assert code == 1
    assert found["corpora"]["verdict"] == "fix"
    assert "unset" in found["corpora"]["advice"]
    assert "FIX" in cli("doctor").out


def test_packages_missing_or_too_old_are_named_with_the_command(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def pretend(name: str) -> str:
        if name == "rich":
            return "1.0"
        if name == "sacrebleu":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor, "version", pretend)
    code, found = findings(cli)
    assert code == 1
    assert "1.0, wanted" in found["rich"]["found"]
    assert found["sacrebleu"]["found"] == "not installed"
    assert found["sacrebleu"]["advice"].startswith("pip install 'sacrebleu")


def test_ports_in_use_and_too_many_threads_are_noted(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(doctor, "PORTS", (taken.getsockname()[1],))
        monkeypatch.setenv("OMP_NUM_THREADS", "4096")
        code, found = findings(cli)
    assert code == 0
    assert (found["ports"]["verdict"], found["threads"]["verdict"]) == ("note", "note")
    assert str(doctor.PORTS[0]) in found["ports"]["found"]


def test_a_disk_that_is_nearly_full_must_be_fixed(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1e18)
    code, found = findings(cli)
    assert (code, found["disk"]["verdict"]) == (1, "fix")


@pytest.mark.parametrize("name", ["br[x]", "br[/x]", "br:x:[red]"])
def test_a_folder_is_shown_by_its_name(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / name)
    code, shown, err = cli("doctor")
    assert (code, err) == (0, "")
    assert name in "".join(shown.split())


def test_a_temporary_folder_too_long_for_a_socket_must_be_fixed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("x" * 100)))
    code, found = findings(cli)
    assert (code, found["temporary"]["verdict"]) == (1, "fix")
    assert "TMPDIR" in found["temporary"]["advice"]


def test_the_version_names_the_wire_format(cli: Cli) -> None:
    assert cli("--version").out == f"trustformer {version('trustformer')} (wire format {WIRE_VERSION})\n"


COMPLETE = """
source /dev/stdin
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_trustformer
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("trustformer re", {"report"}),
        ("trustformer compare --se", {"--set", "--seeds"}),
        ("trustformer completion b", {"bash"}),
    ],
)
def test_bash_completes_verbs_and_flags(cli: Cli, words: str, offered: set[str]) -> None:
    code, script, err = cli("completion", "bash")
    assert (code, err) == (0, "")
    command = ["bash", "--norc", "-c", COMPLETE.format(words=words)]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def test_the_script_for_zsh_is_one(cli: Cli) -> None:
    code, script, _ = cli("completion", "zsh")
    assert code == 0
    assert script.startswith("#compdef trustformer")
    assert "_files -/" in script  # RUN is a folder
    if shutil.which("zsh"):
        subprocess.run(["zsh", "-n"], input=script, text=True, check=True)
