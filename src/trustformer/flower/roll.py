# SPDX-License-Identifier: Apache-2.0
"""Who is here and who is not, in the words of `serve`'s lines; however many clients there are, a line stays short."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from trustformer.experiment.reporter import duration
from trustformer.flower.switchboard import Line

_MOST = 12
"""Clients that one line names."""


def names(clients: Iterable[str]) -> str:
    """The first clients by name, and how many more there are."""
    every = list(clients)
    more = f" and {len(every) - _MOST:,} more" if len(every) > _MOST else ""
    return ", ".join(every[:_MOST]) + more


def lacking(lines: Iterable[Line], accepted: set[str]) -> str:
    """Who is not among `accepted`, each with how it stands."""
    return names(f"{line.client} ({_standing(line)})" for line in lines if line.client not in accepted)


def absent(lines: Sequence[Line], began: float, left: float) -> str:
    """Who is not online and since when, as the end of a line; empty where all are.

    Args:
        lines: of the clients it is about.
        began: when clients could first come, of `time.monotonic`.
        left: seconds for which those who have not been seen yet are waited for.
    """
    now, text = time.monotonic(), ""
    never = [line.client for line in lines if line.since is None]
    gone = [line for line in lines if line.since is not None and not line.online]
    if never:
        text += f"; not seen yet in {duration(now - began)}, waited for {duration(max(left, 0))} more: {names(never)}"
    if gone:
        since = {line.client: f"for {duration(now - (line.since or now))}" for line in gone}
        text += f"; offline: {names(f'{line.client} ({since[line.client]}{_said(line)})' for line in gone)}"
    return text


def _standing(line: Line) -> str:
    if line.online:
        return line.out or ("at work" if line.working else "online")
    return "not seen yet" if line.since is None else f"offline{_said(line)}"


def _said(line: Line) -> str:
    return f", said {line.said!r}" if line.said else ""
