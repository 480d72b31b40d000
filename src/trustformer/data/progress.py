# SPDX-License-Identifier: Apache-2.0
"""How far a long step over data is.

Readers nest too deeply for a callback in each signature, so who wants to know says so around the call: with
`progress_to`. Steps shorter than a second are not told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Tell = Callable[[str, int, int, str], None]
"""Gets what is done, how much of it, of how much (0: nobody knows), in which unit; as a reporter's `progress`."""

_Item = TypeVar("_Item")
_EVERY = 64  # items between two looks at the clock
_BLOCK = 512
_PATIENCE, _PAUSE = 1.0, 0.1  # seconds until a step is told of, and between two times
_TICK = 1.0
_listener: ContextVar[Tell | None] = ContextVar("listener", default=None)


@contextmanager
def progress_to(tell: Tell) -> Iterator[None]:
    """Tell `tell` of all long steps over data within the block."""
    token = _listener.set(tell)
    try:
        yield
    finally:
        _listener.reset(token)


def tracked(items: Sequence[_Item], step: str, unit: str = "pairs") -> Iterator[_Item]:
    """Iterate over `items` and tell how many are done."""
    tell = steps(step, len(items), unit)
    for done, item in enumerate(items):
        if not done % _EVERY:
            tell(done)
        yield item
    tell(len(items))


def blocks(items: Sequence[_Item], step: str, unit: str = "pairs") -> Iterator[Sequence[_Item]]:
    """As `tracked`, some hundred items at a time."""
    tell = steps(step, len(items), unit)
    for start in range(0, len(items), _BLOCK):
        tell(start)
        yield items[start : start + _BLOCK]
    tell(len(items))


def steps(step: str, total: int, unit: str) -> Callable[[int], None]:
    """Return what is to be called with how much is done, and at the end with `total`."""
    listener = _listener.get()
    due, shown = time.monotonic() + _PATIENCE, False

    def tell(done: int) -> None:
        nonlocal due, shown
        now = time.monotonic()
        if listener is not None and (shown if done >= total else now >= due):
            listener(f"data · {step}", done, total, unit)
            due, shown = now + _PAUSE, True

    return tell


@contextmanager
def clocked(step: str) -> Iterator[None]:
    """Tell every second how long a step has taken that says nothing about itself; it must let other threads run."""
    listener, started, over = _listener.get(), time.monotonic(), threading.Event()

    def tell() -> None:
        while listener is not None and not over.wait(_TICK):
            listener(f"data · {step}", int(time.monotonic() - started), 0, "s")

    thread = threading.Thread(target=tell, name="clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        if listener is not None and time.monotonic() - started > _PATIENCE:
            listener(f"data · {step}", 1, 1, "s")
