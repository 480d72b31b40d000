# SPDX-License-Identifier: Apache-2.0
"""Whole runs with the enclave as a process: the same result, and the same again when it is killed at every step."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

import trustformer.experiment.parties as parties
from trustformer.enclave import service
from trustformer.errors import TrustformerError
from trustformer.federation.remote import RemoteEnclave

Run = Callable[..., dict[str, Any]]

Step = tuple[bytes, int, str]


def steps(syncs: int) -> list[Step]:
    """Of each boot: the nth request of a kind, killed before it arrives, or when its answer is lost."""
    most = ((service.HELLO, 3), (service.UPLOAD, 3), (service.CLOSE, 1), (service.SYNC, syncs))
    return [(kind, nth, when) for kind, count in most for nth in range(1, count + 1) for when in ("before", "after")]


class Mortal(RemoteEnclave):
    """Kills its own process at each step of a plan in turn."""

    plan: ClassVar[list[Step]]
    counts: ClassVar[Counter[bytes]]

    def _ask(self, operation: bytes, body: bytes) -> bytes:
        self.counts[operation] += 1
        if not self.plan or self.plan[0][:2] != (operation, self.counts[operation]):
            return super()._ask(operation, body)
        due = self.plan.pop(0)
        self.counts.clear()
        if due[2] == "after":
            super()._ask(operation, body)
        os.kill(self.pid, signal.SIGKILL)
        return super()._ask(operation, body)


def outcome(out: Path) -> dict[str, Any]:
    result = json.loads((out / "result.json").read_text("utf-8"))
    records = [json.loads(line) for line in (out / "rounds.jsonl").read_text("utf-8").splitlines()]
    keys = ("weights_digest", "common_digest", "nll", "bleu_per_client")
    return {
        **{key: result[key] for key in keys},
        "rounds": [{key: record[key] for key in ("round", "present", "loss", "valid_nll")} for record in records],
    }


@pytest.fixture(scope="module")
def undisturbed(tiny_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("process") / "inside"
    tiny_run(out, "rounds=4", "enclave.process=false")
    return out


@pytest.mark.parametrize(("release", "syncs"), [("immediate", 3), ("acknowledged", 12)])
def test_an_enclave_killed_at_every_step_changes_nothing(
    tiny_run: Run, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, syncs: int
) -> None:
    class Planned(Mortal):
        pass

    Planned.plan, Planned.counts = steps(syncs), Counter()
    monkeypatch.setattr(parties, "RemoteEnclave", Planned)
    options = ("rounds=4", "enclave.process=true", "enclave.restarts=100", f"enclave.release={release}")
    tiny_run(tmp_path / "killed", *options)
    assert Planned.plan == []
    assert outcome(tmp_path / "killed") == outcome(undisturbed)


def test_the_process_is_the_default_and_gives_the_same_run(tiny_run: Run, undisturbed: Path, tmp_path: Path) -> None:
    tiny_run(tmp_path / "own", "rounds=4", "enclave.process=true")
    assert outcome(tmp_path / "own") == outcome(undisturbed)
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


def test_a_run_that_cannot_start_leaves_no_process(
    tiny_run: Run, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[RemoteEnclave] = []

    class Remembered(RemoteEnclave):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            made.append(self)

    monkeypatch.setattr(parties, "RemoteEnclave", Remembered)
    out = tmp_path / "damaged"
    tiny_run(out, "rounds=1", "enclave.process=true")
    (out / "result.json").unlink()
    (out / "clients" / "1" / "state.safetensors").write_bytes(b"damaged")
    with pytest.raises(TrustformerError, match="damaged"):
        tiny_run(out, "rounds=1", "enclave.process=true", resume=True)
    assert len(made) == 2
    assert all(enclave._process is None for enclave in made)
