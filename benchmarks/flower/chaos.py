# SPDX-License-Identifier: Apache-2.0
"""A deployment under attack by chance: each run must end in the weights that `trustformer run` gives.

    OMP_NUM_THREADS=1 python benchmarks/flower/chaos.py --runs 30        (as root; a minute or two a run on two cores)

Three clients, three rounds and a closing exchange, over TLS with authentication of nodes. Every run draws from its
seed: one SIGKILL each of a client, the enclave, the SuperLink and `serve` (the relay); in every round each client is
gone with a chance of 30 %; one client stands still past the deadline with an update that is ready; one comes back wrong
(another version, signing key, node key, policy or clock) before it comes back right; one disk, a client's or the
host's, is full until its process has ended. A process that was killed or has ended is started again by its own command,
`serve` also if it ended before all clients had taken over the last round (it says so), and nothing else is done.

Every run adds a line to benchmarks/results/chaos.jsonl; seeds that are there are not run again. Of each fault it says
what shows that it struck; one that did not is listed as missed. `by_command` counts the commands that were typed
because a process had ended, `unasked` lists ends that no fault had asked for.

Disks are small tmpfs mounts, hence root; the wrong clock is a small library (`clock.c`), which needs a C compiler.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from faults import ENCLAVE, SUPERLINK, Fault, drop, full_disk, kill, kill_child, straggle, wrong
from ground import CLIENTS, ROUNDS, Ground
from processes import load

RESULT = Path(__file__).parents[1] / "results" / "chaos.jsonl"
WRONG = ("version", "key", "node key", "policy", "clock")
DROPOUT = 0.3
LIMIT = 600.0


@dataclass
class Event:
    """A fault that waits for its round, its second after that round began, and for its party to be there."""

    round: int
    second: float
    what: str
    whom: str
    make: Callable[[], Fault]
    fault: Fault | None = None
    record: dict[str, Any] | None = None


class Chaos:
    """Draws what happens when, and does it."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._draw = ground, random.Random(ground.seed)
        self._started = self._since = time.monotonic()
        self._round = 0
        self._waiting = sorted(self._plan(), key=lambda event: (event.round, event.second))
        self._running: list[Event] = []
        self.log: list[dict[str, Any]] = []

    def _plan(self) -> list[Event]:
        draw, ground = self._draw, self._ground
        away, slow, still = self._absences()
        kind = WRONG[ground.seed % len(WRONG)]
        early = [number for number in range(1, ROUNDS) if number != still]

        def event(what: str, whom: str, make: Callable[[], Fault], seconds: float, rounds: list[int]) -> Event:
            return Event(draw.choice(rounds), draw.uniform(0, seconds), what, whom, make)

        killed, spoilt, full = draw.choice(CLIENTS), draw.choice(CLIENTS), draw.choice(("serve", *CLIENTS))
        every = list(range(1, ROUNDS))
        return [
            event("kill client", killed, lambda: kill(ground, killed, draw), 3, every),
            event("kill enclave", "serve", lambda: kill_child(ground, ENCLAVE), 3, every),
            event("kill SuperLink", "serve", lambda: kill_child(ground, SUPERLINK), 3, every),
            event("kill serve", "serve", lambda: kill(ground, "serve", draw), 3, every),
            event(f"wrong {kind}", spoilt, lambda: wrong(ground, spoilt, kind, draw), 2, early),
            event("full disk", full, lambda: full_disk(ground, full), 2, early),
            Event(still, 0.0, "straggle", slow, lambda: straggle(ground, slow, still)),
            *(Event(n, 0.0, "drop", who, lambda n=n, who=who: drop(ground, who, n)) for n, who in away),
        ]

    def _absences(self) -> tuple[list[tuple[int, str]], str, int]:
        """Who is gone in which round; and a straggler in a round that can be closed without it."""
        while True:
            rounds = range(1, ROUNDS + 1)
            away = [(n, client) for n in rounds for client in CLIENTS if self._draw.random() < DROPOUT]
            quiet = [n for n in rounds[:-1] if n not in dict(away)]
            if quiet:
                return away, self._draw.choice(CLIENTS), self._draw.choice(quiet)

    def step(self) -> None:
        """Do what is due."""
        ground = self._ground
        if ground.open != self._round:
            self._round, self._since = ground.open, time.monotonic()
        second = time.monotonic() - self._since
        for event in list(self._waiting):
            if (event.round, event.second) <= (self._round, second if event.round == self._round else 1e9):
                self._try(event)
        for event in list(self._running):
            assert event.fault is not None
            try:
                next(event.fault)
            except StopIteration as end:
                self._running.remove(event)
                ground.held.discard(event.whom)
                self._note(event, end.value)

    def _try(self, event: Event) -> None:
        ground = self._ground
        if ground.over or (event.what in ("drop", "straggle") and self._round > event.round):
            self._waiting.remove(event)
            self._note(event, "")
        elif event.whom not in ground.held and ground.runs(event.whom):
            if event.what == "straggle" and ground.held - {"serve"}:
                return  # with two away it would not be late: nothing could be closed
            self._waiting.remove(event)
            ground.held.add(event.whom)
            event.second, event.fault = time.monotonic() - self._started, event.make()
            self._running.append(event)

    def _note(self, event: Event, struck: str) -> None:
        now = time.monotonic() - self._started
        begun = event.second if event.fault is not None else now
        self.log.append(
            {"what": event.what, "whom": event.whom, "round": event.round}
            | {"from": round(begun, 1), "to": round(now, 1), "struck": struck.replace(str(self._ground.folder), "")}
        )

    @property
    def over(self) -> bool:
        """Whether everything was done and undone."""
        return not self._waiting and not self._running


