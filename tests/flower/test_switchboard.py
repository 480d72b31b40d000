# SPDX-License-Identifier: Apache-2.0
"""Who shares the common model, and what becomes of one that does not answer."""

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


def test_a_sponsor_that_does_not_answer_is_given_up_and_another_one_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, box = SimpleNamespace(now=0.0), Mailbox()
    monkeypatch.setattr(switchboard, "time", SimpleNamespace(monotonic=lambda: clock.now))
    record: Any = SimpleNamespace(current={"b", "c"}, heard=lambda *_: None)
    host: Any = SimpleNamespace(link=lambda _: None, limit=100)
    board = Switchboard(
        box,
        {1: "a", 2: "b", 3: "c"},
        host,
        probe=1e9,
        record=record,
        note=lambda _: None,  # type: ignore[arg-type]
    )
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
