# SPDX-License-Identifier: Apache-2.0
"""An enclave that the host has not started: on a port, as under Gramine, with quotes that come without collateral."""

from __future__ import annotations

import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from process_kit import Party, drift, honest_round

from pseudo_files import answering
from trustformer.attestation import dcap
from trustformer.attestation.errors import AttestationError
from trustformer.attestation.policy import Policy
from trustformer.attestation.simulated import COLLATERAL, SimulatedAttester
from trustformer.enclave.measurement import simulated_measurement
from trustformer.errors import ConfigError, EnclaveLostError, MessageError, TrustformerError
from trustformer.federation import attached
from trustformer.federation.attached import AttachedEnclave
from trustformer.federation.host import with_collateral
from trustformer.message import enc

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(port: int) -> Iterator[Start]:
    """Starts an enclave on the port; it is ended after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(party: Party, **options: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(party.command(f"tcp:{port}", **options), stderr=subprocess.DEVNULL))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def attach(port: int) -> Iterator[Callable[..., AttachedEnclave]]:
    with ExitStack() as stack:

        def to(party: Party, **options: Any) -> AttachedEnclave:
            enclave = AttachedEnclave(party.config, f"127.0.0.1:{port}", **options)
            stack.callback(enclave.stop)
            return enclave

        yield to


def test_a_round_and_then_another_after_the_enclave_was_started_again(
    tmp_path: Path, start: Start, attach: Callable[..., AttachedEnclave]
) -> None:
    party = Party(tmp_path / "run")
    first = start(party)
    enclave = attach(party)  # waits until it answers
    host = party.host(enclave)
    players = party.players(host)
    assert set(honest_round(host, players)) == set(drift(0))
    first.kill()
    first.wait()
    start(party)
    with pytest.raises(EnclaveLostError, match="gone, and answers again"):
        players["c0"].hello()
    honest_round(host, players, seed=5)
    assert host.round == 2


def test_where_nothing_answers_the_address_is_named(
    tmp_path: Path, port: int, attach: Callable[..., AttachedEnclave]
) -> None:
    said: list[str] = []
    with pytest.raises(TrustformerError, match=f"no enclave answers at 127.0.0.1:{port}: ") as refused:
        attach(Party(tmp_path / "run"), patience=0.3, note=said.append)
    assert "terms.bin" in refused.value.hint
    assert said == [f"waiting for the enclave at 127.0.0.1:{port}, 0.3 s at most"]


@pytest.mark.parametrize("address", ["a..b:7911", "127.0.0.1:77777"])
def test_an_address_that_is_none(tmp_path: Path, address: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        AttachedEnclave(Party(tmp_path / "run").config, address)


def test_an_enclave_of_another_run_is_not_asked_for_anything(
    tmp_path: Path, start: Start, attach: Callable[..., AttachedEnclave]
) -> None:
    start(Party(tmp_path / "old"))
    with pytest.raises(ConfigError, match="started with other terms") as refused:
        attach(Party(tmp_path / "run"))
    assert "terms.bin" in refused.value.hint


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0\0\0\0",
        struct.pack(">I", 2**32 - 1),
        struct.pack(">IB", 1, 7),
        struct.pack(">IB", 1, 1),
        struct.pack(">IB", 9, 0) + bytes(8),
    ],
)
def test_what_is_no_enclave_is_named_and_not_believed_its_lengths(tmp_path: Path, port: int, answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", port)) as server:

        def serve() -> None:
            with server.accept()[0] as connection, suppress(ConnectionError):
                connection.sendall(answer)
                while connection.recv(4096):
                    """Until it is closed."""

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with pytest.raises(TrustformerError, match=f"127.0.0.1:{port}: what answers is no enclave"):
            AttachedEnclave(Party(tmp_path / "run").config, f"127.0.0.1:{port}", patience=0.0)
        thread.join(20)
        assert not thread.is_alive()


def test_what_listens_and_is_silent_is_given_up(tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached, "_GREETING_SECONDS", 0.1)
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(TrustformerError, match=f"no enclave answers at 127.0.0.1:{port}: timed out"),
    ):
        AttachedEnclave(Party(tmp_path / "run").config, f"127.0.0.1:{port}", patience=0.1)


def test_too_many_deaths_end_it_with_the_same_words_for_whoever_asks(
    tmp_path: Path, start: Start, attach: Callable[..., AttachedEnclave]
) -> None:
    party = Party(tmp_path / "run")
    process = start(party)
    enclave = attach(party, restarts=0)
    process.kill()
    process.wait()
    for _ in range(2):
        with pytest.raises(TrustformerError, match="died too often"):
            enclave.round  # noqa: B018


def test_a_quote_of_gramine_is_verified_with_collateral_that_the_host_adds(
    tmp_path: Path, start: Start, attach: Callable[..., AttachedEnclave], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it but Intel's signature: the quotes are of a root of this test, in the place of Intel's."""
    party = Party(tmp_path / "run", provider="gramine-dcap")
    root = SimulatedAttester.load(party.folder / "root", measurement=simulated_measurement())
    monkeypatch.setattr(dcap, "INTEL_ROOT_SHA256", root.root_sha256)
    party.policy = Policy.make({"mrenclave": [root.mrenclave.hex()]})
    collateral = (party.folder / "root" / COLLATERAL).read_bytes()
    with answering(party.folder / "attestation", lambda data: root.evidence(data).quote):
        process = start(party, evidence="attestation")
        enclave = attach(party)
        bare = party.players(party.host(enclave))["c0"]
        with pytest.raises(AttestationError):
            bare.hello()
        host = party.host(enclave, collateral=lambda quote: collateral)
        players = party.players(host)
        honest_round(host, players)
        assert host.round == 1
        process.kill()  # before the FIFO goes


def test_what_has_no_quote_or_has_collateral_is_passed_on_as_it_is() -> None:
    def fetch(_: bytes) -> bytes:
        raise AssertionError

    for evidence in (b"", enc("simulated", b"quote", b"collateral")):
        reply = enc(b"welcome", evidence)
        assert with_collateral(reply, fetch) == reply
    added = with_collateral(enc(b"welcome", enc("gramine-dcap", b"quote", b"")), lambda quote: quote + b"!")
    assert added == enc(b"welcome", enc("gramine-dcap", b"quote", b"quote!"))
    with pytest.raises(MessageError):
        with_collateral(b"nonsense", fetch)
