# SPDX-License-Identifier: Apache-2.0
"""The ledger and the receipts: append-only, and whole again after a crash in the middle of a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Party

from full_disk import small_files
from trustformer.federation.ledger import Entry, Ledger, append


def test_entries_survive_and_add_up(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.add("0", "up", "hello", 5)
    ledger.round = 2
    ledger.add("0", "up", "upload", 70)
    ledger.add("1", "up", "upload", 80)
    ledger.add("1", "down", "sync", 9)
    again = Ledger(path)
    assert again.entries == ledger.entries
    assert again.total("up") == {"0": 75, "1": 80}
    assert again.total("up", [2]) == {"0": 70, "1": 80}
    assert again.total("down", [1]) == {}


@pytest.mark.parametrize("left", range(1, 30))
def test_a_line_cut_by_a_crash_is_dropped_and_no_other(tmp_path: Path, left: int) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    for size in (1, 2, 3):
        ledger.add("0", "up", "hello", size)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][:left])
    again = Ledger(path)
    again.add("0", "up", "hello", 4)
    assert [entry.bytes for entry in again.entries] == [1, 2, 4]
    assert Ledger(path).entries == again.entries


def test_receipts_go_on_with_a_line_of_their_own(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1)
    path = play.folder / "receipts.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    play.restarted().play(2)
    receipts = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert len(receipts) == 5


def test_every_message_is_counted_once(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1)
    kinds = {(entry.kind, entry.direction) for entry in play.federation.ledger.entries}
    assert kinds == {(kind, way) for kind in ("hello", "upload", "sync") for way in ("up", "down")}
    counted = [entry for entry in play.federation.ledger.entries if entry.kind == "upload"]
    assert len(counted) == 6
    assert play.federation.ledger.uploads == 3
    assert isinstance(counted[0], Entry)


def test_a_line_that_does_not_fit_is_not_there_and_the_file_is_named(tmp_path: Path) -> None:
    path, lines = tmp_path / "receipts.jsonl", []
    full = None
    with small_files(1000):
        while full is None and len(lines) < 100:
            try:
                append(path, json.dumps({"number": len(lines), "text": "x" * len(lines)}))
                lines.append(len(lines))
            except OSError as error:
                full = error
    assert "receipts" in str(full)
    append(path, json.dumps({"number": -1}))
    assert [json.loads(line)["number"] for line in path.read_text("utf-8").splitlines()] == [*lines, -1]
