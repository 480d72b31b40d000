# SPDX-License-Identifier: Apache-2.0
"""Keeps every message of a run for an audit: sealed as the host relays it, and opened as the enclave sees it.

    host.jsonl      a line a message: round, client, direction, kind, bytes, seconds since the run (re)started, file
    sealed/         the bytes of each line, as relayed
    opened/         updates and aggregates IN THE CLEAR: a lossy copy of what every client's text did to its weights

A deployment never has `opened/`: there these bytes exist in clients and in the enclave only.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from trustformer.enclave.protocol import NO_HASH, Manifest
from trustformer.federation.channel import Channel, Position
from trustformer.federation.host import Host, Link
from trustformer.federation.ledger import Direction, Ledger, append, named, whole_lines
from trustformer.message import Aggregate, Update

_NOTE = """\
Messages of this run IN THE CLEAR, kept because record_messages is set, for `trustformer attack`.
They say much about the training text: protect this folder like the text itself, and delete it after the audit.
"""


class Tap:
    """Writes the record.

    Args:
        folder: of the record; what is there already is kept.
        ledger: knows the current round.
    """

    def __init__(self, folder: Path, ledger: Ledger) -> None:
        self._folder, self._ledger, self._started = folder, ledger, time.monotonic()
        for name in ("sealed", "opened"):
            (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / "opened" / "README").write_text(_NOTE, "utf-8")
        self._index = folder / "host.jsonl"
        self._count = len(whole_lines(self._index)) if self._index.exists() else 0

    def relayed(self, client: str, direction: Direction, kind: str, data: bytes) -> None:
        """Keep one message as the host carries it."""
        name = f"sealed/{self._count:06d}.bin"
        _replace(self._folder / name, data)
        entry = {
            "round": self._ledger.round,
            "client": client,
            "direction": direction,
            "kind": kind,
            "bytes": len(data),
            "seconds": round(time.monotonic() - self._started, 4),
            "file": name,
        }
        append(self._index, json.dumps(entry))
        self._count += 1

    def opened(self, name: str, data: bytes) -> None:
        """Keep one message in the clear."""
        _replace(self._folder / "opened" / name, data)


class TappedLink(Link):
    """A connection whose messages are kept."""

    def __init__(self, host: Host, client_id: str, ledger: Ledger, tap: Tap) -> None:
        super().__init__(host, client_id, ledger)
        self._tap = tap

    def _up(self, kind: str, data: bytes) -> bytes:
        self._tap.relayed(self._client, "up", kind, data)
        return super()._up(kind, data)

    def _down(self, kind: str, data: bytes) -> bytes:
        self._tap.relayed(self._client, "down", kind, data)
        return super()._down(kind, data)


class TappedChannel(Channel):
    """A client's conversation whose updates and aggregates are kept in the clear."""

    tap: Tap

    def upload(self, update: Update) -> str:
        """As `Channel.upload`."""
        self.tap.opened(f"round-{update.round:05d}-client-{self.client_id}.update", update.to_bytes())
        return super().upload(update)

    def sync(self, position: Position, acknowledged: bytes = NO_HASH) -> Iterator[tuple[Manifest, Aggregate]]:
        """As `Channel.sync`."""
        for manifest, aggregate in super().sync(position, acknowledged):
            self.tap.opened(f"round-{manifest.round:05d}.aggregate", aggregate.to_bytes())
            yield manifest, aggregate


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".new")
    with named(temporary):
        temporary.write_bytes(data)
    os.replace(temporary, path)
