# SPDX-License-Identifier: Apache-2.0
"""Counts the bytes really handed to the transport, per client, direction, kind and round."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Direction = Literal["up", "down"]


@dataclass(frozen=True)
class Entry:
    """One message: `bytes` is its length after sealing."""

    round: int
    client: str
    direction: Direction
    kind: str
    bytes: int


class Ledger:
    """An append-only file of entries. A crash loses at most the line being written.

    Args:
        path: the file; entries that are there already count.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.round = 0
        self.entries: list[Entry] = []
        if path.exists():
            self.entries = [Entry(**json.loads(line)) for line in whole_lines(path)]

    def add(self, client: str, direction: Direction, kind: str, size: int) -> None:
        """Count one message of `size` bytes in the current round; raises `OSError` naming the file."""
        entry = Entry(self.round, client, direction, kind, size)
        append(self._path, json.dumps(vars(entry)))
        self.entries.append(entry)

    def total(self, direction: Direction, rounds: Iterable[int] | None = None) -> dict[str, int]:
        """Bytes by client in one direction, of all rounds or of some."""
        chosen = None if rounds is None else set(rounds)
        totals: dict[str, int] = {}
        for entry in self.entries:
            if entry.direction == direction and (chosen is None or entry.round in chosen):
                totals[entry.client] = totals.get(entry.client, 0) + entry.bytes
        return totals

    @property
    def uploads(self) -> int:
        """How many updates were sent, those that were sent again included."""
        return sum((entry.direction, entry.kind) == ("up", "upload") for entry in self.entries)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Have an `OSError` name the file: that of a write on a full disk does not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def append(path: Path, line: str) -> None:
    """Add a line to a file, whole or not at all; raises `OSError` naming the file."""
    data = line.encode() + b"\n"
    with named(path), open(path, "ab", buffering=0) as file:
        end = file.tell()
        if file.write(data) != len(data):  # the disk became full on the way
            file.truncate(end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def whole_lines(path: Path) -> list[bytes]:
    """Return the lines of an append-only file; a last one without its end, left by a crash, is cut off."""
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return whole.splitlines()
