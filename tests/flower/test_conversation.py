# SPDX-License-Identifier: Apache-2.0
"""What `join` says while it cannot reach the SuperLink, or is refused by it."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from flower_kit import free_address
from flwr.proto.control_pb2 import ListNodesRequest, StopRunRequest, UnregisterNodeRequest
from wire import message_of

from trustformer.errors import (
    AttestationError,
    ConfigError,
    DataError,
    ProtocolError,
    RoundsGoneError,
    SealError,
    TrustformerError,
)
from trustformer.flower import conversation
from trustformer.flower.conversation import Conversation
from trustformer.flower.keys import make_node_key, make_tls
from trustformer.flower.node import BundleError, LostError, Node
from trustformer.flower.parcel import Parcel
from trustformer.flower.superlink import SuperLink
from trustformer.message import enc


def _node(folder: Path, address: str, host: str = "127.0.0.1") -> Node:
    make_tls(folder / "tls", [host])
    make_node_key(folder / "node.key", folder / "node.pub")
    return Node(address, folder / "tls" / "ca.crt", folder / "node.key", "0" * 64, folder / "node.id", 2**20)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long a conversation has slept; its clock is moved by that alone."""
    slept: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append)
    monkeypatch.setattr(conversation, "time", clock)
    return slept


def test_a_superlink_that_is_not_there_is_named_once_and_given_up_in_time(tmp_path: Path, pauses: list[float]) -> None:
    said: list[str] = []
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # does not listen: connections are refused, and nobody else takes the port
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LostError, match="Connection refused"):
            Conversation(_node(tmp_path, address), 10.0, said.append).command()
    assert 10.0 <= sum(pauses) <= 11.0
    assert len(said) == 1
    assert said[0].startswith(f"waiting: no connection to {address}")


@pytest.mark.usefixtures("pauses")
def test_a_reason_that_does_not_last_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are refused for a moment whenever a SuperLink starts."""
    node, said, tries = _node(tmp_path, "127.0.0.1:1"), list[str](), itertools.count()

    def connect() -> None:
        raise LostError(f"it refuses this node, try {next(tries)}")

    monkeypatch.setattr(node, "connect", connect)
    with pytest.raises(LostError, match="refuses this node"):
        Conversation(node, 2.0, said.append).command()
    assert next(tries) > 2
    assert not said


@pytest.mark.parametrize("pace", [1.0, 30.0])
def test_a_silent_host_is_asked_less_and_less_often_up_to_the_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], pace: float
) -> None:
    node = _node(tmp_path, "127.0.0.1:1")
    monkeypatch.setattr(node, "receive", lambda: None)
    with pytest.raises(LostError, match="has said nothing"):
        Conversation(node, 100.0, print, pace)._wait(100.0)
    assert pauses[0] == conversation.POLL[0]
    assert max(pauses) == pauses[-1] == pace * conversation.POLL[1]


def test_a_client_whose_part_is_done_waits_as_long_as_the_superlink_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    """Others may train for hours; what ends it is a SuperLink that is gone."""
    node, patience = _node(tmp_path, "127.0.0.1:1"), 100.0

    def receive() -> None:
        if sum(pauses) > 10 * patience:
            raise LostError("gone")

    monkeypatch.setattr(node, "receive", receive)
    monkeypatch.setattr(node, "connect", receive)
    with pytest.raises(LostError, match="gone"):
        Conversation(node, patience, print).command()
    assert 10 * patience < sum(pauses) < 11 * patience + 2


def test_a_client_says_once_that_its_part_of_a_round_is_done_and_others_are_at_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    """Long before its patience is over, and not after a failure, after which it may be asked again."""
    node, said = _node(tmp_path, "127.0.0.1:1"), list[str]()
    silence, coming = [0.0], [message_of(Parcel("take part", number)) for number in (1, 2, 3, 4)]

    def receive() -> object:
        if sum(pauses) < silence[0]:
            return None
        return coming.pop(0)

    monkeypatch.setattr(node, "receive", receive)
    monkeypatch.setattr(node, "reply", lambda message, parcel: None)
    line = Conversation(node, 3600.0, said.append)
    for end, wait in ((lambda: None, 0.0), (lambda: line.done("accepted"), 660.0), (lambda: line.done("late"), 5.0)):
        end()
        silence[0] = sum(pauses) + wait
        line.command()
        assert said == (["round 1: this client's part is done; waiting for others, still at theirs"] if wait else [])
    line.failed(ValueError())
    silence[0] = sum(pauses) + 660.0
    line.command()
    assert len(said) == 1


def test_an_address_that_the_certificate_does_not_name_is_named(tmp_path: Path) -> None:
    make_tls(tmp_path / "tls", ["federation.example.org"])
    make_node_key(tmp_path / "node.key", tmp_path / "node.pub")
    address = free_address()
    superlink = SuperLink(tmp_path / "superlink", address, tmp_path / "tls", {"0": tmp_path / "node.pub"})
    try:
        with pytest.raises(TrustformerError, match=rf"server\.pem does not hold for {address}: .*127\.0\.0\.1"):
            superlink.start()
    finally:
        superlink.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what flwr itself uses
def test_who_reaches_the_port_cannot_list_or_remove_nodes_or_stop_the_run(tmp_path: Path) -> None:
    """Flower's own command takes such requests from whoever holds `ca.crt`, as every client does."""
    address = free_address()
    node = _node(tmp_path, address)
    superlink = SuperLink(tmp_path / "superlink", address, tmp_path / "tls", {"0": tmp_path / "node.pub"})
    try:
        superlink.start()
        (number,) = superlink.clients
        with superlink.run() as post, superlink._control() as stranger:
            node.connect()
            asks: list[Callable[[], object]] = [
                lambda: stranger.ListNodes(ListNodesRequest()),
                lambda: stranger.UnregisterNode(UnregisterNodeRequest(node_id=number)),
                lambda: stranger.StopRun(StopRunRequest(run_id=post._run_id)),
            ]
            for ask in asks:
                with pytest.raises(httpx.HTTPStatusError, match="404"):
                    ask()
            assert post.nodes() == {number}
    finally:
        node.close()
        superlink.stop()


