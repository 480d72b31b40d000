# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the attestation tests: a made-up PKI, the samples, and the verb behind a parser."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pki import Pki

from trustformer.cli import make_parser
from trustformer.errors import TrustformerError


class Outcome(NamedTuple):
    code: int
    json: Any
    out: str
    error: TrustformerError | None


@pytest.fixture(scope="session")
def pki() -> Pki:
    return Pki()


@pytest.fixture(scope="session")
def other_pki() -> Pki:
    """Another root with the same names everywhere."""
    return Pki()


@pytest.fixture(scope="session")
def samples() -> Path:
    """Folder of real and synthetic quotes."""
    data = os.environ.get("TRUSTFORMER_DATA")
    folder = Path(data).parent / "sgx" if data else None
    if folder is None or not (folder / "synthetic" / "cases.json").exists():
        pytest.skip("the quote samples are not beside TRUSTFORMER_DATA")
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `attest ARGUMENTS...` as the command line does."""

    def run(*arguments: object) -> Outcome:
        options = make_parser().parse_args(["attest", *map(str, arguments)])
        error = None
        try:
            code = options.run(options)
        except TrustformerError as raised:
            code, error = raised.exit_code, raised
        out = capsys.readouterr().out
        return Outcome(code, json.loads(out) if out.startswith("{") else None, out, error)

    return run
