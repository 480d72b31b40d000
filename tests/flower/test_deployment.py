# SPDX-License-Identifier: Apache-2.0
"""A real deployment: enclave, SuperLink and three SuperNodes over TLS, a client killed, a stranger at the port."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from flower_kit import SENTENCE, Processes, flags, free_address, processes, run_hostile, wait_for
from safetensors.numpy import load_file

from trustformer.cli import main

pytestmark = [
    pytest.mark.flower,
    pytest.mark.slow,
    pytest.mark.timeout(900),  # of processes that share a busy machine
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what flwr itself uses
]
CLIENTS = ("0", "1", "2")
_HEADER = b"tfl/1 up"
"""Begins the label of a sealed update's header."""


@dataclass
class Deployment:
    """What one deployment left behind.

    Attributes:
        fed: its folder.
        log: what `serve` and every `join` printed.
        run: directory of `trustformer run` with the same config and the recorded cohorts.
        marks: bytes of client 1's text, weights, optimizer and unsealed update.
        memory: findings in the SuperLink's memory while an update lay in it: marks, and headers of sealed updates.
        hostile: the file in which parts of a stranger's bundle say that they run.
        again: exit status of `serve`, started again after the end.
    """

    fed: Path
    log: Path
    run: Path
    marks: list[bytes]
    memory: tuple[int, int]
    hostile: Path
    again: int


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """Two exchanges; client 1 is killed with its first update under way and started again."""
    folder = tmp_path_factory.mktemp("deployment")
    settings, fed, address = flags(folder), folder / "fed", free_address()
    with processes(folder / "log") as running:
        running.verb_done("init-federation", str(fed), "--address", address, *settings)
        serve = running.verb("serve", str(fed / "host"))
        wait_for(lambda: "listening on" in running.log.read_text("utf-8"), running.log)
        ca = fed / "client-1" / "ca.crt"
        hostile, _ = run_hostile(running, folder / "hostile", address, ca, fed / "client-1" / "data")
        nodes = {client: running.verb("join", str(fed / f"client-{client}")) for client in CLIENTS}
        wait_for((fed / "client-1" / "state" / "attestation.json").exists, running.log)  # welcomed; now it trains
        serve.send_signal(signal.SIGSTOP)  # what arrives now stays in the SuperLink
        wait_for((fed / "client-1" / "state" / "state.safetensors").exists, running.log)  # trained; perhaps sent
        state = load_file(fed / "client-1" / "state" / "state.safetensors")
        found = _search(_superlink(serve.pid), _marks(state), running)
        nodes["1"].send_signal(signal.SIGKILL)
        assert nodes["1"].wait(30) == -signal.SIGKILL
        serve.send_signal(signal.SIGCONT)
        nodes["1"] = running.verb("join", str(fed / "client-1"))
        assert serve.wait(600) == 0, running.log.read_text("utf-8")
        assert [node.wait(200) for node in nodes.values()] == [0, 0, 0], running.log.read_text("utf-8")
        again = running.verb("serve", str(fed / "host")).wait(300)
        cohorts = f"clients.cohorts={fed / 'host' / 'rounds.jsonl'}"
        running.verb_done("run", "--out", str(folder / "run"), *settings, "--set", cohorts)
    return Deployment(fed, folder / "log", folder / "run", _marks(state), found, hostile, again)


