# SPDX-License-Identifier: Apache-2.0
"""Late, repeated, lost and slow answers between `serve`, the enclave's process and three `join`, in seconds."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from wire import Threaded, Wire

from trustformer.attestation.simulated import BANNER
from trustformer.enclave.protocol import Hello, sign, split_signed
from trustformer.errors import AttestationError, TrustformerError
from trustformer.experiment.config import load_config
from trustformer.federation import channel
from trustformer.federation.host import Host
from trustformer.flower.parcel import Parcel
from trustformer.flower.serve import serve
from trustformer.flower.settings import HostConfig
from trustformer.flower.setup import init_federation
from trustformer.secure.identity import Identity

pytestmark = [
    pytest.mark.timeout(300),  # threads of seven parties on a busy machine
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what flwr itself uses
]
CLIENTS = ("0", "1", "2")
VALUES = ("rounds=1", "enclave.release=acknowledged", "train.cooldown=1")
DEADLINE = 600.0
"""Seconds; so long that a round ends at it only where a test puts the clock forward."""
Make = Callable[..., Threaded]


@pytest.fixture
def made(tmp_path: Path, settings: list[str], mini_model: None, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A federation of three clients and two exchanges, not started; the host's settings are given."""

    def make(**host: Any) -> Threaded:
        config = load_config(None, [*settings, *VALUES])
        init_federation(tmp_path / "fed", config, "127.0.0.1:1", HostConfig(**host))
        return Threaded(tmp_path / "fed", Wire(), monkeypatch)

    return make


def records(fed: Path) -> list[dict[str, Any]]:
    """Closed rounds."""
    path = fed / "host" / "rounds.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def results(fed: Path) -> dict[str, dict[str, Any]]:
    """What each client ended with."""
    return {c: json.loads((fed / f"client-{c}" / "state" / "result.json").read_text("utf-8")) for c in CLIENTS}


def check_against_run(fed: Path, run: Callable[..., dict[str, Any]], out: Path) -> None:
    """Every client's weights are those of `trustformer run` with the recorded cohorts."""
    expected = run(out, *VALUES, f"clients.cohorts={fed / 'host' / 'rounds.jsonl'}")
    assert {result["common_digest"] for result in results(fed).values()} == {expected["common_digest"]}
    for client in records(fed)[-1]["present"]:
        assert results(fed)[client]["weights_digest"] == expected["weights_digest"][client]