def test_a_certificate_that_has_run_out_is_not_blamed_on_the_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trustformer.flower.keys.DAYS", -0.02)
    make_tls(tmp_path / "tls", ["127.0.0.1"])
    make_node_key(tmp_path / "node.key", tmp_path / "node.pub")
    superlink = SuperLink(tmp_path / "superlink", free_address(), tmp_path / "tls", {"0": tmp_path / "node.pub"})
    try:
        with pytest.raises(TrustformerError, match="expired") as refused:
            superlink.start()
        assert "the clock of this machine" in refused.value.hint
    finally:
        superlink.stop()


@pytest.mark.parametrize("listen", ["[::1]", "[::]"])
def test_a_client_comes_over_ipv6(tmp_path: Path, listen: str) -> None:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
            port = probe.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6")
    node = _node(tmp_path, f"[::1]:{port}", "::1")
    superlink = SuperLink(tmp_path / "superlink", f"{listen}:{port}", tmp_path / "tls", {"0": tmp_path / "node.pub"})
    try:
        superlink.start()
        node.connect()
        assert node.receive() is None
    finally:
        node.close()
        superlink.stop()


def test_a_port_that_is_taken_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trustformer.flower.superlink._PORT_SECONDS", 0.2)
    make_tls(tmp_path / "tls", ["127.0.0.1"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(TrustformerError, match=f"cannot listen on {address}: Address already in use"):
            SuperLink(tmp_path / "superlink", address, tmp_path / "tls", {}).start()


def test_an_address_that_is_not_of_this_machine_is_named_at_once(tmp_path: Path, pauses: list[float]) -> None:
    make_tls(tmp_path / "tls", ["127.0.0.1"])
    for address in ("192.0.2.1:9443", "nobody.invalid:9443"):
        with pytest.raises(TrustformerError, match=f"cannot listen on {address}: ") as refused:
            SuperLink(tmp_path / "superlink", address, tmp_path / "tls", {}).start()
        assert "an address of this machine" in refused.value.hint


def test_a_strangers_bundle_in_the_middle_of_a_request_is_refused_and_the_answer_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float]
) -> None:
    node, said, came = _node(tmp_path, "127.0.0.1:1"), [], iter([BundleError("run 7 brings another"), None])

    def receive() -> None:
        one = next(came, LostError("gone"))
        if one is not None:
            raise one

    monkeypatch.setattr(node, "receive", receive)
    with pytest.raises(LostError, match="gone"):
        Conversation(node, 100.0, said.append)._wait(100.0)
    assert said == ["refused: run 7 brings another"]


def test_a_damaged_certificate_is_named_before_anything_is_asked(tmp_path: Path) -> None:
    make_tls(tmp_path / "tls", ["127.0.0.1"])
    make_node_key(tmp_path / "node.key", tmp_path / "node.pub")
    for damaged in (b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"):
        (tmp_path / "ca.crt").write_bytes(damaged)
        with pytest.raises(ConfigError, match="TLS file"):
            Node("127.0.0.1:1", tmp_path / "ca.crt", tmp_path / "node.key", "0" * 64, tmp_path / "node.id", 2**20)


@pytest.mark.parametrize(
    "kind", [AttestationError, ConfigError, DataError, TrustformerError, RoundsGoneError, SealError]
)
def test_what_the_host_says_is_its_word_and_no_verdict_of_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pauses: list[float], kind: type[TrustformerError]
) -> None:
    """A host that sends a refusal could have an owner pin what it likes."""
    line, answers = Conversation(node := _node(tmp_path, "127.0.0.1:1"), 100.0, print), []
    monkeypatch.setattr(node, "receive", lambda: answers.pop(0))
    monkeypatch.setattr(node, "reply", lambda message, parcel: answers.append(message_of(told(parcel.call))))

    def told(call: int) -> Parcel:
        return Parcel("error", call=call, body=enc(kind.__name__, "MRENCLAVE is not listed", "pin another"))

    answers.append(message_of(Parcel("take part", 1)))
    line.command()
    with pytest.raises(TrustformerError, match="the host answered: MRENCLAVE is not listed") as caught:
        line.hello(b"hello")
    assert caught.value.exit_code == 1
    assert not caught.value.hint
    assert isinstance(caught.value, kind if kind in (RoundsGoneError, SealError) else ProtocolError)
