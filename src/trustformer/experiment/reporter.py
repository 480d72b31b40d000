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
        self._tasks: dict[str, tuple[float, float, int]] = {}  # started, last shown, done when started

    def note(self, text: str) -> None:
        """Print the note."""
        print(text, file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Print at most one line in ten seconds for each task."""
        now = time.monotonic()
        started, shown, base = self._tasks.setdefault(what, (now, now, done))
        if done >= total:
            del self._tasks[what]
        elif now - shown >= _PLAIN_EVERY and done > base:
            rate = (done - base) / (now - started)
            speed = f"{rate:,.0f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
            self.note(f"  {what}: {done:,} of {total:,} {unit} ({speed}, {(total - done) / rate:,.0f} s left)")
            self._tasks[what] = (started, now, base)

    def overall(self, done: int, total: int) -> None:
        """Nothing: each round leaves a note."""


class RichReporter:
    """A bar for the rounds and one for each task at hand; notes scroll above. Use as a context manager."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24))
        numbers = TextColumn("{task.fields[numbers]}")
        self._progress = Progress(
            *columns, numbers, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), transient=True
        )
        self._rounds: TaskID | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print above the bars."""
        self._progress.console.print(text, highlight=False, markup=False)

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Move the task's own bar; it goes when the task is done."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total, numbers="")
        task = next(task for task in self._progress.tasks if task.id == self._tasks[what])
        rate = f"{task.speed:,.0f} {unit}/s" if task.speed and task.speed >= 1 else f"{done}/{total} {unit}"
        rate = rate if unit else ""
        self._progress.update(task.id, completed=done, total=total, numbers=rate)
        if done >= total:
            self._progress.remove_task(self._tasks.pop(what))

    def overall(self, done: int, total: int) -> None:
        """Move the upper bar."""
        if self._rounds is None:
            self._rounds = self._progress.add_task("rounds", total=total, numbers="")
        self._progress.update(self._rounds, completed=done, total=total, numbers=f"{done}/{total}")
