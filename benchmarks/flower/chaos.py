# SPDX-License-Identifier: Apache-2.0
"""A deployment under attack by chance: each run must end in the weights that `trustformer run` gives.

    OMP_NUM_THREADS=1 python benchmarks/flower/chaos.py --runs 30        (as root; some minutes a run on two cores)

Three clients, two rounds and a closing exchange, over TLS with authentication of nodes. Every run draws from its
seed: one SIGKILL each of a client, the enclave, the SuperLink and `serve` (the relay); in every round each client is
gone with a chance of 30 %; one client crawls past the deadline; one comes back wrong (another version, signing
key, node key, policy or clock) before it comes back right; one disk, a client's or the host's, is full for a while.
A process that ended is started again by its own command, `serve` also if it ended before all clients had taken over
the last round (it says so), and nothing else is done. Every run adds a line to
benchmarks/results/chaos.jsonl; seeds that are there are not run again.

Disks are small tmpfs mounts, hence root; the wrong clock needs `faketime`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from processes import Verb, child, free_port, load, wait_for

import trustformer

RESULT = Path(__file__).parents[1] / "results" / "chaos.jsonl"
SETTINGS = {
    "data.limit": 60,
    "rounds": 2,
    "tokenizer.vocab_size": 200,
    "model.max_length": 24,
    "evaluation.test_pairs": 4,
    "evaluation.valid_pairs": 4,
    "method.clusters": 16,
    "clients.count": 3,
    "enclave.release": "acknowledged",
}
FLAGS = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
CLIENTS = ("0", "1", "2")
CHILDREN = ("trustformer.enclave", "flower_superlink")
"""Of `serve`, by what stands in their command lines."""
DEADLINE = 25.0
"""Seconds of one try at a round."""
CRAWL = (0.5, 6.0)
"""A straggler runs for so many seconds and then stands still for so many: slow, yet never taken for lost."""
WRONG = ("version", "key", "node key", "policy", "clock")
DROPOUT = 0.3
DISK = "200m"
LIMIT = 900.0


class Site:
    """One federation in a folder of its own, every party's files on a disk of its own."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.fed, self.seed = folder, folder / "fed", seed
        self.logs = {name: folder / f"{name}.log" for name in ("setup", "serve", *CLIENTS)}
        self.flags = [*FLAGS, "--set", f"seed={seed}"]
        self.starts = dict.fromkeys(("serve", *CLIENTS), 0)
        self.processes: dict[str, Verb] = {}
        self.held: set[str] = set()
        self.codes: list[str] = []
        self._served = time.monotonic()
        self._mounts: list[Path] = []
        made = folder / "made"
        address = f"127.0.0.1:{free_port()}"
        self.once(["init-federation", str(made), "--address", address, *self.flags], "setup")
        host = (made / "host" / "host.toml").read_text("utf-8")
        host = host.replace("deadline = 3600.0", f"deadline = {DEADLINE}").replace("probe = 5.0", "probe = 2.0")
        (made / "host" / "host.toml").write_text(host, "utf-8")
        for part in sorted(made.iterdir()):
            if part.is_dir():
                disk = self.fed / part.name
                disk.mkdir(parents=True)
                subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
                self._mounts.append(disk)
                shutil.copytree(part, disk, dirs_exist_ok=True)

    def close(self) -> None:
        """End every process, let the disks go."""
        for verb in self.processes.values():
            verb.kill()
        for disk in self._mounts:
            wait_for(lambda disk=disk: subprocess.run(["umount", disk], capture_output=True).returncode == 0, 30)

    def once(self, arguments: list[str], log: str) -> None:
        """Run a command to its end."""
        verb = Verb(arguments, self.logs[log])
        if not wait_for(lambda: verb.poll() is not None, 300) or verb.code:
            verb.kill()
            raise RuntimeError(f"{arguments[0]} ended with {verb.code}: {self.said(log)}")

    def said(self, name: str, since: int = 0) -> str:
        """What a process printed."""
        return self.logs[name].read_text("utf-8")[since:] if self.logs[name].exists() else ""

    def disk(self, name: str) -> Path:
        """Folder of the host or of a client."""
        return self.fed / ("host" if name == "serve" else f"client-{name}")

    def start(self, name: str) -> None:
        """The documented command, whatever happened before."""
        self.starts[name] += 1
        verb = "serve" if name == "serve" else "join"
        self.processes[name] = Verb([verb, str(self.disk(name))], self.logs[name])

    def tend(self) -> None:
        """Start again what ended with an error and is not meant to be away."""
        for name, process in self.processes.items():
            if process.poll() and name not in self.held:
                self.codes.append(f"{name}: {process.code}")
                self.start(name)
        serve = self.processes["serve"]
        if serve.poll() is None or self.over or "serve" in self.held:
            self._served = time.monotonic()
        elif time.monotonic() - self._served > 10:
            self.codes.append("serve: 0, before all clients had the last round")
            self.start("serve")

    @property
    def closed(self) -> int:
        """Rounds that are closed."""
        path = self.disk("serve") / "rounds.jsonl"
        return len(path.read_text("utf-8").splitlines()) if path.exists() else 0

    @property
    def over(self) -> bool:
        """Whether all have ended well."""
        return all(process.poll() == 0 for process in self.processes.values())


