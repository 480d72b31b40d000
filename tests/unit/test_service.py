# SPDX-License-Identifier: Apache-2.0
"""What becomes of faults inside the enclave: a request's ends with it, one of adding or combining ends the boot."""

from __future__ import annotations

import socket
import struct
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from enclave_kit import Federation, codebook_codec, new_update, seal, start_weights, train

from trustformer.enclave import service, session
from trustformer.enclave.service import Service
from trustformer.message import Reader, enc


@contextmanager
def served(run: Federation, path: Path, ended: list[BaseException]) -> Iterator[socket.socket]:
    """A connection to the run's enclave; what its loop ended with is put into `ended`."""
    serving = Service(run.enclave, run.config, str(path), linger=False)

    def serve() -> None:
        try:
            serving.run()
        except BaseException as error:
            for frame, _ in traceback.walk_tb(error.__traceback__):
                if isinstance(left := frame.f_locals.get("connection"), socket.socket):
                    left.close()  # as the end of a process would
            ended.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        yield connection
    thread.join(20)


def ask(connection: socket.socket, operation: bytes, body: bytes) -> tuple[bytes, bytes]:
    connection.sendall(struct.pack(">I", len(body) + 1) + operation + body)
    (length,) = struct.unpack(">I", service.receive(connection, 4))
    reply = bytes(service.receive(connection, length))
    return reply[:1], reply[1:]


@pytest.fixture
def run(tmp_path: Path) -> Federation:
    (tmp_path / "state").mkdir()
    run = Federation(tmp_path / "state", codebook_codec(start_weights()), start_weights())
    train(run.members.values(), 0)
    run.greet("ab")
    assert run.contribute("ab") == ["accepted"] * 2
    return run


def out_of_memory(*_: object) -> None:
    raise MemoryError


def test_a_fault_while_combining_ends_the_boot_and_another_one_closes_the_round(
    run: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[BaseException] = []
    monkeypatch.setattr(session, "express", out_of_memory)
    with served(run, tmp_path / "s", ended) as connection, pytest.raises((EOFError, OSError)):
        ask(connection, service.CLOSE, enc(1))
    assert [type(error) for error in ended] == [MemoryError]
    monkeypatch.undo()
    run.boot()
    run.exchange("ab")
    assert run.enclave.round == 1


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    run: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    ended: list[BaseException] = []
    with served(run, tmp_path / "s", ended) as connection:
        with monkeypatch.context() as patch:
            patch.setattr("trustformer.enclave.state.os.replace", full)
            status, answer = ask(connection, service.CLOSE, enc(1))
            assert status == b"\1"
            assert Reader(answer, "error").text() == "TrustformerError"
        status, _ = ask(connection, service.CLOSE, enc(1))
        assert status == b"\0"
    assert not ended
    run.kept[1] = run.enclave.close(1)
    run.adopt("ab")
    assert [client for client, _ in run.manifests[1].uploads] == ["a", "b"]


def test_a_fault_in_a_request_of_a_client_is_answered_and_the_next_one_served(
    run: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise KeyError("what a payload said")

    ended: list[BaseException] = []
    with served(run, tmp_path / "s", ended) as connection:
        with monkeypatch.context() as patch:
            patch.setattr(run.enclave, "hello", fails)
            status, answer = ask(connection, service.HELLO, b"anything")
        assert status == b"\1"
        assert b"KeyError" in answer
        assert b"payload" not in answer
        assert ask(connection, service.CLOSE, enc(1))[0] == b"\0"
    assert not ended


def test_a_request_that_trickles_in_is_cut_off_and_others_are_served(
    run: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PATIENCE", 0.5)
    with served(run, tmp_path / "s", []) as slow, socket.socket(socket.AF_UNIX) as other:
        other.connect(str(tmp_path / "s"))
        assert ask(other, service.STATUS, b"")[0] == b"\0"
        slow.sendall(struct.pack(">I", 2000) + service.HELLO)
        cut = threading.Event()

        def trickle() -> None:
            with suppress(OSError):
                for _ in range(100):
                    time.sleep(0.1)
                    slow.sendall(b"x")
            cut.set()

        threading.Thread(target=trickle, daemon=True).start()
        other.settimeout(5)
        assert ask(other, service.STATUS, b"")[0] == b"\0"
        assert cut.wait(5)


def test_a_fault_while_an_update_is_added_ends_the_boot(
    run: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of it may be in the sums, and would count twice when the client sends it again."""

    ended: list[BaseException] = []
    monkeypatch.setattr(run.enclave._mean, "add", out_of_memory)
    member = run.members["c"]
    run.greet("c")
    update = new_update(member, run.codec.encode(member.weights, member.common, np.random.default_rng(0)))
    with served(run, tmp_path / "s", ended) as connection, pytest.raises((EOFError, OSError)):
        ask(connection, service.UPLOAD, seal(member, update).to_bytes())
    assert [type(error) for error in ended] == [MemoryError]
    run.boot()
    run.exchange("abc")
    assert [client for client, _ in run.manifests[1].uploads] == ["a", "b", "c"]