def _marks(state: dict[str, np.ndarray]) -> list[bytes]:
    """Sixteen bytes from some places of every tensor and every kilobyte of the update, where they are not too plain."""
    secret = [(name.split("/")[0], values.tobytes()) for name, values in state.items()]
    common = b"".join(data for kind, data in secret if kind == "common")
    marks = [
        data[at : at + 16]
        for kind, data in secret
        if kind != "common"
        for at in range(0, len(data) - 16, 1000 if kind == "pending" else max(1000, len(data) // 8))
    ]
    text = [SENTENCE.encode()[:16], SENTENCE.encode()[-16:]]
    return [*text, *(mark for mark in marks if len(set(mark)) > 10 and mark not in common)]


def _superlink(serve: int) -> int:
    """Pid of the SuperLink that `serve` has started."""
    for children in Path(f"/proc/{serve}/task").glob("*/children"):
        for pid in children.read_text("ascii").split():
            if b"flower_superlink" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    raise AssertionError("no SuperLink")


def _search(pid: int, marks: list[bytes], running: Processes) -> tuple[int, int]:
    """Search the SuperLink's memory, where its store is, once the header of a sealed update lies in it."""
    memory = b""

    def seen() -> bool:
        nonlocal memory
        memory = _memory(pid)
        return _HEADER in memory

    wait_for(seen, running.log)
    return len(_found(memory, marks)), memory.count(_HEADER)


def _found(data: bytes, marks: list[bytes]) -> set[bytes]:
    """Which of the marks, of 16 bytes each, are in it: first by two bytes, then by eight, then whole."""
    data += bytes(32)  # a mark at the very end is followed by sixteen bytes too
    starts = np.array([int.from_bytes(mark[:8], "little") for mark in marks], "<u8")
    first = np.zeros(2**16, bool)
    first[starts & np.uint64(0xFFFF)] = True
    every, found = np.frombuffer(data, np.uint8), set[bytes]()
    for shift in (0, 1):
        pairs = np.frombuffer(data, "<u2", max(len(data) - shift - 16, 0) // 2, shift)
        at = 2 * np.flatnonzero(first[pairs]) + shift
        eight = every[at[:, None] + np.arange(8)].view("<u8").ravel()
        found |= {data[i : i + 16] for i in at[np.isin(eight, starts)]}
    return found & set(marks)


def _memory(pid: int) -> bytes:
    """All that a process holds and may write to."""
    parts = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text("ascii").splitlines():
            span, rights = line.split()[:2]
            if rights.startswith("rw"):
                start, end = (int(part, 16) for part in span.split("-"))
                try:
                    memory.seek(start)
                    parts.append(memory.read(end - start))
                except (OSError, OverflowError, ValueError):
                    continue
    return b"".join(parts)


def test_the_final_weights_are_those_of_run_with_the_recorded_cohorts(deployment: Deployment) -> None:
    fed, cohorts = deployment.fed, deployment.fed / "host" / "rounds.jsonl"
    expected = json.loads((deployment.run / "result.json").read_text("utf-8"))
    results = {c: json.loads((fed / f"client-{c}/state/result.json").read_text("utf-8")) for c in CLIENTS}
    assert {result["common_digest"] for result in results.values()} == {expected["common_digest"]}
    last = json.loads(cohorts.read_text("utf-8").splitlines()[-1])
    for client in last["present"]:  # an absent one has caught up here, and has not in `run`
        assert results[client]["weights_digest"] == expected["weights_digest"][client]


def test_the_superlink_holds_sealed_updates_and_nothing_of_what_is_in_them(deployment: Deployment) -> None:
    assert len(deployment.marks) > 200
    marks, sealed_updates = deployment.memory
    assert sealed_updates > 0
    assert marks == 0


def test_no_file_of_the_host_holds_text_weights_or_updates(deployment: Deployment) -> None:
    files = [path for path in (deployment.fed / "host").rglob("*") if path.is_file()]
    assert {"superlink.log", "rounds.jsonl", "state.sealed"} <= {path.name for path in files}
    for path in [*files, deployment.log]:
        assert not _found(path.read_bytes(), deployment.marks), path


def test_the_search_finds_a_mark_where_there_is_one(deployment: Deployment) -> None:
    planted = os.urandom(5000) + deployment.marks[7] + os.urandom(5000)
    assert _found(planted, deployment.marks) == {deployment.marks[7]}
    assert _found(SENTENCE.encode() + bytes(99), deployment.marks) == set(deployment.marks[:2])


def test_a_run_that_a_stranger_starts_at_the_port_runs_nowhere(deployment: Deployment) -> None:
    assert not deployment.hostile.exists()  # neither its server part on the host nor its client part


def test_the_host_says_who_is_online_the_round_bytes_and_time(deployment: Deployment) -> None:
    said = deployment.log.read_text("utf-8")
    assert re.search(r"round 1 of 2: online \d/3 \(.*\), sent \d of at least 2, \d+ s, deadline in \d+ min", said)
    assert re.search(
        r"round 1 of 2: combined .*; of all clients [\d,]+ bytes up, [\d,]+ down, [\d.]+ s, about \d+ s left", said
    )
    assert "client 1 is online" in said


def test_each_exchange_is_recorded_with_its_cohort_and_bytes(deployment: Deployment) -> None:
    records = [json.loads(line) for line in (deployment.fed / "host" / "rounds.jsonl").read_text("utf-8").splitlines()]
    assert [record["round"] for record in records] == [1, 2]
    assert all(len(record["combined"]) >= 2 and sum(record["bytes_up"].values()) > 0 for record in records)


def test_a_third_party_verifies_the_deployment_from_what_its_parties_keep(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("host/terms.bin", "host/released", *(f"client-{client}" for client in CLIENTS)):
        source, target = deployment.fed / path, tmp_path / path
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    for secret in (path for pattern in ("*.key", "*.safetensors") for path in tmp_path.rglob(pattern)):
        secret.unlink()
    folders = [str(tmp_path / name) for name in ("host", *(f"client-{client}" for client in CLIENTS))]
    assert main(["attest", "audit", *folders]) == 0
    printed = capsys.readouterr().out
    assert "2 of 2 rounds form one chain that attested keys vouch for" in printed
    assert "what closed tries accepted was combined" in printed


def test_serve_started_again_after_the_end_waits_for_nobody(deployment: Deployment) -> None:
    assert deployment.again == 0