def test_a_straggler_past_the_deadline_is_late_and_loses_nothing(
    made: Make, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    fed = made(deadline=DEADLINE, probe=60.0)

    def held(client: str, parcel: Parcel) -> bool:
        """Client 2's first update until round 1 is closed, all second ones until it is written that it was late."""
        closed = records(fed.fed)
        if parcel.kind != "upload":
            return False
        return (client == "2" and not closed) if parcel.round == 1 else closed[0]["late"] != ["2"]

    fed.wire.held = held
    fed.start(*CLIENTS)
    fed.until(lambda: fed.wire.accepted() == {"0", "1"} and fed.wire.uploaded() == set(CLIENTS))
    fed.skip(DEADLINE)
    fed.end()
    first, last = records(fed.fed)
    assert (first["combined"], first["late"]) == (["0", "1"], ["2"])
    assert last["combined"] == ["0", "1", "2"]
    assert fed.said.has("round 1: closed at its deadline without 2")
    assert ("2", "late") in [(c, p.note) for c, p in fed.wire.sent if p.kind == "done"]
    check_against_run(fed.fed, tiny_run, tmp_path / "run")


def test_a_client_back_too_late_to_catch_up_ends_with_the_common_model_of_one_that_joins_again(
    tmp_path: Path, settings: list[str], mini_model: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = ["rounds=2", "clients.max_lag=1", "train.cooldown=1"]
    config = load_config(None, [*settings, *values])
    init_federation(tmp_path / "fed", config, "127.0.0.1:1", HostConfig(deadline=DEADLINE, probe=60.0))
    fed = Threaded(tmp_path / "fed", Wire(), monkeypatch)
    fed.start("0", "1")
    for number in (1, 2, 3):
        done = 2 * number
        fed.until(lambda done=done: [p.note for _, p in fed.wire.sent if p.kind == "done"].count("accepted") == done)
        fed.skip(DEADLINE)
    fed.until(lambda: fed.said.has("finished", "round 3 of 3"))
    fed.until(lambda: {c for c, p in fed.wire.sent if p.note == "finished"} == {"0", "1"})
    fed.until(lambda: fed.said.has("client 0 is offline"))
    fed.start("0")
    fed.until(lambda: ("0", "standing by") in [(c, p.note) for c, p in fed.wire.sent])
    assert fed.said.has("client 0, ", "has the last round; stands by for others", f"takes {fed.fed}/client-0/model (")
    fed.start("2")
    fed.end()  # who stood by is let go
    assert fed.said.has("client 2 is 3 rounds behind: taking the dense common model")
    assert fed.said.has("finished: all 3 clients have the last round")
    assert len({result["common_digest"] for result in results(fed.fed).values()}) == 1


def test_a_finished_client_is_let_go_before_it_has_said_that_it_stands_by(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = made()
    fed.start(*CLIENTS)
    fed.end()
    assert fed.said.has("3 clients, 2 rounds (1 with training, 1 exchange only), round 0 done")
    assert fed.said.lines.count(BANNER) == 1 + len(CLIENTS)  # serve and every join
    assert fed.said.has("client 0, 10 placeholder pairs; has taken part in none of 2 rounds yet")
    (fed.fed / "host" / "finished.json").write_text('["0", "1"]', "utf-8")
    again = Threaded(fed.fed, Wire(), monkeypatch)
    again.wire.held = lambda client, parcel: client == "0" and not again.said.has("finished: adopted")
    again.start("0")
    again.until(lambda: again.said.has("client 0 is online"))
    again.start("2")
    again.until(lambda: again.said.has("finished: all 3 clients have the last round"), 60)
    again.end()
    third = Threaded(fed.fed, Wire(), monkeypatch)
    third.start("1")  # nobody is waited for, and this one comes when serve has begun
    third.until(lambda: third.said.has("finished: all 3 clients have the last round"), 60)
    third.end()


def test_every_answer_twice_counts_once(made: Make, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    fed = made()
    fed.wire.copies = 2
    fed.start(*CLIENTS)
    fed.end()
    assert [record["combined"] for record in records(fed.fed)] == [["0", "1", "2"]] * 2
    assert [record["late"] for record in records(fed.fed)] == [[], []]
    check_against_run(fed.fed, tiny_run, tmp_path / "run")


def test_a_silent_client_is_asked_whether_it_began_anew_and_counts_once(made: Make) -> None:
    fed = made(probe=0.05)
    fed.after_training = lambda client: fed.until(lambda: fed.wire.asking(client))  # or it might be done before that
    fed.start(*CLIENTS)
    fed.end()
    assert [record["combined"] for record in records(fed.fed)] == [["0", "1", "2"]] * 2
    assert "busy" in {parcel.kind for _, parcel in fed.wire.sent}
    uploads = [(client, parcel.round) for client, parcel in fed.wire.sent if parcel.kind == "upload"]
    assert len(uploads) == len(set(uploads)) == 6


@pytest.mark.parametrize("kind", ["hello", "upload", "sync", "done"])
def test_a_lost_answer_is_asked_for_again(made: Make, kind: str) -> None:
    """Flower ends a message in an error when its node is offline for 20 s, and drops what is said to it after that."""
    fed = made(probe=0.5)
    lost: list[Parcel] = []

    def first_of_its_kind(client: str, parcel: Parcel) -> bool:
        if (client, parcel.kind) == ("1", kind) and not lost:
            lost.append(parcel)
        return parcel in lost[:1]

    fed.wire.lost = first_of_its_kind
    fed.start(*CLIENTS)
    fed.end()
    assert lost
    assert [record["combined"] for record in records(fed.fed)] == [["0", "1", "2"]] * 2


def test_too_few_at_the_deadline_is_a_new_try_in_which_all_send_again(
    made: Make, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    fed = made(deadline=DEADLINE, probe=60.0)
    slow = {("1", "upload"), ("2", "upload")}
    fed.wire.held = lambda client, parcel: (client, parcel.kind) in slow and not fed.said.has("try 2 of")
    fed.start(*CLIENTS)
    fed.until(lambda: fed.wire.accepted() == {"0"} and fed.wire.uploaded() == set(CLIENTS))
    fed.skip(DEADLINE)
    fed.end()
    assert fed.said.has("round 1: 1 of the 2 updates needed; without 1 (at work), 2 (at work); try 2 of 24")
    assert len(records(fed.fed)[0]["combined"]) >= 2
    uploads = [client for client, parcel in fed.wire.sent if (parcel.kind, parcel.round) == ("upload", 1)]
    assert uploads.count("0") == 2  # what the enclave had of the first try is gone
    check_against_run(fed.fed, tiny_run, tmp_path / "run")


def test_a_round_that_stays_too_small_ends_serve_with_the_names_of_who_is_missing(made: Make) -> None:
    fed = made(deadline=0.3, attempts=2)
    missing = re.escape("without 0 (not seen yet), 1 (not seen yet), 2 (not seen yet)")
    with pytest.raises(TrustformerError, match=f"round 1: 0 of the 2 updates needed; {missing}"):
        serve(fed.fed / "host", fed.said)
    assert fed.said.has("try 2 of 2")
    assert fed.said.has("round 1 of 2: online 0/3 (nobody)", "not seen yet in 0 s, waited for 0 s more: 0, 1, 2")


def test_serve_says_who_is_waited_for_every_ten_seconds_at_first_and_then_once_a_minute(made: Make) -> None:
    fed = made(deadline=3600.0)

    def status() -> list[str]:
        return [line for line in fed.said.lines if line.startswith("round 1 of 2: online")]

    fed.start()
    for count in range(1, 8):
        fed.until(lambda count=count: len(status()) == count)
        fed.skip(11.0)
    time.sleep(1.0)  # the relay looks every 0.3 seconds at least
    assert len(status()) == 7
    fed.skip(50.0)
    fed.until(lambda: len(status()) == 8)
    assert "online 0/3 (nobody), sent 0 of at least 2, 2 min, deadline in 58 min" in status()[-1]
    fed.cut_off()


def test_a_killed_enclave_is_replaced_and_clients_send_again(made: Make) -> None:
    fed = made(probe=1.0)
    fed.wire.held = lambda client, parcel: (client, parcel.kind) == ("2", "upload") and not fed.said.has("died")
    fed.start(*CLIENTS)
    fed.until(lambda: fed.wire.uploaded() == set(CLIENTS))
    listening = next(line for line in fed.said.lines if "listening" in line)
    found = re.search(r"enclave (\d+)", listening)
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    fed.end()
    assert [record["combined"] for record in records(fed.fed)] == [["0", "1", "2"]] * 2
    assert len({result["common_digest"] for result in results(fed.fed).values()}) == 1


def test_an_enclave_that_somebody_else_starts_again_and_clients_send_again(
    made: Make, tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    fed = made(probe=1.0, enclave=f"127.0.0.1:{port}")
    host, state = fed.fed / "host", tmp_path / "elsewhere"
    command = [
        *(sys.executable, "-I", "-B", "-m", "trustformer.enclave", "--socket", f"tcp:{port}"),
        *("--terms", str(host / "terms.bin"), "--state", str(state)),
        *("--provider", "simulated", "--evidence", str(host / "enclave" / "simulated")),
    ]
    with ExitStack() as stack:

        def start() -> subprocess.Popen[bytes]:
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        first = start()
        fed.wire.held = lambda client, parcel: (client, parcel.kind) == ("2", "upload") and not fed.said.has("was gone")
        fed.start(*CLIENTS)
        fed.until(lambda: fed.wire.uploaded() == set(CLIENTS))
        first.kill()
        first.wait()
        start()
        fed.end()
    assert fed.said.has(f"processes: enclave at 127.0.0.1:{port}")
    assert (state / "state.sealed").exists()
    assert not (host / "enclave" / "state.sealed").exists()
    assert [record["combined"] for record in records(fed.fed)] == [["0", "1", "2"]] * 2
    check_against_run(fed.fed, tiny_run, tmp_path / "run")


def test_a_message_that_is_too_long_costs_its_sender_a_try_and_nobody_else(made: Make) -> None:
    fed = made()
    reply, long = fed.wire.reply, list[Parcel]()

    def lengthened(client: str, to: str, parcel: Parcel) -> None:
        if client == "2" and parcel.kind == "hello" and not long and fed.wire.accepted() == {"0", "1"}:
            long.append(parcel)
            parcel = replace(parcel, body=bytes(5000))
        reply(client, to, parcel)

    fed.wire.reply = lengthened  # type: ignore[method-assign]
    fed.start("0", "1")
    fed.until(lambda: fed.wire.accepted() == {"0", "1"})
    fed.start("2")
    fed.end()
    assert long
    assert fed.said.has("client 2 failed with 'MessageError'")
    assert fed.said.has("hello: 5000 bytes where the run's terms allow 4096")
    assert not fed.said.has("died")
    assert [record["combined"] for record in records(fed.fed)] == [["0", "1", "2"]] * 2
    uploads = [(client, parcel.round) for client, parcel in fed.wire.sent if parcel.kind == "upload"]
    assert len(uploads) == len(set(uploads)) == 6


def _claiming(fed: Threaded, client: str, number: int) -> None:
    """Let every hello of a client claim, signed, that it holds a round."""
    folder = fed.fed / f"client-{client}"
    identity, reply = Identity.load(folder / "identity.key"), fed.wire.reply

    def claim(sender: str, to: str, parcel: Parcel) -> None:
        if (sender, parcel.kind) == (client, "hello"):
            hello = Hello.from_bytes(split_signed(parcel.body, "hello")[0])
            parcel = replace(parcel, body=sign(replace(hello, round=number).to_bytes(), identity))
        reply(sender, to, parcel)

    fed.wire.reply = claim  # type: ignore[method-assign]


def test_a_client_that_claims_a_newer_round_ends_serve_after_its_tries(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = made(deadline=DEADLINE, attempts=3)
    monkeypatch.setattr("trustformer.flower.relay._REFUSED", 0.2)
    closes, close = list[float](), Host.close

    def counted(host: Host, number: int) -> None:
        closes.append(time.monotonic())
        close(host, number)

    monkeypatch.setattr(Host, "close", counted)
    _claiming(fed, "2", 7)
    fed.start(*CLIENTS)
    fed.until(lambda: fed.wire.accepted() == {"0", "1"} and fed.said.has("client 2 failed with 'ProtocolError'"))
    fed.skip(DEADLINE)
    fed.until(lambda: fed.said.has("try 3 of 3"))
    ended = fed.error("serve")
    assert isinstance(ended, TrustformerError)
    assert ended.message == "round 1: close: newer rounds than this boot's, seen by 2, 3 times"
    assert "keep away who only claims to" in ended.hint
    assert len(closes) == 3
    assert all(later - sooner >= 0.2 for sooner, later in pairwise(closes))
    assert not records(fed.fed)


def test_an_enclave_whose_state_was_removed_learns_the_round_and_serve_goes_on(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = made()
    fed.start(*CLIENTS)
    fed.end()
    before = records(fed.fed)
    (fed.fed / "host" / "enclave" / "state.sealed").unlink()
    (fed.fed / "host" / "finished.json").unlink()
    again = Threaded(fed.fed, Wire(), monkeypatch)
    again.start(*CLIENTS)
    again.end()
    assert again.said.has("failed with 'ProtocolError'")  # the first to come: alone it is not believed
    assert records(fed.fed) == before


def test_a_client_that_missed_the_end_gets_it_of_another_boot_when_one_that_finished_stands_by(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new boot has heard nobody say that the last round is held, and gives its key to nobody before."""
    monkeypatch.setattr("trustformer.flower.relay._LONG", 0.5)
    monkeypatch.setattr("trustformer.flower.member._LONG", 0.5)
    fed = made(deadline=DEADLINE, probe=60.0)
    fed.start("0", "1")
    for number in (1, 2):
        done = 2 * number
        fed.until(lambda done=done: [p.note for _, p in fed.wire.sent if p.kind == "done"].count("accepted") == done)
        fed.skip(DEADLINE)
    fed.until(lambda: {c for c, p in fed.wire.sent if p.note == "finished"} == {"0", "1"})
    fed.skip(DEADLINE / 2)
    fed.until(lambda: fed.said.has("taking over the last round: nobody; not seen yet in", ": 2"))
    fed.skip(DEADLINE)
    fed.end()
    assert fed.said.has("round 2: closed at its deadline without 2 (not seen yet)")
    assert fed.said.has("without the last round: 2")
    pauses: list[float] = []  # its clock is moved by these, which take a hundredth of their time
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + sum(pauses))
    clock.sleep = lambda seconds: (pauses.append(seconds), time.sleep(seconds / 100))
    monkeypatch.setattr("trustformer.flower.member.time", clock)
    again = Threaded(fed.fed, Wire(), monkeypatch)
    again.start("2")
    again.until(lambda: again.said.has("2: may need clients that have finished to join again"))
    again.until(lambda: again.said.has("waiting for the newest round's key"))
    again.until(lambda: sum(pauses) > 60)
    hellos = [c for c, parcel in again.wire.sent if (c, parcel.kind) == ("2", "hello")]
    assert len(hellos) <= 30
    again.start("0")
    again.end()
    assert ("0", "standing by") in [(c, p.note) for c, p in again.wire.sent]
    assert len({result["common_digest"] for result in results(fed.fed).values()}) == 1


def test_a_client_that_trained_for_longer_than_evidence_counts_verifies_again_before_it_sends(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = [0.0]
    clock = SimpleNamespace(time=lambda: time.time() + ahead[0])
    monkeypatch.setattr(channel, "time", clock)
    monkeypatch.setattr(channel, "VERIFY_AGAIN", 3600.0)
    fed = made(probe=60.0)
    fed.after_training = lambda client: ahead.append(ahead.pop() + 3600.0)
    fed.start(*CLIENTS)
    fed.end()
    for client in CLIENTS:
        first = [parcel for sender, parcel in fed.wire.sent if sender == client][:3]
        assert [parcel.kind for parcel in first] == ["hello", "hello", "upload"]
        known = [Hello.from_bytes(split_signed(parcel.body, "hello")[0]).boot_id for parcel in first[:2]]
        assert known == [channel.NO_BOOT] * 2
    assert [record["late"] for record in records(fed.fed)] == [[], []]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_host_that_has_lost_released_rounds_goes_on_without_their_record(
    made: Make, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """Its folder was put back from a backup: the enclave's state is newer."""
    fed = made()
    fed.start(*CLIENTS)
    fed.end()
    host, last = fed.fed / "host", records(fed.fed)[1]
    (host / "rounds.jsonl").unlink()
    (host / "finished.json").unlink()
    kept = host / "released" / "round-00001.sealed"
    kept.write_bytes(kept.read_bytes()[:-1]) if damaged else kept.unlink()
    again = Threaded(fed.fed, Wire(), monkeypatch)
    again.start(*CLIENTS)
    again.end()
    assert again.said.has("round 1: gone from released/, so who took part is not known")
    assert [record["combined"] for record in records(fed.fed)] == [last["combined"]]


def test_a_client_that_refuses_the_enclave_is_known_to_the_host_by_its_own_word(
    made: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has left by then, and Flower hands out nothing of who has left: it waits until it was heard."""
    monkeypatch.setattr("trustformer.flower.relay._STATUS_EVERY", (0.5, 0.5))
    fed = made(deadline=DEADLINE, probe=60.0)
    policy = fed.fed / "client-1" / "policy.toml"
    policy.write_text(
        re.sub('mrenclave = ."[0-9a-f]*', 'mrenclave = ["' + "ab" * 32, policy.read_text("utf-8")), "utf-8"
    )
    fed.start("1")
    while "1" not in fed.errors:
        time.sleep(0.01)
    assert isinstance(fed.errors.pop("1"), AttestationError)
    fed.until(lambda: fed.said.has("; offline: 1 (for ", " s, said 'Measurement')"), 60)
    assert fed.said.has("client 1 says that it refuses the enclave: 'Measurement'")
    last = fed.wire.sent[-1][1]
    assert last == Parcel("failed", note="Measurement")  # and nothing else: neither what it saw nor what it wants
    fed.cut_off()


def test_a_client_with_the_node_key_of_another_is_refused_by_name(made: Make) -> None:
    fed = made(deadline=DEADLINE, probe=60.0)
    identity = fed.fed / "client-1" / "identity.key"
    for name in ("identity.key", "node.toml"):  # client 0's person in the place of client 1
        shutil.copy(fed.fed / "client-0" / name, fed.fed / "client-1" / name)
    fed.start("1")
    fed.until(lambda: fed.said.has("client 0 comes with the node key of client 1"))
    assert identity.stat().st_mode & 0o077 == 0
    fed.cut_off()
