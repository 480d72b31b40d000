# SPDX-License-Identifier: Apache-2.0
"""The processes of a deployment, as scripts start, find and kill them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def load() -> None:
    """Import what the verbs need, once: each would need six seconds for it."""
    import trustformer.cli
    import trustformer.experiment.runner
    import trustformer.flower.member
    import trustformer.flower.serve  # noqa: F401


class Verb:
    """One `trustformer` command in a process of its own, forked from this one after `load`.

    Args:
        arguments: of the command.
        log: file that takes what it prints.
    """

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.code: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._become(arguments, log)

    @staticmethod
    def _become(arguments: list[str], log: Path) -> None:
        code = 70
        try:
            from trustformer.cli import main

            with open(log, "ab") as file:
                for number in (1, 2):
                    os.dup2(file.fileno(), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = main(arguments)
        except SystemExit as error:
            code = int(error.code or 0)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """Its exit status, negative for the signal that ended it; None while it runs."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def child(parent: int, word: str) -> int:
    """Pid of the process below `parent` with `word` in its command line; 0 for none."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            above = int((folder / "stat").read_text("ascii").rsplit(")", 1)[1].split()[1])
            if above == parent and word in (folder / "cmdline").read_bytes().decode("utf-8", "replace"):
                return int(folder.name)
        except (OSError, ValueError):
            continue
    return 0


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true within so many seconds."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


class Nursery:
    """A process that has everything loaded and forks a `Verb` whenever it is told to.

    For a program that must not fork itself, since it has trained or runs threads.
    """

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, arguments: list[str], log: Path) -> Forked:
        """Run `trustformer ARGUMENTS`."""
        return Forked(self, int(self.ask("start", str(log), *arguments)))

    def ask(self, *words: str) -> str:
        """Send one request, take one answer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("the pipes are gone")
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        """End it, and with it all that it started."""
        self._process.communicate()


class Forked:
    """One command that a nursery has started; as `subprocess.Popen`."""

    def __init__(self, nursery: Nursery, pid: int) -> None:
        self._nursery, self.pid = nursery, pid

    def poll(self) -> int | None:
        """Exit status, None while it runs."""
        answer = self._nursery.ask("poll", str(self.pid))
        return int(answer) if answer else None

    def wait(self, timeout: float) -> int:
        """Exit status; raises `subprocess.TimeoutExpired`."""
        if not wait_for(lambda: self.poll() is not None, timeout):
            raise subprocess.TimeoutExpired(str(self.pid), timeout)
        return int(self._nursery.ask("poll", str(self.pid)))

    def send_signal(self, number: int) -> None:
        """As `os.kill`, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def _nurse() -> None:
    load()
    verbs: dict[int, Verb] = {}
    for line in sys.stdin:
        what, first, *rest = json.loads(line)
        if what == "start":
            verb = Verb(rest, Path(first))
            verbs[verb.pid] = verb
            print(verb.pid, flush=True)
        else:
            code = verbs[int(first)].poll()
            print("" if code is None else code, flush=True)
    for verb in verbs.values():
        verb.kill()


if __name__ == "__main__":
    _nurse()
