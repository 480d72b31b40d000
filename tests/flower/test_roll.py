# SPDX-License-Identifier: Apache-2.0
"""How `serve` names who is not there, with few clients and with many."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from trustformer.flower.roll import absent, lacking, names
from trustformer.flower.switchboard import Line


def _line(client: str, **state: Any) -> Line:
    return Line(1, client, None, **state)  # type: ignore[arg-type]


def test_who_never_came_and_who_went_are_told_apart_with_since_when_and_until_when() -> None:
    now = time.monotonic()
    lines = [
        _line("a"),
        _line("b", since=now - 50, said="Measurement"),
        _line("c", online=True, since=now - 60),
        _line("d", since=now - 20),
    ]
    assert absent(lines, now - 100, 3500.0) == (
        "; not seen yet in 100 s, waited for 58 min more: a; offline: b (for 50 s, said 'Measurement'), d (for 20 s)"
    )
    assert absent(lines[2:3], now - 100, 3500.0) == ""
    assert lacking(lines, {"d"}) == "a (not seen yet), b (offline, said 'Measurement'), c (online)"


def test_a_line_stays_short_with_ten_thousand_clients() -> None:
    lines = [_line(f"{i:04}") for i in range(10_000)]
    assert names(line.client for line in lines) == ", ".join(f"{i:04}" for i in range(12)) + " and 9,988 more"
    assert len(absent(lines, 0.0, 1.0)) < 200
    assert len(lacking(lines, set())) < 300


def test_what_a_client_says_cannot_break_a_line() -> None:
    line = _line("a", since=time.monotonic(), said="\x1b[2J\nround 9 of 9: combined a")
    assert "\n" not in absent([line], 0.0, 1.0)
    assert "\x1b" not in absent([line], 0.0, 1.0)
