# SPDX-License-Identifier: Apache-2.0
"""What the enclave is made of: its manifest, its wheels, its files, its size and what its sources may not say."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import sysconfig
import tokenize
import tomllib
from pathlib import Path
from typing import Any

import pytest
from process_kit import Party, connect, frame, read_reply

import trustformer
from trustformer.enclave import service
from trustformer.enclave.measurement import measured_files
from trustformer.message import enc

ROOT = Path(__file__).parents[2]
SOURCE = Path(trustformer.__file__).parent
TEMPLATE = ROOT / "enclave" / "trustformer-enclave.manifest.template"
SIDE = ("enclave", "secure", "vq", "aggregation.py", "message.py")


@pytest.fixture(scope="module")
def manifest() -> dict[str, Any]:
    text = re.sub(r"\{\{\s*([\w.()]+)\s*\}\}", lambda match: match[1].replace(".", "-"), TEMPLATE.read_text("utf-8"))
    return tomllib.loads(text)


def leaves(tree: Any, path: str = "") -> list[tuple[str, Any]]:
    if isinstance(tree, dict):
        return [leaf for key, value in tree.items() for leaf in leaves(value, f"{path}.{key}" if path else key)]
    if isinstance(tree, list):
        return [leaf for value in tree for leaf in leaves(value, path)]
    return [(path, tree)]


def test_55_nothing_insecure(manifest: dict[str, Any]) -> None:
    for path, value in leaves(manifest):
        assert "insecure" not in path
        assert "allowed_files" not in path
        assert not str(value).endswith(".pyc")
        assert "torch" not in str(value)
    assert manifest["sgx"]["debug"] is False
    assert manifest["sgx"]["remote_attestation"] == "dcap"
    assert manifest["sgx"]["file_check_policy"] == "strict"
    assert manifest["sys"]["disallow_subprocesses"] is True


def test_55_the_command_line_is_fixed_and_accepted_by_the_program(manifest: dict[str, Any]) -> None:
    argv = manifest["loader"]["argv"]
    assert argv[1:5] == ["-I", "-B", "-m", "trustformer.enclave"]
    assert argv[argv.index("--provider") + 1] == "gramine-dcap"
    run = [sys.executable, *argv[1:]]
    process = subprocess.run(run, input=b"", capture_output=True, timeout=60)
    assert b"unrecognized" not in process.stderr
    assert b"error: run config" in process.stderr  # reads its terms from standard input, as the manifest says


def test_55_the_host_passes_no_environment(manifest: dict[str, Any]) -> None:
    assert all(isinstance(value, str) for value in manifest["loader"]["env"].values())
    assert not [name for name in manifest["loader"]["env"] if name.startswith("PYTHON") and name != "PYTHONHASHSEED"]


def test_55_every_mount_but_state_and_tmp_is_measured(manifest: dict[str, Any]) -> None:
    trusted = {uri.rstrip("/") for uri in manifest["sgx"]["trusted_files"]}
    kinds = {}
    for mount in manifest["fs"]["mounts"]:
        kind = mount.get("type", "chroot")
        kinds[mount["path"]] = kind
        if kind == "chroot":
            assert mount["uri"] in trusted, mount
    assert kinds["/state"] == "encrypted"
    assert kinds["/tmp"] == "tmpfs"
    size = re.search(r"ENCLAVE_SIZE:-(\d+)G", (ROOT / "enclave" / "measure.sh").read_text())
    assert size is not None
    assert int(size[1]).bit_count() == 1


def test_no_file_that_is_measured_is_left_out_of_the_list(tmp_path: Path) -> None:
    """A copied link leads to a file of the builder's machine, which Gramine measures and the list does not name."""
    script = (ROOT / "enclave" / "measure.sh").read_text()
    copied, check = re.search(r"cp -\S+ .*stdlib\"$", script, re.M), re.search(r"if \[ -n .*?\n    fi\n", script, re.S)
    assert copied is not None
    assert check is not None
    assert copied[0].startswith("cp -RL ")
    assert "rm -rf sitecustomize.py " in script
    (tmp_path / "x").write_text("x")
    looked = ["sh", "-c", f"ROOT={tmp_path}\n{check[0]}"]
    assert subprocess.run(looked, capture_output=True).returncode == 0
    (tmp_path / "link").symlink_to("x")
    assert subprocess.run(looked, capture_output=True).returncode == 1


def test_the_lock_names_hashes_and_the_versions_that_are_tested() -> None:
    lines = [line for line in (ROOT / "enclave" / "requirements.txt").read_text().splitlines() if line[:1] != "#"]
    locked = dict(line.split(" --hash=sha256:") for line in lines)
    assert {name.partition("==")[0] for name in locked} == {"numpy", "cryptography", "cffi", "pycparser"}
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in locked.values())
    assert set(locked) <= set((ROOT / "constraints.txt").read_text().splitlines())


def test_the_measured_files_are_enough_to_run(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name in measured_files():
        (site / "trustformer" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOURCE / name, site / "trustformer" / name)
    boot = (
        f"import sys; sys.path[:0] = [{str(site)!r}]; sys.path.append({sysconfig.get_path('purelib')!r}); "
        "import runpy; runpy.run_module('trustformer.enclave', run_name='__main__')"
    )
    party = Party(tmp_path / "run")
    command = party.command(tmp_path / "s")
    at = command.index("-m")
    process = subprocess.Popen([*command[:at], "-S", "-c", boot, *command[at + 2 :]])
    try:
        with connect(tmp_path / "s", process) as connection:
            connection.sendall(frame(service.STATUS, b""))
            assert read_reply(connection) == b"\0" + enc(0, party.config.digest)
    finally:
        process.terminate()
        assert process.wait(20) == 0


def enclave_sources() -> list[Path]:
    return [
        f for name in SIDE for f in ([SOURCE / name] if name.endswith(".py") else sorted((SOURCE / name).glob("*.py")))
    ]


def test_the_enclave_side_stays_small() -> None:
    """Lines of code: without blank lines, comments and docstrings."""
    total = 0
    for file in enclave_sources():
        text = file.read_text("utf-8")
        skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
        tokens = [t for t in tokenize.generate_tokens(io.StringIO(text).readline) if t.type not in skip]
        lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
        for node in ast.walk(ast.parse(text)):
            if (
                isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        total += len(lines)
    assert total < 1500


HARDWARE = (
    "a quote of this program's own enclave verifies under Intel's root",
    "a state sealed with _sgx_mrenclave does not open on another CPU, nor under another measurement",
    "start-up, memory and speed under gramine-sgx",
    "SIGTERM is injected by the host and ends the enclave",
    "the same MRENCLAVE on two machines",
)


@pytest.mark.sgx
@pytest.mark.parametrize("what", HARDWARE)
def test_on_hardware(what: str) -> None:
    pytest.skip(f"needs SGX hardware: {what}; docs/deploy-gramine.md says how to check it")
