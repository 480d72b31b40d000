# SPDX-License-Identifier: Apache-2.0
"""docs/add-a-method.md, followed literally in a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text("utf-8")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of src/ with the page's method."""
    copy = tmp_path_factory.mktemp("method") / "src"
    shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
    method, line, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    folder = copy / "trustformer" / "methods"
    (folder / "fedavg16.py").write_text(method, "utf-8")
    replace(folder / "__init__.py", "    fedavg,\n" if "    fedavg,\n" in read(folder / "__init__.py") else " fedavg,")
    replace(folder / "__init__.py", '    "fedavg": fedavg.build,\n', line)
    replace(folder / "config.py", ' "fedavg",', ' "fedavg16",')
    return copy


def read(path: Path) -> str:
    return path.read_text("utf-8")


def replace(path: Path, anchor: str, addition: str = "") -> None:
    """Add text after the anchor; without one, the anchor again with the new name."""
    text = read(path)
    assert text.count(anchor) == 1, f"{path.name}: {anchor!r}"
    path.write_text(text.replace(anchor, anchor + (addition or anchor.replace("fedavg", "fedavg16"))), "utf-8")


def python(source: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_method_runs_and_sends_half_the_bytes(source: Path, tmp_path: Path) -> None:
    commands = [line.strip() for line in PAGE.splitlines() if line.startswith("    trustformer run ")]
    assert len(commands) == 1
    small = ["rounds=1", "data.limit=30", "model.preset=micro", "evaluation.test_pairs=2", "evaluation.valid_pairs=0"]
    small += ["enclave.process=false"]
    arguments = commands[0].replace("runs/fedavg16", str(tmp_path / "run")).split()[1:]
    arguments += [part for setting in small for part in ("--set", setting)]
    result = json.loads(python(source, "-m", "trustformer", *arguments, "--json"))
    assert result["method"] == "fedavg16"
    assert result["compression_up"] == pytest.approx(2, abs=0.2)
    assert "float16" in read(tmp_path / "run" / "layers.json")
    python(source, "-m", "trustformer", "export", str(tmp_path / "run"), "--to", str(tmp_path / "model"))
    assert "what the method `fedavg16` makes of the change" in read(tmp_path / "model" / "README.md")


def test_the_test_of_the_page_passes(source: Path, tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[2]
    (tmp_path / "test_of_the_page.py").write_text(code, "utf-8")
    python(source, str(tmp_path / "test_of_the_page.py"))
