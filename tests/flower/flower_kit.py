# SPDX-License-Identifier: Apache-2.0
"""Processes of a deployment, and bundles that would like to read what a client holds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "flower"))

from processes import Forked, Nursery

SENTENCE = "Ein geheimer Satz 7f3a9c zum Wiederfinden ."
"""Stands in every client's text."""
SETTINGS = {
    "data.limit": 60,
    "rounds": 1,
    "tokenizer.vocab_size": 200,
    "model.max_length": 24,
    "evaluation.test_pairs": 4,
    "evaluation.valid_pairs": 4,
    "method.clusters": 16,
    "clients.count": 3,
    "enclave.release": "acknowledged",
}
_MANIFEST = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "hostile"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "hostile"
[tool.flwr.app.components]
serverapp = "hostile.server:app"
clientapp = "hostile.client:app"
[tool.flwr.app.config]
data = ""
trace = ""
out = ""
"""
_SERVER = '''\
"""Asks every node for its text, and writes down what it gets."""
import json
import time
from pathlib import Path

from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()


@app.main()
def main(grid, context):
    config = context.run_config
    with open(config["trace"], "a") as trace:
        trace.write("server\\n")
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.1)
    content = RecordDict({"parcel": ConfigRecord({"data": config["data"], "trace": config["trace"]})})
    messages = [Message(content, dst_node_id=node, message_type=MessageType.TRAIN) for node in nodes]
    replies = {}
    for reply in grid.send_and_receive(messages, timeout=600):
        records = {} if reply.has_error() else reply.content.config_records
        replies[str(reply.metadata.src_node_id)] = repr({name: dict(record) for name, record in records.items()})
    Path(config["out"]).write_text(json.dumps(replies))
'''
_CLIENT = '''\
"""Reads the node's text and sends it."""
import gzip
from pathlib import Path

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    ask = message.content.config_records["parcel"]
    with open(ask["trace"], "a") as trace:
        trace.write(f"client {message.metadata.dst_node_id}\\n")
    stolen = gzip.decompress((Path(ask["data"]) / "train.tsv.gz").read_bytes()).decode()
    return Message(RecordDict({"stolen": ConfigRecord({"text": stolen})}), reply_to=message)
'''


def flags(folder: Path) -> list[str]:
    """`--set` of a corpus in which every third sentence is `SENTENCE`, in files below `folder`."""
    for name, count in (("train", 120), ("valid", 4), ("test", 4)):
        pairs = [(SENTENCE if i % 3 == 2 else f"ein Satz {i}", f"a sentence {i}") for i in range(count)]
        (folder / f"{name}.tsv").write_text("".join(f"{source}\t{target}\n" for source, target in pairs), "utf-8")
    files = {f"data.{name}": folder / f"{name}.tsv" for name in ("train", "valid", "test")}
    values = SETTINGS | {"data.source": "tsv", **files}
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def free_address() -> str:
    """An address of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def wait_for(what: Callable[[], bool], log: Path, seconds: float = 600) -> None:
    """Until it is true; fails with what the processes said."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, log.read_text("utf-8")
        time.sleep(0.02)


class Processes:
    """Started by a test, ended after it.

    Commands of trustformer are forked from one process that has their modules loaded: each would take six seconds.
    """

    def __init__(self, log: Path) -> None:
        self.log = log
        self._nursery = Nursery()
        self._others: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, **environment: str) -> subprocess.Popen[bytes]:
        """Any other command."""
        with open(self.log, "ab") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=os.environ | environment
            )
        self._others.append(process)
        return process

    def verb(self, *arguments: str) -> Forked:
        """`trustformer ARGUMENTS`."""
        return self._nursery.start(list(arguments), self.log)

    def verb_done(self, *arguments: str) -> None:
        """`trustformer ARGUMENTS`, which must end well."""
        assert self.verb(*arguments).wait(600) == 0, self.log.read_text("utf-8")

    def end(self) -> None:
        self._nursery.close()
        for process in reversed(self._others):
            process.terminate()
        for process in self._others:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def processes(log: Path) -> Iterator[Processes]:
    """Processes that end with the context."""
    started = Processes(log)
    try:
        yield started
    finally:
        started.end()


def flower_command(name: str) -> str:
    """Path of one of Flower's commands, as installed beside this Python."""
    return str(Path(sys.executable).parent / name)


def run_hostile(running: Processes, home: Path, address: str, ca: Path, data: Path) -> tuple[Path, Path]:
    """`flwr run` the hostile app; return the files it leaves: a line for every part that ran, and what it got."""
    from trustformer.flower import QUIET

    app, trace, out = home / "app", home / "trace", home / "out.json"
    (app / "hostile").mkdir(parents=True)
    (app / "pyproject.toml").write_text(_MANIFEST, "utf-8")
    for name, text in {"__init__": "", "server": _SERVER, "client": _CLIENT}.items():
        (app / "hostile" / f"{name}.py").write_text(text, "utf-8")
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "it"\n[superlink.it]\naddress = "{address}"\nroot-certificates = "{ca}"\n', "utf-8"
    )
    config = f'data="{data}" trace="{trace}" out="{out}"'
    command = [flower_command("flwr"), "run", str(app), "it", "--run-config", config]
    code = running.start(*command, **QUIET, FLWR_HOME=str(home)).wait(600)
    assert code == 0, running.log.read_text("utf-8")
    return trace, out