def compare(ground: Ground) -> dict[str, Any]:
    """Every client against `trustformer run` with the recorded cohorts."""
    cohorts, out = ground.disk("serve") / "rounds.jsonl", ground.folder / "run"
    ground.once(["run", "--out", str(out), *ground.flags, "--set", f"clients.cohorts={cohorts}"], "setup")
    expected = json.loads((out / "result.json").read_text("utf-8"))
    rounds = ground.rounds
    results = {c: json.loads((ground.disk(c) / "state" / "result.json").read_text("utf-8")) for c in CLIENTS}
    # A client that missed the last exchange has caught up here; `run` ends without it.
    there = [client for client in CLIENTS if client in rounds[-1]["present"]]
    return {
        "cohorts": [{key: record[key] for key in ("combined", "late")} for record in rounds],
        "common_equal": all(result["common_digest"] == expected["common_digest"] for result in results.values()),
        "weights_equal": {c: results[c]["weights_digest"] == expected["weights_digest"][c] for c in there},
    }


def run(seed: int, keep: bool) -> dict[str, Any]:
    """One run; its line of the result."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    started = time.monotonic()
    ground = Ground(folder, seed)
    result: dict[str, Any] = {"seed": seed, "equal": False}
    try:
        chaos = Chaos(ground)
        for name in ground.starts:
            ground.start(name)
        while not (ground.over and chaos.over) and time.monotonic() - started < LIMIT:
            chaos.step()
            ground.tend()
            time.sleep(0.003)
        result |= {"done": ground.over, "faults": [f for f in chaos.log if f["struck"]]}
        result |= {"missed": [f for f in chaos.log if not f["struck"]], "unasked": ground.unasked}
        result |= {"by_command": {name: count - 1 for name, count in ground.starts.items()}}
        result |= {"tracebacks": sum(ground.said(name).count("Traceback") for name in ground.starts)}
        result |= {"seconds": round(time.monotonic() - started, 1)}
        if ground.over:
            result |= compare(ground)
            result["equal"] = result["common_equal"] and all(result["weights_equal"].values())
    finally:
        ground.close()
        if keep:
            print(folder, file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, help="this one alone; its folder is kept and nothing is recorded")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    load()
    # On time also on a busy machine; what it starts is scheduled as usual.
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    if options.seed is not None:
        print(json.dumps(run(options.seed, keep=True), indent=1))
        return 0
    lines = options.out.read_text("utf-8").splitlines() if options.out.exists() else []
    done = {json.loads(line)["seed"] for line in lines}
    for seed in range(1, options.runs + 1):
        if seed in done:
            continue
        result = run(seed, keep=False) | {"flwr": version("flwr"), "load": round(os.getloadavg()[0], 1)}
        with open(options.out, "a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        print(f"seed {seed}: equal {result['equal']}, {result['seconds']:,.0f} s", flush=True)
    lines = options.out.read_text("utf-8").splitlines()
    equal = sum(json.loads(line)["equal"] for line in lines)
    print(f"{equal} of {len(lines)} runs ended in the weights of trustformer run")
    return 0 if equal == len(lines) else 1


if __name__ == "__main__":
    sys.exit(main())
