# SPDX-License-Identifier: Apache-2.0
"""Kills runs at chosen calls, resumes them, and says what came of it. Started by test_kill.py as a process.

Usage: kill_harness.py FOLDER SEED POINTS KEY=VALUE...

It imports everything once; each run is a fork. The result is FOLDER/verdicts.json.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch

import trustformer.federation.store as store_module
from trustformer.enclave.session import Enclave
from trustformer.enclave.state import StateStore
from trustformer.experiment.config import load_config
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run
from trustformer.federation.client import Client
from trustformer.federation.host import Host
from trustformer.federation.ledger import Ledger
from trustformer.federation.store import ClientStore
from trustformer.models.seq2seq import PRESETS

Tear = Callable[[tuple[Any, ...]], None]


def tear_file(path: str | Path) -> None:
    """What a kill in the middle of a write leaves: the first half."""
    os.truncate(path, os.path.getsize(path) // 2)


def tear_open(descriptor: int) -> None:
    """The same of a file that is open; a folder is not written in halves."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        os.ftruncate(descriptor, status.st_size // 2)


TARGETS: dict[str, tuple[Any, str]] = {
    "fsync": (os, "fsync"),
    "replace": (os, "replace"),
    "state": (StateStore, "save"),
    "write": (RunDirectory, "write"),
    "add_round": (RunDirectory, "add_round"),
    "client_save": (ClientStore, "save"),
    "safetensors": (store_module, "save_file"),
    "ledger": (Ledger, "add"),
    "write_bytes": (Path, "write_bytes"),
    "upload": (Enclave, "upload"),
    "close": (Enclave, "close"),
    "sync": (Enclave, "sync"),
    "keep": (Host, "_keep"),
    "adopt": (Client, "adopt"),
    "train": (Client, "train"),
    "ask_common": (Client, "ask_common"),
}
# What is torn, from the arguments of the call; done before an fsync and after all others.
TEARS: dict[str, Tear] = {
    "fsync": lambda arguments: tear_open(arguments[0]),
    "safetensors": lambda arguments: tear_file(arguments[1]),
    "ledger": lambda arguments: os.truncate(arguments[0]._path, os.path.getsize(arguments[0]._path) - 7),
    "write_bytes": lambda arguments: tear_file(arguments[0]),
}


class Point(NamedTuple):
    """Die `when` (before, after, torn) at the `call`-th call of `target`."""

    target: str
    when: str
    call: int


def install(counts: Counter[str], point: Point | None) -> None:
    """Count the calls of all targets, and die at one."""
    for name, (owner, attribute) in TARGETS.items():
        setattr(owner, attribute, wrapped(name, getattr(owner, attribute), counts, point))


def wrapped(name: str, inner: Callable[..., Any], counts: Counter[str], point: Point | None) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        counts[name] += 1
        here = point is not None and point.target == name and point.call == counts[name]
        when = point.when if point is not None and here else ""
        if when == "before" or (when == "torn" and name == "fsync"):
            if when == "torn":
                TEARS[name](arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        result = inner(*arguments, **named)
        if when in ("after", "torn"):
            if when == "torn":
                TEARS[name](arguments)
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return call


def fork_run(settings: list[str], out: Path, point: Point | None) -> str:
    """Run in a child with --resume; return `done`, `killed` or `failed`, with its calls in counts.json."""
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            log = os.open(out.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 2)
            counts: Counter[str] = Counter()
            install(counts, point)
            run(load_config(None, settings), out, PlainReporter(), resume=True)
            with open(out.with_suffix(".counts"), "w", encoding="utf-8") as file:
                json.dump(counts, file)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return "killed"
    return "done" if status == 0 else "failed"


def choose(counts: dict[str, int], seed: int, number: int) -> list[list[Point]]:
    """Seeded points: every kind of death in turn, at a random call; every fifth run is killed twice."""
    rng = Random(seed)
    names = [name for name in TARGETS if counts.get(name)]
    rng.shuffle(names)
    ways = {name: ["torn"] if name in TEARS else rng.sample(["before", "after"], 2) for name in names}
    kinds = [(name, ways[name][0]) for name in names] + [(name, ways[name][1]) for name in names if name not in TEARS]
    # First in the middle of the very first file and of the first keys.
    chosen = [[Point("fsync", "torn", 1), Point("fsync", "torn", 3)], [Point("fsync", "torn", rng.randint(4, 12))]]
    for index in range(number - len(chosen)):
        name, when = kinds[index % len(kinds)]
        points = [Point(name, when, rng.randint(1, counts[name]))]
        if index % 5 == 4:
            again, how = rng.choice(kinds)
            points.append(Point(again, how, rng.randint(1, max(1, counts[again] // 4))))
        chosen.append(points)
    return chosen


def outcome(out: Path) -> dict[str, Any]:
    result = json.loads((out / "result.json").read_text("utf-8"))
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text("utf-8").splitlines()]
    return {
        **{key: result[key] for key in ("weights_digest", "common_digest", "nll", "nll_common", "bleu_per_client")},
        "rounds": [
            {key: record[key] for key in ("round", "present", "late", "loss", "valid_nll")} for record in rounds
        ],
        "files": sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()),
        "ledger": len(Ledger(out / "ledger.jsonl").entries) > 0,
    }


def main(folder: Path, seed: int, number: int, settings: list[str]) -> None:
    PRESETS["tiny"] = {"d_model": 32, "layers": 1, "heads": 2, "ffn": 64}
    torch.set_num_threads(1)
    assert fork_run(settings, folder / "whole", None) == "done"
    counts = json.loads((folder / "whole.counts").read_text("utf-8"))
    verdicts = []
    for index, points in enumerate(choose(counts, seed, number)):
        out = folder / f"run{index}"
        ends = [fork_run(settings, out, point) for point in points]
        ends.append(fork_run(settings, out, None))
        verdicts.append(
            {
                "points": ["{} {} call {}".format(*point) for point in points],
                "ends": ends,
                "outcome": outcome(out) if ends[-1] == "done" else None,
                "log": out.with_suffix(".log").read_text("utf-8", "replace")[-2000:],
            }
        )
    report = {"counts": counts, "whole": outcome(folder / "whole"), "verdicts": verdicts}
    (folder / "verdicts.json").write_text(json.dumps(report, indent=1), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
