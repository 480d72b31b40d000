# SPDX-License-Identifier: Apache-2.0
"""What the enclave side loads, how large it is, and what occurs nowhere in the package."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import trustformer

SOURCE = Path(trustformer.__file__).parent
ENCLAVE_SIDE = ("enclave", "secure", "vq", "aggregation.py", "message.py")
HEAVY = ("torch", "transformers", "flwr", "safetensors", "sentencepiece", "dcap_qvl", "sacrebleu", "rich")

_ALL = """
import pkgutil, sys
import trustformer.enclave
for module in pkgutil.iter_modules(trustformer.enclave.__path__, "trustformer.enclave."):
    __import__(module.name)
print(*sys.modules)
"""


def loaded_by(code: str) -> list[str]:
    """Names of the modules in a process that runs `code` and nothing else."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.parametrize("code", ["import trustformer.enclave.session, sys; print(*sys.modules)", _ALL])
def test_the_enclave_loads_no_machine_learning_framework_and_no_parser_of_quotes(code: str) -> None:
    loaded = loaded_by(code)
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]
    assert "trustformer.enclave.session" in loaded
    assert "numpy" in loaded


def test_a_session_loads_its_own_layers_only() -> None:
    loaded = loaded_by("import trustformer.enclave.session, sys; print(*sys.modules)")
    ours = {name.removeprefix("trustformer.") for name in loaded if name.startswith("trustformer.")}
    layers = {name.split(".")[0] for name in ours}
    assert layers <= {"enclave", "secure", "vq", "aggregation", "message", "errors", "attestation"}
    assert {name for name in ours if name.startswith("attestation.")} <= {"attestation.evidence"}


def test_no_module_of_the_enclave_side_can_load_pickles() -> None:
    for file in enclave_files():
        names = {
            line.split()[1].split(".")[0]
            for line in file.read_text("utf-8").splitlines()
            if re.match(r"(import|from) ", line)
        }
        assert not names & {"pickle", "marshal", "shelve", "joblib", "dill", "yaml", "subprocess"}, file


@pytest.mark.parametrize(
    "pattern",
    [
        *(r"pickle\.loads?\b", r"torch\.load\b", r"allow_pickle\s*=\s*True", r"\beval\(", r"\bexec\(", r"modes\.CBC"),
        *(r"weights_only\s*=\s*False", r"yaml\.load\b", r"marshal\.loads?\b", r"shell\s*=\s*True"),
    ],
)
def test_58_unsafe_calls_occur_nowhere(pattern: str) -> None:
    """A module's own `.eval()` of a model is a method, not the builtin."""
    regex = re.compile(r"(?<![.\w])" + pattern if "eval" in pattern or "exec" in pattern else pattern)
    found = [
        f"{file.relative_to(SOURCE)}:{number}"
        for file in SOURCE.rglob("*.py")
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if regex.search(line)
    ]
    assert not found


def test_primitives_are_touched_in_the_secure_layer_only() -> None:
    for file in enclave_files():
        if file.parent.name != "secure":
            assert "cryptography.hazmat" not in file.read_text("utf-8"), file


def test_58_no_key_is_written_into_the_source() -> None:
    regex = re.compile(r"PRIVATE KEY|[\"'](?:[0-9a-fA-F]{64}|[0-9a-fA-F]{32})[\"']")
    for file in enclave_files():
        assert not regex.search(file.read_text("utf-8")), file


def test_the_enclave_side_stays_small_enough_to_read() -> None:
    """Lines of code: no blank lines, comments or docstrings."""
    assert sum(code_lines(file.read_text("utf-8")) for file in enclave_files()) < 1500


def code_lines(source: str) -> int:
    strings = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Expr)]
    documentation = {
        line
        for node in strings
        if isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }
    layout = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
    tokens = [t for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type not in layout]
    return len({line for t in tokens for line in range(t.start[0], t.end[0] + 1)} - documentation)


def enclave_files() -> list[Path]:
    paths = [SOURCE / name for name in ENCLAVE_SIDE]
    return [file for path in paths for file in ([path] if path.suffix else sorted(path.glob("*.py")))]
