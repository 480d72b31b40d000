# SPDX-License-Identifier: Apache-2.0
"""The command line in this process, and a finished run."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from cli_kit import Cli, Outcome

from trustformer.cli import main


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `trustformer ARGUMENTS...` with `stdin` as its input."""

    def run(*arguments: object, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), "utf-8"))
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def sets(settings: list[str]) -> list[str]:
    """`settings` as arguments."""
    return [argument for setting in settings for argument in ("--set", setting)]


@pytest.fixture(scope="module")
def finished(mini_model: None, sets: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a finished run."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["run", *sets, "--out", str(out)]) == 0
    return out
