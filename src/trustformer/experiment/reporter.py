# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a run goes on: a live line in a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_PLAIN_EVERY = 10.0
"""Seconds between plain progress lines of one task."""


class Reporter(Protocol):
    """Shows notes and progress."""

    def note(self, text: str) -> None:
        """Show one line that stays."""
        ...

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Show how far the current task is; another `what` begins another task."""
        ...

    def overall(self, done: int, total: int) -> None:
        """Show how many rounds are done."""
        ...


class PlainReporter:
    """One line a note, and for long tasks one line every ten seconds with rate and time left."""

    def __init__(self) -> None:
        self._what, self._started, self._shown, self._base = "", 0.0, 0.0, 0

    def note(self, text: str) -> None:
        """Print the note."""
        print(text, file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Print at most one line in ten seconds."""
        now = time.monotonic()
        if what != self._what:
            self._what, self._started, self._shown, self._base = what, now, now, done
        elif now - self._shown >= _PLAIN_EVERY and done > self._base:
            rate = (done - self._base) / (now - self._started)
            left = f"{(total - done) / rate:,.0f} s left"
            self.note(f"  {what}: {done:,} of {total:,} {unit} ({rate:,.0f}/s, {left})".replace("  (", " ("))
            self._shown = now

    def overall(self, done: int, total: int) -> None:
        """Nothing: each round leaves a note."""


class RichReporter:
    """Two bars, rounds and the current task; notes scroll above them. Use as a context manager."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24))
        numbers = TextColumn("{task.fields[numbers]}")
        self._progress = Progress(
            *columns, numbers, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
        )
        self._rounds: TaskID | None = None
        self._task: tuple[str, TaskID] | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print above the bars."""
        self._progress.console.print(text, highlight=False, markup=False)

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Move the lower bar."""
        if self._task is None or self._task[0] != what:
            if self._task is not None:
                self._progress.remove_task(self._task[1])
            self._task = (what, self._progress.add_task(what, total=total, numbers=""))
        task = next(t for t in self._progress.tasks if t.id == self._task[1])
        rate = f"{task.speed:,.0f} {unit}/s" if task.speed and unit else ""
        self._progress.update(self._task[1], completed=done, total=total, numbers=rate)

    def overall(self, done: int, total: int) -> None:
        """Move the upper bar."""
        if self._rounds is None:
            self._rounds = self._progress.add_task("rounds", total=total, numbers="")
        self._progress.update(self._rounds, completed=done, total=total, numbers=f"{done}/{total}")
