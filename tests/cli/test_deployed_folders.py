# SPDX-License-Identifier: Apache-2.0
"""Verbs on runs, given a folder of a deployment: it is said whose it is, and nothing is written into it."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from cli_kit import Cli

from trustformer.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what flwr itself uses
VERBS = (
    *(["translate"], ["gain"], ["report", "--out", "new"], ["export", "--to", "new"], ["attack"], ["inspect"]),
    *(["run", "--resume", "--out"], ["run", "--out"]),
)


@pytest.fixture(scope="module")
def fed(mini_model: None, sets: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A federation that nobody has served or joined."""
    out = tmp_path_factory.mktemp("deployed") / "fed"
    assert main(["init-federation", str(out), *sets]) == 0
    return out


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "said", "hint"),
    [
        ("host", "is the host's folder of a deployment: it holds no model or score", "trustformer attest audit"),
        ("client-0", "is a client's folder of a deployment, not a run", "trustformer translate and transformers load"),
    ],
)
def test_a_folder_of_a_deployment_is_named_and_stays_as_it_is(
    cli: Cli, fed: Path, name: str, said: str, hint: str, verb: list[str]
) -> None:
    before = {path: path.is_file() and path.read_bytes() for path in fed.rglob("*")}
    code, _, err = cli(*verb, fed / name, stdin=b"x\n")
    assert code == 2
    assert f"{fed / name} {said}" in err
    assert hint in err
    assert "--resume" not in err
    assert {path: path.is_file() and path.read_bytes() for path in fed.rglob("*")} == before
