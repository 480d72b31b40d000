# SPDX-License-Identifier: Apache-2.0
"""What the host sees: its files, the traffic and the logs hold no centroid, no key and no part of a result."""

from __future__ import annotations

import base64
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process_kit import COMMON, Party, all_files, connect, drift, frame, honest_round, read_reply

import trustformer.secure.sealing as sealing
from trustformer.enclave import service
from trustformer.enclave.protocol import SealedUpdate, UploadHeader
from trustformer.enclave.state import StateStore
from trustformer.errors import TrustformerError
from trustformer.federation.host import Host
from trustformer.federation.ledger import Ledger
from trustformer.federation.remote import RemoteEnclave
from trustformer.message import Update, enc

ROOT = Path(__file__).parents[2]


class Tapped(RemoteEnclave):
    """Keeps every byte that crosses the socket."""

    def _ask(self, operation: bytes, body: bytes) -> bytes:
        tape: list[bytes] = self.__dict__.setdefault("tape", [])
        tape.append(body)
        reply = super()._ask(operation, body)
        tape.append(reply)
        return reply


@pytest.fixture
def party(tmp_path: Path) -> Party:
    return Party(tmp_path / "run")


@pytest.fixture
def tapped(party: Party) -> Iterator[Tapped]:
    enclave = Tapped(
        *(party.folder / "terms.bin", party.folder / "state"),
        provider="simulated",
        evidence=party.folder / "root",
        log=party.folder / "log.txt",
    )
    yield enclave
    enclave.stop()


def pieces(secret: bytes, size: int = 16) -> set[bytes]:
    """Every aligned piece of a secret that is not trivially common, as it is, in hex and in base64."""
    raw = {secret[at : at + size] for at in range(0, len(secret) - size + 1, 4)}
    raw = {piece for piece in raw if len(set(piece)) > 6}
    texts = {piece.hex().encode() for piece in raw}
    return raw | texts | {base64.b64encode(piece[:15]) for piece in raw}


def found(needles: set[bytes], *haystacks: bytes) -> list[bytes]:
    return [needle for needle in needles for haystack in haystacks if needle in haystack]


def play(party: Party, host: Host, monkeypatch: pytest.MonkeyPatch) -> set[bytes]:
    """A round, with everything in it that must not be seen: bodies, tensors, keys of clients, messages and round."""
    keys: list[bytes] = []
    fresh = sealing.new_content_key

    def remembered() -> bytes:
        keys.append(fresh())
        return keys[-1]

    monkeypatch.setattr("trustformer.federation.channel.new_content_key", remembered)
    secrets: list[bytes] = []
    players = party.players(host)
    for index, player in enumerate(players.values()):
        player.hello()
        tensors = drift(index)
        update = player.update(tensors)
        secrets += [update.body, update.salt, *(values.tobytes() for values in tensors.values())]
        assert player.channel.upload(update) == "accepted"
    host.close(1)
    for player in players.values():
        secrets += [aggregate.body for _, aggregate in player.adopt()]
    state = StateStore(party.folder / "state", party.config.digest).load()
    assert state is not None
    secrets += [*keys, *(key for _, key in state.keys), state.residual]
    secrets += [identity._private.private_bytes_raw() for identity in party.identities.values()]
    assert len(keys) == 3
    return set().union(*(pieces(secret) for secret in secrets))


def test_the_search_would_find_a_planted_secret(tmp_path: Path) -> None:
    secret = np.random.default_rng(0).bytes(400)
    assert found(pieces(secret), b"x" * 7 + secret + b"y")
    assert found(pieces(secret), b"log: " + secret.hex().encode())


def test_52_host_files_and_traffic_hold_no_secret(
    party: Party, tapped: Tapped, monkeypatch: pytest.MonkeyPatch
) -> None:
    needles = play(party, party.host(tapped), monkeypatch)
    assert len(needles) > 1000
    assert found(needles, *tapped.tape) == []
    files = {path: path.read_bytes() for path in all_files(party.folder)}
    assert {path.name for path in files} >= {"state.sealed", "round-00001.sealed", "log.txt", "ledger.jsonl"}
    assert found(needles, *files.values()) == []


