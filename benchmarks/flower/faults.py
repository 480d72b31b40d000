# SPDX-License-Identifier: Apache-2.0
"""What the chaos script does to a federation.

Each fault is a generator: it goes on a step whenever it is asked to, and returns what shows that it struck, or
nothing if it did not. While it lasts no other fault touches the same party.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from random import Random

from ground import DEADLINE, Ground
from processes import Verb, child

import trustformer

Fault = Generator[None, None, str]
ENCLAVE, SUPERLINK = "trustformer.enclave", "flower_superlink"
"""Of `serve`'s children, by what stands in their command lines."""
REFUSALS = {
    "version": "does not begin with 'tfl/0",
    "key": "not the key that the terms name",
    "node key": "refuses this node",
    "policy": "MRENCLAVE is not on the policy's list",
    "clock": "refuses this node",
}
"""What the client says of itself when it comes back wrong."""


def _until(what: Callable[[], object], seconds: float) -> Generator[None, None, bool]:
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        yield
    return True


def _pause(seconds: float) -> Generator[None, None, None]:
    yield from _until(lambda: False, seconds)


def kill(ground: Ground, whom: str, draw: Random) -> Fault:
    """SIGKILL to a client or `serve`; after at most three seconds its command is given again."""
    end = ground.kill(whom)
    yield from _pause(draw.uniform(0, 3))
    ground.start(whom)
    return end


def kill_child(ground: Ground, word: str) -> Fault:
    """SIGKILL to the enclave or the SuperLink; `serve` has to notice and start another."""
    serve = ground.processes["serve"]
    yield from _until(lambda: child(serve.pid, word) or serve.poll() is not None, 30)
    pid = child(serve.pid, word)
    if not pid:
        return ""
    os.kill(pid, signal.SIGKILL)
    yield from _until(lambda: child(serve.pid, word) not in (0, pid) or serve.poll() is not None, 60)
    if serve.poll() is not None:
        ground.start("serve")
        return f"process {pid} was killed, and serve ended with {serve.code}: {ground.error('serve')}"
    return f"process {pid} was killed, serve started {child(serve.pid, word)}"


def drop(ground: Ground, whom: str, number: int) -> Fault:
    """Away for a whole round; back when it is closed, or, if it cannot be without this client, in a later try."""
    ground.kill(whom)
    yield from _until(lambda: ground.open > number, 2 * DEADLINE)
    waited = ground.open == number
    ground.start(whom)
    if waited:
        return f"it was away for {2 * DEADLINE:g} seconds of round {number}, which stayed open"
    combined = ground.rounds[number - 1]["combined"]
    return "" if whom in combined else f"round {number} was closed with {', '.join(combined)}"


def straggle(ground: Ground, whom: str, number: int) -> Fault:
    """Stands still from when it has trained until the round is closed without it, then goes on and sends."""
    process = ground.processes[whom]

    def still_after_training() -> bool:
        """Lets it run for moments; what it has trained is on its disk before it begins to send."""
        for _ in range(20):
            if not ground.runs(whom):
                return True
            os.kill(process.pid, signal.SIGCONT)
            time.sleep(0.002)
            os.kill(process.pid, signal.SIGSTOP)
            if ground.trained(whom) >= number or ground.open > number:
                return True
        return False

    yield from _until(still_after_training, 60)
    yield from _until(lambda: ground.open > number or not ground.runs(whom), 4 * DEADLINE)
    if not ground.runs(whom):
        return ""
    os.kill(process.pid, signal.SIGCONT)
    if ground.open == number or whom in ground.rounds[number - 1]["combined"]:
        return ""
    return f"it had trained for round {number}, which was closed without it"


def full_disk(ground: Ground, whom: str) -> Fault:
    """Not a byte is left on a party's disk until its process has ended; then there is room and it is started again."""
    since, ballast = len(ground.said(whom)), ground.disk(whom) / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(2**16))
        except OSError:
            pass
    yield from _until(lambda: not ground.runs(whom), 90)
    ballast.unlink()
    if ground.runs(whom):
        return ""
    code, error = ground.processes[whom].code, ground.error(whom, since)
    if code:
        ground.start(whom)
    return f"ended with {code}: {error}" if code else ""


def wrong(ground: Ground, whom: str, kind: str, draw: Random) -> Fault:
    """The client comes back wrong; when it has been refused, it comes back as it was."""
    ground.kill(whom)
    folder, since = ground.disk(whom), len(ground.said(whom))
    name = {"key": "identity.key", "node key": "node.key", "policy": "policy.toml"}.get(kind, "")
    kept, before = ground.folder / "kept", ground.trained(whom)
    if name:
        shutil.copy2(folder / name, kept)
        _alter(folder / name)
        process: Verb | subprocess.Popen[bytes] = Verb(["join", str(folder)], ground.logs[whom])
    else:
        process = _elsewhere(ground, whom, kind, draw)
    yield from _until(lambda: REFUSALS[kind] in ground.said(whom, since) or process.poll() is not None, 90)
    yield from _until(lambda: process.poll() is not None, 1 if kind in ("node key", "clock") else 10)
    code = process.poll()
    process.kill()
    if not isinstance(process, Verb):
        process.wait()
    if name:
        shutil.copy2(kept, folder / name)
    said = [line for line in ground.said(whom, since).splitlines() if REFUSALS[kind] in line]
    sent = ground.trained(whom) > before
    ground.start(whom)
    if not said or sent:
        return ""
    return f"{said[0]} ({f'ended with {code}' if code is not None else 'it went on trying'})"


def _elsewhere(ground: Ground, whom: str, kind: str, draw: Random) -> subprocess.Popen[bytes]:
    """`join` with a clock ten minutes off, or from a copy of the package that speaks another version."""
    package = Path(trustformer.__file__).parent
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    if kind == "clock":
        library = ground.folder / "clock.so"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
        environment |= {"LD_PRELOAD": str(library), "CLOCK_OFF": draw.choice(("600", "-600"))}
    else:
        shutil.copytree(package, ground.folder / "other" / "trustformer")
        for file in (ground.folder / "other").rglob("*.py"):
            file.write_text(file.read_text("utf-8").replace("tfl/1", "tfl/0"), "utf-8")
        environment["PYTHONPATH"] = str(ground.folder / "other")
    command = [sys.executable, "-m", "trustformer", "join", str(ground.disk(whom))]
    with open(ground.logs[whom], "ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)


def _alter(path: Path) -> None:
    from trustformer.flower.keys import make_node_key
    from trustformer.secure.identity import Identity

    if path.name == "policy.toml":
        text = path.read_text("utf-8")
        start = text.index('mrenclave = ["') + len('mrenclave = ["')
        path.write_text(text[:start] + "ab" * 32 + text[start + 64 :], "utf-8")
        return
    path.unlink()
    if path.name == "node.key":
        make_node_key(path, path.with_suffix(".pub"))
    else:
        Identity.generate().save(path)
