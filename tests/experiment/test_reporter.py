# SPDX-License-Identifier: Apache-2.0
"""The live screen keeps its lines; plain lines are few."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from trustformer.experiment import reporter as reporter_module
from trustformer.experiment.reporter import PlainReporter, RichReporter, duration


def screen(reporter: RichReporter) -> list[str]:
    """Lines of the screen as a terminal of eighty characters shows them now."""
    console = Console(file=io.StringIO(), width=80, force_terminal=False)
    console.print(reporter._progress.get_renderable())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def terminal() -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=True)


def test_lines_stay_where_they_are_through_rounds() -> None:
    with RichReporter(terminal()) as reporter:
        for number in range(3):
            reporter.overall(number, 3)
            for client in ("0", "1"):
                reporter.progress(f"client {client} · training", 50, 100, "tokens")
                reporter.progress(f"client {client} · training", 100, 100, "tokens")
                reporter.progress(f"client {client} · sending", 0, 1)
            lines = screen(reporter)
            assert [line.split()[:2] for line in lines[:3]] == [
                ["rounds", str(number)],
                ["client", "0"],
                ["client", "1"],
            ]
            assert "sending" in lines[2]
            reporter.progress("validation · common", 10, 10, "pairs")
        assert [line.split()[0] for line in screen(reporter)] == ["rounds", "client", "client", "validation"]
        assert all(len(line) <= 80 for line in screen(reporter))


def test_a_duration_is_in_the_coarsest_unit_that_still_says_something() -> None:
    assert [duration(seconds) for seconds in (0, 90, 3557, 3 * 3600)] == ["0 s", "90 s", "59 min", "3 h"]


def test_what_came_before_the_rounds_makes_room_for_them() -> None:
    with RichReporter(terminal()) as reporter:
        reporter.progress("data · reading", 50, 100, "kB")
        reporter.progress("data · tokenising", 100, 100, "sentences")
        assert [line.split()[:2] for line in screen(reporter)] == [["data", "tokenising"]]
        reporter.overall(0, 3)
        reporter.progress("client 0 · training", 50, 100, "tokens")
        assert [line.split()[0] for line in screen(reporter)] == ["rounds", "client"]
        reporter.progress("data · reading", 50, 100, "kB")
        assert [line.split()[0] for line in screen(reporter)] == ["rounds", "client", "data"]


def test_a_task_under_way_says_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    with RichReporter(terminal()) as reporter:
        reporter._progress.get_time = lambda: clock[0]
        for done in range(0, 5001, 1000):
            reporter.progress("client 0 · training", done, 605_000, "tokens")
            clock[0] += 1.0
        (line,) = screen(reporter)
        assert "1,000 tokens/s" in line
        assert "10 min left" in line
        reporter.progress("client 0 · encoding", 0, 1)
        assert "left" not in screen(reporter)[0]


def test_a_hundred_clients_do_not_fill_the_screen() -> None:
    with RichReporter(terminal()) as reporter:
        for client in range(100):
            reporter.progress(f"client {client} · training", 1, 1, "tokens")
        lines = screen(reporter)
        assert len(lines) == 12
        assert lines[-1].startswith("client 99")


def test_notes_stay_above_the_screen() -> None:
    console = terminal()
    with RichReporter(console) as reporter:
        reporter.overall(1, 2)
        reporter.note("round 1/2  [loss] 3.2")
    assert "round 1/2  [loss] 3.2" in console.file.getvalue()  # type: ignore[attr-defined]


def test_plain_lines_come_at_most_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("trustformer.experiment.reporter.time.monotonic", lambda: clock[0])
    reporter = PlainReporter()
    for done in range(0, 31):
        clock[0] = float(done)
        reporter.progress("client 0 · training", done * 100, 6000, "tokens")
    assert capsys.readouterr().err.splitlines() == [
        "  client 0 · training: 1,000 of 6,000 tokens (100/s, 50 s left)",
        "  client 0 · training: 2,000 of 6,000 tokens (100/s, 40 s left)",
        "  client 0 · training: 3,000 of 6,000 tokens (100/s, 30 s left)",
    ]


def test_a_task_of_unknown_length_shows_its_clock(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with RichReporter(terminal()) as reporter:
        reporter.progress("data · reading", 5, 10, "pairs")
        for second in (1, 2, 75):
            reporter.progress("data · vocabulary", second, 0, "s")
            (line,) = screen(reporter)
            assert line.split()[:2] == ["data", "vocabulary"]
            assert line.split()[-2:] == [str(second), "s"]
        reporter.progress("data · vocabulary", 1, 1, "s")
        (line,) = screen(reporter)
        assert line.split()[-1] != "s"
    now = [0.0]
    monkeypatch.setattr(reporter_module.time, "monotonic", lambda: now[0])
    plain = PlainReporter()
    for second in range(1, 26):
        now[0] = float(second)
        plain.progress("data · vocabulary", second, 0, "s")
    plain.progress("data · vocabulary", 1, 1, "s")
    assert capsys.readouterr().err.splitlines() == ["  data · vocabulary: 11 s", "  data · vocabulary: 21 s"]
