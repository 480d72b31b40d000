# SPDX-License-Identifier: Apache-2.0
"""Whole runs with the enclave as a process: the same result, and the same again when it is killed at every step."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import trustformer.experiment.parties as parties
from trustformer.enclave import service
from trustformer.errors import TrustformerError
from trustformer.federation.remote import RemoteEnclave

Run = Callable[..., dict[str, Any]]

STEPS = [
    (operation, nth, when)
    for operation, counts in ((service.HELLO, 3), (service.UPLOAD, 3), (service.CLOSE, 1), (service.SYNC, 3))
    for nth in range(1, counts + 1)
    for when in ("before", "after")
]
"""Of each boot: the nth request of a kind, killed before it arrives, or after it was answered and the answer lost."""


class Mortal(RemoteEnclave):
    """Kills its own process at each of `STEPS` in turn."""

    died: list[tuple[bytes, int, str]]

    def _ask(self, operation: bytes, body: bytes) -> bytes:
        counts = self.__dict__.setdefault("counts", Counter())
        self.__dict__.setdefault("died", [])
        counts[operation] += 1
        due = STEPS[len(self.died)] if len(self.died) < len(STEPS) else None
        if due is None or due[:2] != (operation, counts[operation]):
            return super()._ask(operation, body)
        self.died.append(due)
        counts.clear()
        if due[2] == "after":
            super()._ask(operation, body)
        os.kill(self.pid, signal.SIGKILL)
        return super()._ask(operation, body)


def outcome(out: Path) -> dict[str, Any]:
    result = json.loads((out / "result.json").read_text("utf-8"))
    records = [json.loads(line) for line in (out / "rounds.jsonl").read_text("utf-8").splitlines()]
    keys = ("weights_digest", "common_digest", "nll", "bleu_per_client", "signature")
    return {
        **{key: result[key] for key in keys},
        "rounds": [{key: record[key] for key in ("round", "present", "loss", "valid_nll")} for record in records],
    }


@pytest.fixture(scope="module")
def undisturbed(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("process") / "inside"
    tiny_run(out, "rounds=4", "enclave.process=false")
    return out


def test_an_enclave_killed_at_every_step_changes_nothing(
    tiny_run: Run, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Mortal] = []

    class Recorded(Mortal):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            made.append(self)
            super().__init__(*arguments, **named)

    monkeypatch.setattr(parties, "RemoteEnclave", Recorded)
    tiny_run(tmp_path / "killed", "rounds=4", "enclave.process=true", "enclave.restarts=100")
    assert made[0].died == STEPS
    assert outcome(tmp_path / "killed") | {"signature": ""} == outcome(undisturbed) | {"signature": ""}


def test_the_process_is_the_default_and_gives_the_same_run(tiny_run: Run, undisturbed: Path, tmp_path: Path) -> None:
    tiny_run(tmp_path / "own", "rounds=4", "enclave.process=true")
    assert outcome(tmp_path / "own") | {"signature": ""} == outcome(undisturbed) | {"signature": ""}
    assert "[enclave]" not in (tmp_path / "own" / "config.toml").read_text("utf-8")
    ledgers = [
        [
            (e["client"], e["direction"], e["kind"], e["round"], e["bytes"])
            for e in map(json.loads, (out / "ledger.jsonl").read_text("utf-8").splitlines())
        ]
        for out in (tmp_path / "own", undisturbed)
    ]
    assert [entry[:4] for entry in ledgers[0]] == [entry[:4] for entry in ledgers[1]]


def test_an_enclave_that_dies_too_often_ends_the_run(
    tiny_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Doomed(RemoteEnclave):
        def _ask(self, operation: bytes, body: bytes) -> bytes:
            if operation == service.UPLOAD:
                os.kill(self.pid, signal.SIGKILL)
            return super()._ask(operation, body)

    monkeypatch.setattr(parties, "RemoteEnclave", Doomed)
    with pytest.raises(TrustformerError, match="died too often"):
        tiny_run(tmp_path / "doomed", "enclave.process=true", "enclave.restarts=2")
