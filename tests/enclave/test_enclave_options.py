# SPDX-License-Identifier: Apache-2.0
"""Options of the terms: acknowledged release, the quorum after a restart, the norm bound, the trimmed mean."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from process_kit import COMMON, LAYOUT, Party, Player, drift, honest_round

from trustformer.aggregation import TrimmedMean, WeightedMean
from trustformer.attestation.errors import BadSignature, Rollback
from trustformer.attestation.simulated import SimulatedAttester
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import MAX_MESSAGE, NO_HASH
from trustformer.enclave.session import Enclave
from trustformer.enclave.state import State, StateStore
from trustformer.errors import ConfigError, MessageError, NotReleasedError, ProtocolError, RoundsGoneError
from trustformer.federation import channel
from trustformer.federation.channel import Position
from trustformer.federation.host import Host
from trustformer.federation.ledger import Ledger
from trustformer.message import Dense, Group, Layout, Reader, TensorSpec, enc
from trustformer.vq import decode, encode

Run = Callable[..., dict[str, Any]]


def boot(party: Party, state: str = "state") -> Enclave:
    store = StateStore(party.folder / state, party.config.digest)
    return Enclave(party.config, store, SimulatedAttester.load(party.folder / "root"))


def closed_round(party: Party) -> tuple[Host, dict[str, Player]]:
    host = party.host(boot(party))
    players = party.players(host)
    for index, player in enumerate(players.values()):
        player.hello()
        assert player.channel.upload(player.update(drift(index))) == "accepted"
    host.close(1)
    return host, players


def acknowledge(player: Player) -> None:
    number, manifest_hash = player.channel.newest(player.position, NO_HASH)
    player.channel.newest(player.position, manifest_hash)
    player.acknowledged, player.acknowledged_hash = number, manifest_hash


def test_keys_wait_for_two_thirds_of_the_roster(tmp_path: Path) -> None:
    party = Party(tmp_path, clients=5, release="acknowledged", min_clients=4)
    _, players = closed_round(party)
    a, b, c, d, e = players.values()
    for player in (a, b, c):
        acknowledge(player)
        acknowledge(player)  # counts once
        with pytest.raises(NotReleasedError, match="too few clients have acknowledged"):
            list(player.channel.sync(player.position, player.acknowledged_hash))
    acknowledge(d)
    assert {player.adopt()[0][1].body for player in (a, b, c, d)}
    assert e.adopt()  # the round is out: whoever comes later need not be counted
    assert [p.round for p in players.values()] == [1] * 5


def test_the_first_answer_holds_manifests_and_no_keys(tmp_path: Path) -> None:
    party = Party(tmp_path, release="acknowledged")
    host, players = closed_round(party)
    aggregate = len(next((party.folder / "host").glob("*.sealed")).read_bytes())
    channel, ledger = players["c0"].channel, host.link("c0")._ledger
    before = ledger.total("down")["c0"]
    channel.newest(players["c0"].position, NO_HASH)
    told = ledger.total("down")["c0"] - before
    with pytest.raises(NotReleasedError):
        list(channel.sync(players["c0"].position))
    assert ledger.total("down")["c0"] - before - told == told < aggregate


def test_an_acknowledgement_of_something_else_does_not_count(tmp_path: Path) -> None:
    party = Party(tmp_path, release="acknowledged")
    _, players = closed_round(party)
    for player in players.values():
        player.channel.newest(player.position, b"x" * 32)
        player.channel.newest(player.position, NO_HASH)
    with pytest.raises(NotReleasedError):
        players["c0"].adopt()


def test_acknowledgements_are_heard_again_after_a_restart(tmp_path: Path) -> None:
    party = Party(tmp_path, release="acknowledged")
    _, players = closed_round(party)
    for player in players.values():
        acknowledge(player)
    again = party.players(party.host(boot(party)))
    for client, player in again.items():
        old = players[client]
        player.channel.hello(Position(old.acknowledged, old.acknowledged_hash, NO_HASH))
    assert again["c0"].adopt()


def test_47_a_client_that_acknowledged_stops_an_older_state(tmp_path: Path) -> None:
    party = Party(tmp_path, release="acknowledged")
    honest_state = party.folder / "state"
    boot(party)
    shutil.copytree(honest_state, party.folder / "old")  # before the round
    _, players = closed_round(party)
    acknowledge(players["c0"])
    host = party.host(rolled_back := boot(party, "old"))
    again = party.players(host)
    with pytest.raises((ProtocolError, Rollback)):
        again["c0"].channel.hello(Position(1, players["c0"].acknowledged_hash, NO_HASH))
    for client in ("c1", "c2"):  # have seen nothing yet
        again[client].hello()
        assert again[client].channel.upload(again[client].update(drift(1))) == "accepted"
    with pytest.raises(ProtocolError, match="newer rounds than this boot's, seen by c0"):
        host.close(1)
    assert rolled_back.round == 0


def test_47_no_release_before_the_state_is_confirmed(tmp_path: Path) -> None:
    party = Party(tmp_path)
    host = party.host(boot(party))
    players = party.players(host)
    honest_round(host, players)
    host = party.host(boot(party))
    again = party.players(host)
    for client, player in again.items():
        player.round, player.manifest_hash = players[client].round, players[client].manifest_hash
    again["c0"].hello()
    assert again["c0"].channel.upload(again["c0"].update(drift(5))) == "accepted"
    with pytest.raises(ProtocolError, match="1 updates in round 2, 2 are needed"):
        host.close(2)
    honest_round(host, again, seed=7)
    assert host.round == 2


def test_a_claim_of_rounds_that_were_never_closed_stops_nobody_else(tmp_path: Path) -> None:
    party = Party(tmp_path)
    host = party.host(boot(party))
    players = party.players(host)
    honest_round(host, players)
    with pytest.raises(ProtocolError, match="has not been closed"):
        players["c0"].channel.hello(Position(9, b"y" * 32, COMMON))
    honest_round(host, players)
    assert host.round == 2


def test_a_repeated_old_hello_changes_nothing(tmp_path: Path) -> None:
    party = Party(tmp_path)
    enclave = boot(party)
    recorded: list[bytes] = []

    class Recorder(Host):
        def hello(self, request: bytes) -> bytes:
            recorded.append(request)
            return super().hello(request)

    players = party.players(host := Recorder(enclave, party.folder / "host", party.host(enclave)._ledger, max_lag=8))
    honest_round(host, players)
    for player in players.values():
        player.hello()
    old = recorded[:3]
    for request in old:
        enclave.hello(request)
    for index, player in enumerate(players.values()):
        assert player.channel.upload(player.update(drift(index))) == "accepted"
    host.close(2)


@pytest.mark.parametrize(("again", "shown"), [(3600.0, [True, False, False]), (0.0, [True, True, True])])
def test_a_boot_that_was_verified_long_ago_is_verified_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: float, shown: list[bool]
) -> None:
    monkeypatch.setattr(channel, "VERIFY_AGAIN", again)
    party, evidence = Party(tmp_path), []

    class Looking(Host):
        def hello(self, request: bytes) -> bytes:
            reply = super().hello(request)
            reader = Reader(reply, "welcome")
            reader.raw(limit=MAX_MESSAGE)
            evidence.append(bool(reader.raw(limit=2 * MAX_MESSAGE)))
            return reply

    host = Looking(boot(party), party.folder / "host", Ledger(party.folder / "ledger.jsonl"), max_lag=8)
    player = party.players(host)["c0"]
    for _ in range(3):
        assert player.channel.stale == (not evidence or all(shown))
        player.hello()
    assert evidence == shown
    now = time.time() - 60  # the clock has gone back
    monkeypatch.setattr(channel, "time", SimpleNamespace(time=lambda: now))
    player.hello()
    player.hello()
    assert evidence == [*shown, True, all(shown)]


# ---- combination ----

FLAT = Layout((Group(Dense("float32"), (TensorSpec("x", (3,)), TensorSpec("y", (2, 2)))),))


def body(*values: float) -> bytes:
    x = np.array(values, np.float32)
    return encode(FLAT, {"x": x, "y": np.zeros((2, 2), np.float32)}, np.random.default_rng(0))


def test_an_update_over_the_norm_is_refused_and_adds_nothing() -> None:
    for mean in (WeightedMean(FLAT, 1.0, 5.0, clients=1), TrimmedMean(FLAT, 0, 5.0)):
        mean.add(1, body(3, 4, 0))
        with pytest.raises(MessageError, match="norm is over 5"):
            mean.add(1, body(3, 4, 0.01))
        assert mean.result()["x"].tolist() == [3, 4, 0]


def test_the_enclave_refuses_it_too(tmp_path: Path) -> None:
    party = Party(tmp_path, max_norm_milli=100)
    host = party.host(boot(party))
    player = party.players(host)["c0"]
    player.hello()
    assert player.channel.upload(player.update(drift(0, size=0.5))) == "refused"
    assert player.channel.upload(player.update(drift(0, size=0.001))) == "accepted"


def test_the_trimmed_mean_is_that_of_a_direct_computation() -> None:
    rng = np.random.default_rng(0)
    bodies = [encode(LAYOUT, drift(seed, size=1.0), rng) for seed in range(7)]
    mean, backwards = TrimmedMean(LAYOUT, 300_000, 1e9), TrimmedMean(LAYOUT, 300_000, 1e9)
    for index in range(7):
        mean.add(index + 1, bodies[index])
        backwards.add(1, bodies[6 - index])
    decoded = [decode(LAYOUT, one) for one in bodies]
    for name, values in mean.result().items():
        every = np.sort(np.stack([tensors[name] for tensors in decoded]), axis=0)
        np.testing.assert_array_equal(values, every[2:5].mean(axis=0, dtype=np.float64).astype(np.float32))
        np.testing.assert_array_equal(values, backwards.result()[name])


def test_extremes_of_fewer_than_the_trimmed_share_do_not_move_it() -> None:
    mean = TrimmedMean(FLAT, 250_000, 1e9)
    for values in ((1, 1, 1), (2, 2, 2), (3, 3, 3), (30, -30, 30)):
        mean.add(1, body(*values))
    result = mean.result()["x"]
    assert ((result >= 1) & (result <= 3)).all()


@pytest.mark.parametrize(
    "terms",
    [
        {"release": "acknowledged", "min_clients": 1},
        {"release": "never"},
        {"rule": "median"},
        {"trim_ppm": 500_000},
        {"max_norm_milli": 0},
    ],
)
def test_other_terms_are_refused(tmp_path: Path, terms: dict[str, Any]) -> None:
    config = replace(Party(tmp_path).config, **terms)
    with pytest.raises(ProtocolError):
        RunConfig.from_bytes(config.to_bytes())


# ---- whole runs ----


def digests(out: Path) -> tuple[str, str]:
    result = json.loads((out / "result.json").read_text("utf-8"))
    return result["weights_digest"], result["common_digest"]


def test_acknowledged_runs_end_in_the_same_weights(tiny_run: Run, tmp_path: Path) -> None:
    options = ("clients.participation=0.7", "clients.late=0.3", "clients.duplicate=0.3", "rounds=4")
    tiny_run(tmp_path / "now", *options)
    tiny_run(tmp_path / "later", *options, "enclave.release=acknowledged")
    assert digests(tmp_path / "now") == digests(tmp_path / "later")


def test_acknowledged_runs_need_two_thirds(tiny_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two thirds") as refused:
        tiny_run(tmp_path / "few", "clients.min_clients=1", "enclave.release=acknowledged")
    assert refused.value.hint == "--set clients.min_clients=2"


def test_a_run_by_trimmed_mean(tiny_run: Run, tmp_path: Path) -> None:
    result = tiny_run(tmp_path / "trimmed", "enclave.rule=trimmed_mean", "enclave.trim=0.34", "rounds=1")
    assert result["rounds"] >= 1
    assert 'rule = "trimmed_mean"' in (tmp_path / "trimmed" / "config.toml").read_text("utf-8")


@pytest.mark.parametrize(("trim_ppm", "count", "cut"), [(290_000, 100, 29), (333_333, 3, 0), (333_334, 3, 1)])
def test_so_many_of_the_clients_are_cut_off(trim_ppm: int, count: int, cut: int) -> None:
    mean = TrimmedMean(FLAT, trim_ppm, 1e9)
    for index in range(count):  # one extreme more than is cut moves the mean
        mean.add(1, body(*((30.0,) * 3 if index <= cut else (1.0,) * 3)))
    kept = count - 2 * cut
    assert mean.result()["x"] == pytest.approx((30.0 + (kept - 1) * 1.0) / kept)


def test_more_rounds_than_a_client_catches_up_are_not_read(tmp_path: Path) -> None:
    party = Party(tmp_path)
    host = party.host(boot(party))
    players, hashes = party.players(host), []
    for number in range(1, 13):
        hashes.append(players["c0"].manifest_hash)
        for player in players.values():
            player.hello()
            assert player.channel.upload(player.update(drift(number))) == "accepted"
        host.close(number)
        for player in players.values():
            player.adopt()
    for behind, refused in ((10, False), (11, True)):
        late = party.players(host)["c0"]
        late.round, late.manifest_hash = 12 - behind, hashes[12 - behind]
        late.hello()
        if refused:
            with pytest.raises(RoundsGoneError, match="11 rounds are more"):
                late.adopt()
        else:
            assert len(late.adopt()) == behind


def test_a_boot_whose_reply_is_refused_does_not_make_the_one_before_it_count_as_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    party = Party(tmp_path)
    first, other = boot(party), boot(party, "other")

    class Forging(Host):
        def hello(self, request: bytes) -> bytes:
            reader = Reader(other.hello(request), "welcome")
            signed, evidence = bytearray(reader.raw(limit=MAX_MESSAGE)), reader.raw(limit=2 * MAX_MESSAGE)
            signed[-1] ^= 1
            return enc(bytes(signed), evidence)

    player = party.players(party.host(first))["c0"]
    player.hello()
    later = time.time() + channel.VERIFY_AGAIN
    monkeypatch.setattr(channel, "time", SimpleNamespace(time=lambda: later))
    link = player.channel.link
    player.channel.link = Forging(first, party.folder / "host", Ledger(tmp_path / "l.jsonl"), max_lag=8).link("c0")
    with pytest.raises(BadSignature):
        player.hello()
    assert player.channel.stale
    player.channel.link = link
    player.hello()
    assert not player.channel.stale


def test_saving_where_folders_cannot_be_synced_leaves_no_descriptor_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "no folders")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    store = StateStore(tmp_path, bytes(32))
    open_before = len(os.listdir("/proc/self/fd"))
    for number in range(3):
        store.save(State(number, (), b"", None))
    assert len(os.listdir("/proc/self/fd")) == open_before