class Chaos:
    """Draws what happens when, and does it.

    An event waits for its round and its second after that round began; what it undoes later waits in `_later`.
    """

    def __init__(self, site: Site) -> None:
        self._site, self._draw = site, random.Random(site.seed)
        self.log: list[dict[str, Any]] = []
        self._started = time.monotonic()
        self._round, self._since = 0, self._started
        self._later: list[tuple[Callable[[], bool], Callable[[], None]]] = []
        draw, wrong = self._draw, WRONG[site.seed % len(WRONG)]
        plan: list[tuple[int, float, str, Callable[[str], None], str]] = [
            (draw.randint(1, 3), draw.uniform(0, 6), "kill client", self._kill, draw.choice(CLIENTS)),
            (draw.randint(1, 3), draw.uniform(0, 6), "kill enclave", self._kill_child, CHILDREN[0]),
            (draw.randint(1, 3), draw.uniform(0, 6), "kill SuperLink", self._kill_child, CHILDREN[1]),
            (draw.randint(1, 3), draw.uniform(0, 6), "kill serve", self._kill, "serve"),
            (draw.randint(1, 3), draw.uniform(0, 2), "straggle", self._crawl, draw.choice(CLIENTS)),
            (draw.randint(1, 3), draw.uniform(0, 4), f"wrong {wrong}", self._spoil, draw.choice(CLIENTS)),
            (draw.randint(1, 3), draw.uniform(0, 4), "full disk", self._fill, draw.choice(("serve", *CLIENTS))),
        ]
        plan += [
            (number, draw.uniform(0, 4), "drop", self._drop, client)
            for number in range(1, 4)
            for client in CLIENTS
            if draw.random() < DROPOUT
        ]
        self._plan = sorted(plan, key=lambda event: event[:2])
        self._wrong = wrong

    def step(self) -> None:
        """Do what is due."""
        if self._site.closed + 1 != self._round:
            self._round, self._since = self._site.closed + 1, time.monotonic()
        now = time.monotonic() - self._since
        for event in [e for e in self._plan if e[0] < self._round or (e[0] == self._round and e[1] <= now)]:
            _, _, what, do, whom = event
            running = self._site.processes["serve" if whom in CHILDREN else whom].poll() is None
            if what != "drop" and (whom in self._site.held or (not running and not self._site.over)):
                continue  # it is away: this waits until it is back
            self._plan.remove(event)
            if whom in self._site.held or not running:
                continue
            self._note(what, whom)
            do(whom)
        for due, undo in list(self._later):
            if due():
                self._later.remove((due, undo))
                undo()

    @property
    def over(self) -> bool:
        """Whether everything was done and undone."""
        return not self._plan and not self._later

    def _note(self, what: str, whom: str, said: str = "") -> None:
        event = {"second": round(time.monotonic() - self._started, 1), "round": self._round, "what": what, "whom": whom}
        self.log.append(event | ({"said": said} if said else {}))

    def _after(self, seconds: float, do: Callable[[], None]) -> None:
        at = time.monotonic() + seconds
        self._later.append((lambda: time.monotonic() >= at, do))

    def _round_over(self, seconds: float) -> Callable[[], bool]:
        number, at = self._round, time.monotonic() + seconds
        return lambda: self._site.closed >= number or time.monotonic() >= at

    def _away(self, whom: str) -> None:
        self._site.held.add(whom)
        self._site.processes[whom].kill()

    def _back(self, whom: str) -> None:
        self._site.start(whom)
        self._site.held.discard(whom)

    def _kill(self, whom: str) -> None:
        self._away(whom)
        self._after(self._draw.uniform(0, 3), lambda: self._back(whom))

    def _drop(self, whom: str) -> None:
        self._away(whom)
        self._later.append((self._round_over(2.5 * DEADLINE), lambda: self._back(whom)))

    def _kill_child(self, word: str) -> None:
        pid = child(self._site.processes["serve"].pid, word)
        if pid:
            os.kill(pid, signal.SIGKILL)
        else:
            self.log[-1]["what"] += ", but it is not there"

    def _crawl(self, whom: str) -> None:
        process, over = self._site.processes[whom], self._round_over(3 * DEADLINE)
        self._site.held.add(whom)
        state = {"still": False, "until": 0.0}

        def pulse() -> bool:
            if over() or process.poll() is not None:
                return True
            if time.monotonic() >= state["until"]:
                state["still"] = not state["still"]
                os.kill(process.pid, signal.SIGSTOP if state["still"] else signal.SIGCONT)
                state["until"] = time.monotonic() + CRAWL[state["still"]]
            return False

        def go_on() -> None:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGCONT)
            self._site.held.discard(whom)

        self._later.append((pulse, go_on))

    def _fill(self, whom: str) -> None:
        """No byte is left on its disk until it has ended of that, or for 20 seconds."""
        ballast, process = self._site.disk(whom) / "ballast", self._site.processes[whom]
        self._site.held.add(whom)
        since = len(self._site.said(whom))
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(2**20))
            except OSError:
                pass

        def free() -> None:
            ballast.unlink()
            ended = process.poll()
            errors = [line for line in self._site.said(whom, since).splitlines() if line.startswith("error: ")]
            self._note("disk freed", whom, f"ended with {ended}: {errors[-1] if errors else ''}" if ended else "ran on")
            if ended:
                self._back(whom)
            self._site.held.discard(whom)

        at = time.monotonic() + 20
        self._later.append((lambda: process.poll() is not None or time.monotonic() > at, free))

    def _spoil(self, whom: str) -> None:
        """The client comes back wrong; when it has been refused, it comes back as it was."""
        self._away(whom)
        folder, since = self._site.disk(whom), len(self._site.said(whom))
        kept = self._site.folder / "kept"
        kept.mkdir()
        command, name = [sys.executable, "-m", "trustformer", "join", str(folder)], ""
        environment = os.environ | {"PYTHONPATH": str(Path(trustformer.__file__).parents[1])}
        if self._wrong == "version":
            other = self._site.folder / "other"
            shutil.copytree(Path(trustformer.__file__).parent, other / "trustformer")
            for file in other.rglob("*.py"):
                file.write_text(file.read_text("utf-8").replace("tfl/1", "tfl/0"), "utf-8")
            environment["PYTHONPATH"] = str(other)
        elif self._wrong == "clock":
            command = ["faketime", "-f", self._draw.choice(("+10m", "-10m")), *command]
        else:
            name = {"key": "identity.key", "node key": "node.key", "policy": "policy.toml"}[self._wrong]
            shutil.copy2(folder / name, kept / name)
            self._alter(folder / name)
        if name:
            process: Any = Verb(["join", str(folder)], self._site.logs[whom])
        else:
            with open(self._site.logs[whom], "ab") as log:
                process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        at = time.monotonic() + 300

        def refused() -> str:
            words = ("error: ", "refuses this node")
            lines = self._site.said(whom, since).splitlines()
            return next((line for line in lines if any(word in line for word in words)), "")

        def right_again() -> None:
            wait_for(lambda: process.poll() is not None, 3)
            code = process.poll()
            process.kill()
            if not name:
                process.wait()
            if name:
                shutil.copy2(kept / name, folder / name)
            self._note("refused", whom, f"{refused() or 'NOTHING'} (exit {code})")
            self._back(whom)

        self._later.append(
            (lambda: bool(refused()) or process.poll() is not None or time.monotonic() > at, right_again)
        )

    def _alter(self, path: Path) -> None:
        if path.name == "policy.toml":
            text = path.read_text("utf-8")
            start = text.index('mrenclave = ["') + len('mrenclave = ["')
            path.write_text(text[:start] + "ab" * 32 + text[start + 64 :], "utf-8")
        elif path.name == "node.key":
            from trustformer.flower.keys import make_node_key

            path.unlink()
            make_node_key(path, path.with_suffix(".pub"))
        else:
            from trustformer.secure.identity import Identity

            path.unlink()
            Identity.generate().save(path)


