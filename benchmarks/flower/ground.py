# SPDX-License-Identifier: Apache-2.0
"""One federation on this machine, as the chaos script starts it, looks at it and starts it again."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from processes import Verb, free_port, wait_for

SETTINGS = {
    "data.limit": 60,
    "rounds": 3,
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
ROUNDS = 4
"""Exchanges: three rounds and a closing one."""
DEADLINE = 8.0
"""Seconds of one try at a round."""
DISK = "64m"
_AGAIN = 5.0
"""Seconds after which `serve` is started again when it ended before every client had the last round."""


class Ground:
    """One federation in a folder of its own, every party's files on a small disk (tmpfs) of its own.

    Args:
        folder: empty.
        seed: of the run.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.seed = folder, seed
        self.logs = {name: folder / f"{name}.log" for name in ("setup", "serve", *CLIENTS)}
        self.flags = [*FLAGS, "--set", f"seed={seed}"]
        self.starts = dict.fromkeys(("serve", *CLIENTS), 0)
        self.processes: dict[str, Verb] = {}
        self.held: set[str] = set()
        """Parties that a fault is busy with."""
        self.unasked: list[str] = []
        """Processes that ended although no fault was busy with them; each was started again by its own command."""
        self._served = time.monotonic()
        self._mounts: list[Path] = []
        made = folder / "made"
        self.once(["init-federation", str(made), "--address", f"127.0.0.1:{free_port()}", *self.flags], "setup")
        host = (made / "host" / "host.toml").read_text("utf-8")
        host = host.replace("deadline = 3600.0", f"deadline = {DEADLINE}").replace("probe = 5.0", "probe = 2.0")
        (made / "host" / "host.toml").write_text(host, "utf-8")
        for name in self.starts:
            disk = self.disk(name)
            disk.mkdir(parents=True)
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", disk], check=True)
            self._mounts.append(disk)
            shutil.copytree(made / disk.name, disk, dirs_exist_ok=True)

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
        """What a party's processes have printed."""
        return self.logs[name].read_text("utf-8")[since:] if self.logs[name].exists() else ""

    def disk(self, name: str) -> Path:
        """Folder of the host or of a client."""
        return self.folder / "fed" / ("host" if name == "serve" else f"client-{name}")

    def start(self, name: str) -> None:
        """The documented command, whatever happened before."""
        self.starts[name] += 1
        verb = "serve" if name == "serve" else "join"
        self.processes[name] = Verb([verb, str(self.disk(name))], self.logs[name])

    def kill(self, name: str) -> str:
        """SIGKILL; what its end was."""
        self.processes[name].kill()
        return f"ended with {self.processes[name].code}"

    def runs(self, name: str) -> bool:
        """Whether its process is there."""
        return name in self.processes and self.processes[name].poll() is None

    def tend(self) -> None:
        """Start again what ended without being done, unless a fault is busy with it."""
        for name, process in self.processes.items():
            if process.poll() and name not in self.held:
                self.unasked.append(f"{name} ended with {process.code}: {self.error(name)}")
                self.start(name)
        if self.runs("serve") or self.over or "serve" in self.held:
            self._served = time.monotonic()
        elif time.monotonic() - self._served > _AGAIN:
            self.unasked.append("serve ended before all clients had the last round, as it said")
            self.start("serve")

    def error(self, name: str, since: int = 0) -> str:
        """The last error that a party's process printed; nothing where it printed none."""
        lines = [line for line in self.said(name, since).splitlines() if line.startswith("error: ")]
        return lines[-1] if lines else ""

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """What the host has recorded of every closed round."""
        path = self.disk("serve") / "rounds.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    @property
    def open(self) -> int:
        """The round that is open."""
        return len(self.rounds) + 1

    def trained(self, client: str) -> int:
        """The last round that a client has trained for and stored; 0 for none."""
        try:
            with open(self.disk(client) / "state" / "state.safetensors", "rb") as file:
                header = file.read(int.from_bytes(file.read(8), "little"))
            return int(json.loads(header)["__metadata__"]["trained"])
        except (OSError, ValueError, KeyError):
            return 0

    @property
    def over(self) -> bool:
        """Whether all have ended well."""
        return all(process.poll() == 0 for process in self.processes.values())
