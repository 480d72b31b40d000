# SPDX-License-Identifier: Apache-2.0
"""A client whose update the enclave refuses is named: in the round, in the result, and where too few are left."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustformer.errors import ProtocolError

Run = Callable[..., dict[str, Any]]
UNEQUAL = ("clients.split=dirichlet", "clients.alpha=0.5", "train.batch_tokens=64")
ONE_ROUND = ("rounds=1", "method.closing_exchanges=0", "train.warmup_steps=1", *UNEQUAL)


@pytest.fixture(scope="module")
def norms(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """Norm of each client's first update, from the error of a run that allows none."""
    with pytest.raises(ProtocolError, match=r"enclave\.max_norm = 0\.01 were refused") as raised:
        tiny_run(tmp_path_factory.mktemp("none") / "run", *ONE_ROUND, "enclave.max_norm=0.01")
    assert "0 updates in round 1, 2 are needed" in raised.value.message
    assert "a larger enclave.max_norm" in raised.value.hint
    return {client: float(norm) for client, norm in re.findall(r"client (\d) \(([\d.]+)\)", raised.value.message)}


def test_where_too_few_updates_are_left_the_norms_and_the_limit_are_said(norms: dict[str, float]) -> None:
    assert sorted(norms) == ["0", "1", "2"]
    assert all(norm > 0.01 for norm in norms.values())


def test_a_refused_update_is_said_and_counted(
    tiny_run: Run, norms: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *_, second, first = sorted(norms.values())
    limit = round((first + second) / 2, 3)
    assert second < limit < first
    farthest = max(norms, key=lambda client: norms[client])
    result = tiny_run(tmp_path / "run", *ONE_ROUND, f"enclave.max_norm={limit}")
    said = capsys.readouterr().err
    assert re.search(r"round 1/1 .* 2 of 3 clients, kB", said)
    told = f"client {farthest}: its norm is {norms[farthest]:.6g}, over enclave.max_norm = {limit:g}"
    assert f"warning: round 1: the enclave refused the update of {told}" in said
    assert result["refused"] == {farthest: 1}
    assert json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))["refused"] == {farthest: 1}


def test_a_run_without_refused_updates_says_nothing_of_them(
    tiny_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "refused" not in tiny_run(tmp_path / "run", *ONE_ROUND)
    said = capsys.readouterr().err
    assert "  3 clients, kB" in said
    assert "the enclave refused" not in said
