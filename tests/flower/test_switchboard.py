# SPDX-License-Identifier: Apache-2.0
"""Who is asked again and when, what becomes of lost messages, and who shares the common model."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from trustformer.flower import switchboard
from trustformer.flower.parcel import Parcel
from trustformer.flower.switchboard import Switchboard


class Mailbox:
    """In the place of Flower: keeps what is sent, and hands out what a test puts in."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, Parcel]] = []
        self.answers: list[tuple[str, Parcel | None]] = []

    def nodes(self) -> set[int]:
        return {1, 2, 3}

    def send(self, node: int, parcel: Parcel) -> str:
        self.sent.append((node, parcel))
        return str(len(self.sent))

    def replies(self, sent: Mapping[str, int]) -> list[tuple[str, Parcel | None]]:
        ready, self.answers = [answer for answer in self.answers if answer[0] in sent], []
        return ready


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the switchboard takes for the time: `now`."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(switchboard, "time", SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def _board(box: Mailbox, probe: float, current: frozenset[str] = frozenset()) -> Switchboard:
    record: Any = SimpleNamespace(current=current, heard=lambda *_: None, status=lambda *_: None)
    link: Any = SimpleNamespace(hello=lambda _: b"welcome")
    host: Any = SimpleNamespace(link=lambda _: link, limit=100)
    post: Any = box
    return Switchboard(post, {1: "a", 2: "b", 3: "c"}, host, probe=probe, record=record, note=lambda _: None)


def test_a_client_that_fails_for_hours_is_asked_again_every_ten_seconds(clock: SimpleNamespace) -> None:
    box, online = Mailbox(), {1}
    box.nodes = lambda: set(online)  # type: ignore[method-assign]
    board, ask = _board(box, 1e9), Parcel("take part", 1)
    for _ in range(1600):
        board.command(ask, set())
        box.answers = [(str(len(box.sent)), Parcel("failed", note="ProtocolError"))]
        board.pump()
        clock.now += 10.0
    assert len(box.sent) == 1600
    board.command(ask, set())
    box.answers = [(str(len(box.sent)), Parcel("failed", note="ProtocolError"))]
    board.pump()
    for here in (set(), {1}):  # a process that a service manager starts again and again
        online = here
        clock.now += 2.0
        board.command(ask, set())
    assert len(box.sent) == 1601
    clock.now += 6.0
    board.command(ask, set())
    assert len(box.sent) == 1602


def test_a_client_is_asked_whether_it_began_anew_after_such_a_question_was_lost(clock: SimpleNamespace) -> None:
    box, ask = Mailbox(), Parcel("take part", 1)
    board = _board(box, 5.0)
    board.command(ask, {"b", "c"})
    clock.now += 6.0
    board.command(ask, {"b", "c"})
    box.answers = [("1", Parcel("hello", call=7, body=b"hello"))]
    board.pump()
    box.answers = [("2", None)]
    board.pump()
    assert [parcel.kind for _, parcel in box.sent] == ["take part", "take part", "answer"]
    clock.now += 6.0
    board.command(ask, {"b", "c"})
    assert box.sent[3:] == [(1, ask)]


def test_only_a_client_that_waits_for_what_nobody_has_is_told_that_it_was_lost(clock: SimpleNamespace) -> None:
    box, ask, busy = Mailbox(), Parcel("take part", 1), Parcel("busy", call=7)
    board = _board(box, 5.0)
    board.command(ask, {"b", "c"})
    clock.now += 6.0
    board.command(ask, {"b", "c"})
    box.answers = [("2", busy)]  # before the request, which goes out as the reply to the first
    board.pump()
    assert len(box.sent) == 2
    box.answers = [("1", Parcel("hello", call=7, body=b"hello"))]
    board.pump()
    assert box.sent[2][1].kind == "answer"
    box.answers = [("3", None)]
    board.pump()
    board.command(ask, {"b", "c"})
    for idle in (Parcel("busy"), busy):  # it does something else, or waits for the answer
        box.answers = [(str(len(box.sent)), idle)]
        board.pump()
        clock.now += 6.0
        board.command(ask, {"b", "c"})
    assert [parcel.kind for _, parcel in box.sent[3:6]] == ["take part", "take part", "error"]
    assert box.sent[5][1].call == 7


def test_a_client_that_waits_for_a_sponsor_is_not_told_that_its_request_was_lost(clock: SimpleNamespace) -> None:
    box, ask = Mailbox(), Parcel("take part", 5)
    board = _board(box, 5.0, frozenset("bc"))
    board.command(ask, {"b", "c"})
    box.answers = [("1", Parcel("common", call=7, body=b"request"))]
    board.pump()
    clock.now += 6.0
    board.command(ask, {"b", "c"})
    box.answers = [("3", Parcel("busy", call=7))]
    board.pump()
    box.answers = [("2", Parcel("failed"))]
    board.pump()
    box.answers = [("4", Parcel("busy", call=8))]
    board.pump()
    kinds = [(parcel.kind, parcel.call) for _, parcel in box.sent]
    assert kinds == [("take part", 0), ("sponsor", 0), ("take part", 0), ("error", 7), ("error", 8)]


def test_a_sponsor_that_does_not_answer_is_given_up_and_another_one_asked(clock: SimpleNamespace) -> None:
    box = Mailbox()
    board = _board(box, 1e9, frozenset({"b", "c"}))
    board.command(Parcel("take part", 5), {"b", "c"})
    asked = []
    for call in (1, 2):
        to = str(max(number for number, (node, _) in enumerate(box.sent, 1) if node == 1))
        box.answers = [(to, Parcel("common", call=call, body=b"request"))]
        board.pump()
        node, parcel = box.sent[-1]
        assert (parcel.kind, parcel.body) == ("sponsor", b"request")
        asked.append(node)
        clock.now += 599.0
        board.command(Parcel("take part", 5), {"b", "c"})
        assert box.sent[-1] == (node, parcel)
        clock.now += 2.0
        board.command(Parcel("take part", 5), {"b", "c"})
        to_asker = box.sent[-1]
        assert (to_asker[0], to_asker[1].kind, to_asker[1].call) == (1, "error", call)
        late = str(len(box.sent) - 1)
        box.answers = [(late, Parcel("done", body=b"too late"))]
        board.pump()
        assert box.sent[-1] is to_asker
    assert asked == [2, 3]


def test_a_sponsor_whose_answers_are_rubbish_is_not_the_only_one_asked(clock: SimpleNamespace) -> None:
    box, ask, asked = Mailbox(), Parcel("take part", 9), set[int]()
    board = _board(box, 1e9, frozenset("bc"))
    link: Any = SimpleNamespace(ask_common=lambda request, answer: answer(request), answer_common=lambda reply: reply)
    for line in board.lines:
        line.link = link
    for call in (1, 2):
        board.command(ask, {"b", "c"})
        box.answers = [(str(len(box.sent)), Parcel("common", call=call, body=b"request"))]
        board.pump()
        asked.add(box.sent[-1][0])
        box.answers = [(str(len(box.sent)), Parcel("done", body=b"rubbish"))]
        board.pump()
        box.answers = [(str(len(box.sent)), Parcel("failed", note="MessageError"))]
        board.pump()
        clock.now += 20.0
    assert asked == {2, 3}