def compare(site: Site) -> dict[str, Any]:
    """Every client against `trustformer run` with the recorded cohorts."""
    cohorts = site.disk("serve") / "rounds.jsonl"
    site.once(["run", "--out", str(site.folder / "run"), *site.flags, "--set", f"clients.cohorts={cohorts}"], "setup")
    expected = json.loads((site.folder / "run" / "result.json").read_text("utf-8"))
    rounds = [json.loads(line) for line in cohorts.read_text("utf-8").splitlines()]
    results = {c: json.loads((site.disk(c) / "state" / "result.json").read_text("utf-8")) for c in CLIENTS}
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
    site = Site(folder, seed)
    result: dict[str, Any] = {"seed": seed, "done": False}
    try:
        chaos = Chaos(site)
        for name in site.starts:
            site.start(name)
        while not (site.over and chaos.over) and time.monotonic() - started < LIMIT:
            chaos.step()
            site.tend()
            time.sleep(0.05)
        result |= {"done": site.over, "events": chaos.log, "ended_and_started_again": site.codes}
        result |= {"starts": site.starts, "seconds": round(time.monotonic() - started, 1)}
        if site.over:
            result |= compare(site)
    finally:
        site.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            print(folder, file=sys.stderr)
    result["equal"] = bool(result.get("common_equal")) and all(result["weights_equal"].values())
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--seed", type=int, help="this one alone; its folder is kept and nothing is recorded")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    load()
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