def test_53_logs_and_errors_hold_no_secret(party: Party, tapped: Tapped, monkeypatch: pytest.MonkeyPatch) -> None:
    host = party.host(tapped)
    needles = play(party, host, monkeypatch)
    player = party.players(host)["c0"]
    size = len(player.update(drift(0)).body)
    said: list[bytes] = []
    planted = np.random.default_rng(9).bytes(2000)
    needles |= pieces(planted)
    for request in (planted, frame(service.UPLOAD, planted), enc(planted, planted[:64])):
        for ask in (tapped.hello, tapped.upload, tapped.sync):
            with pytest.raises(TrustformerError) as refused:
                ask(request)
            said.append(f"{refused.value!r} {refused.value.hint}".encode())
    adopted = party.players(host)
    for other in adopted.values():
        other.hello()  # behind: the enclave is at round 1
        status = other.channel.upload(Update(2, COMMON, 3, os.urandom(32), planted[:size].ljust(size, b"\xff")))
        assert status == "refused"
    os.kill(tapped.pid, signal.SIGTERM)
    with pytest.raises(TrustformerError) as lost:
        tapped.hello(planted[:100])
    said += [str(lost.value).encode(), (party.folder / "log.txt").read_bytes()]
    assert b"Traceback" not in said[-1]
    assert found(needles, *said) == []


def test_45_a_dropped_client_sees_that_it_was_left_out(party: Party, tapped: Tapped) -> None:
    class Dropping(Host):
        def upload(self, request: bytes) -> bytes:
            sealed = SealedUpdate.from_bytes(request, chunk_limit=len(request))
            if UploadHeader.from_bytes(sealed.header).client_id == "c2":
                raise OSError("lost on the way")
            return super().upload(request)

    host = Dropping(tapped, party.folder / "host", Ledger(party.folder / "ledger.jsonl"), max_lag=8)
    players = party.players(host)
    updates = {client: player.update(drift(index)) for index, (client, player) in enumerate(players.items())}
    for client, player in players.items():
        player.hello()
        if client == "c2":
            with pytest.raises(OSError, match="lost"):
                player.channel.upload(updates[client])
        else:
            assert player.channel.upload(updates[client]) == "accepted"
    host.close(1)
    manifest, _ = players["c2"].adopt()[0]
    assert [client for client, _ in manifest.uploads] == ["c0", "c1"]
    assert updates["c2"].commitment not in dict(manifest.uploads).values()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("delay", [0.0, 0.002, 0.05])
def test_51_no_partial_release(party: Party, tmp_path: Path, how: signal.Signals, delay: float) -> None:
    remote = party.remote()
    host = party.host(remote)
    players = party.players(host)
    for index, player in enumerate(players.values()):
        player.hello()
        assert player.channel.upload(player.update(drift(index))) == "accepted"
    with connect(Path(remote._folder) / "s") as connection:
        connection.sendall(frame(service.CLOSE, enc(1)))
        if delay:
            signal.sigtimedwait([], delay)
        os.kill(remote.pid, how)
        reply = read_reply(connection)
    remote.stop()
    assert reply == b"" or reply[:1] == b"\0"
    again = party.remote()
    try:
        assert again.round == 1 or not reply
        if again.round == 1 and reply:
            released = again.close(1)
            assert reply[1:] == enc(released.manifest, released.aggregate)
        else:
            host = party.host(again)
            if again.round == 0:
                honest_round(host, party.players(host))
        assert again.round == 1
    finally:
        again.stop()


def fuzzer() -> Any:
    spec = importlib.util.spec_from_file_location("fuzz_enclave", ROOT / "benchmarks" / "fuzz_enclave.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_56_mutations_of_every_message() -> None:
    fuzz: Callable[[int, int], dict[str, Any]] = fuzzer().fuzz
    result = fuzz(504, 7)
    assert result["untyped"] == []
    assert result["faults_logged"] == 0
    assert result["honest_round_unaffected"]
    assert len(result["outcomes"]) == 12
