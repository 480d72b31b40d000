# SPDX-License-Identifier: Apache-2.0
"""What a person sees while a run goes on: a live line in a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from trustformer.data.progress import progress_to

_PLAIN_EVERY = 10.0
"""Seconds between plain progress lines of one task."""
_MOST_ROWS = 12


class Reporter(Protocol):
    """Shows notes and progress."""

    def note(self, text: str) -> None:
        """Show one line that stays."""
        ...

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Show how far the current task is; another `what` begins another task. `total` is 0 where nobody knows it."""
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
        if not total:
            if now - shown >= _PLAIN_EVERY:
                self.note(f"  {what}: {done:,} {unit}")
                self._tasks[what] = (started, now, base)
        elif done >= total:
            del self._tasks[what]
        elif now - shown >= _PLAIN_EVERY and done > base:
            rate = (done - base) / (now - started)
            speed = f"{rate:,.0f}/s" if rate >= 1 else f"{60 * rate:.1f}/min"
            self.note(f"  {what}: {done:,} of {total:,} {unit} ({speed}, {duration((total - done) / rate)} left)")
            self._tasks[what] = (started, now, base)

    def overall(self, done: int, total: int) -> None:
        """Nothing: each round leaves a note."""


class RichReporter:
    """One screen that stays where it is: a bar for the rounds, below it a line for each client and task.

    Notes scroll above it. What a client does changes within its line; lines neither jump nor vanish while a run goes
    on. Use as a context manager.

    Args:
        console: where to; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        bar = BarColumn(bar_width=20, complete_style="default", finished_style="dim", pulse_style="default")
        self._progress = Progress(
            *(_column("{task.description}", 10), _column("{task.fields[step]}", 10), bar),
            *(_column("{task.fields[rate]}", 15, "right"), _Left()),
            console=console or Console(stderr=True),
            transient=True,
            refresh_per_second=4,
            speed_estimate_period=600,
        )
        self._rows: dict[str, TaskID] = {}
        self._rounds: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self._progress.stop()

    def note(self, text: str) -> None:
        """Print above the screen."""
        self._progress.console.print(text, highlight=False, markup=False)

    def progress(self, what: str, done: int, total: int, unit: str = "") -> None:
        """Show a task in its line: of `client 0 · training` the first part names the line, the rest the step."""
        name, _, step = what.partition(" · ")
        task = self._row(name)
        if task.fields["step"] != step or done < task.completed:
            self._progress.reset(task.id, total=total, step=step, rate="")
        if not total:
            task.total = None  # rich takes None for "as it was"
            self._progress.update(task.id, completed=done, rate=f"{done:,} {unit}")
            return
        speed = f"{task.speed:,.0f} {unit}/s" if unit and task.speed and task.speed >= 1 and done < total else ""
        self._progress.update(task.id, completed=done, total=total, rate=speed)

    def overall(self, done: int, total: int) -> None:
        """Move the upper bar; lines of what came before the first round make room for it."""
        if self._rounds is None:
            for task in self._rows.values():
                self._progress.remove_task(task)
            self._rows.clear()
            self._rounds = self._progress.add_task("rounds", total=total, completed=done, step="", rate="")
        self._progress.update(self._rounds, completed=done, step=f"{done} of {total}")

    def _row(self, name: str) -> Task:
        """The line of this name; where there are too many, the oldest that is done makes room."""
        if name not in self._rows:
            tasks = {task.id: task for task in self._progress.tasks}
            idle = [other for other, task in self._rows.items() if tasks[task].finished]
            if len(self._rows) >= _MOST_ROWS and idle:
                self._progress.remove_task(self._rows.pop(idle[0]))
            self._rows[name] = self._progress.add_task(name, step="", rate="")
        return next(task for task in self._progress.tasks if task.id == self._rows[name])


def duration(seconds: float) -> str:
    """Return seconds as text, in the coarsest unit that still says something: 90 s, 59 min, 3 h."""
    units = ((3600, "h"), (60, "min"), (1, "s"))
    size, unit = next((size, unit) for size, unit in units if seconds >= 2 * size or size == 1)
    return f"{seconds / size:,.0f} {unit}"


@contextmanager
def reporting(*, live: bool = True) -> Iterator[Reporter]:
    """A live screen in a terminal and plain lines elsewhere; it is told of long steps over data too.

    Args:
        live: False for plain lines everywhere.
    """
    with ExitStack() as stack:
        reporter: Reporter = PlainReporter()
        if live and sys.stderr.isatty():
            reporter = stack.enter_context(RichReporter())
        stack.enter_context(progress_to(reporter.progress))
        yield reporter


def _column(text: str, width: int, justify: JustifyMethod = "left") -> TextColumn:
    """A column that does not move when a text of usual length in it changes."""
    return TextColumn(text, justify=justify, table_column=Column(min_width=width, no_wrap=True))


class _Left(ProgressColumn):
    """Time left, in the coarsest unit that still says something."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        if task.finished or left is None or left < 1:
            return Text("")
        return Text(f"{duration(left)} left", style="dim")
