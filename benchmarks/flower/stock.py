# SPDX-License-Identifier: Apache-2.0
"""Flower as it comes: its SuperLink, its SuperNodes and an app of a few lines, to measure ours beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from flwr.proto.control_pb2 import RegisterNodeRequest
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from processes import free_port, wait_for

from trustformer.flower import QUIET
from trustformer.flower.keys import make_node_key, make_tls
from trustformer.flower.superlink import public_key

_APP = {
    "pyproject.toml": """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "stock"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "stock"
[tool.flwr.app.components]
serverapp = "stock.server:app"
clientapp = "stock.client:app"
[tool.flwr.app.config]
rounds = 1
clients = 1
parameters = 0
out = ""
""",
    "stock/__init__.py": "",
    "stock/server.py": '''\
"""Rounds of empty messages, or of FedAvg over arrays; writes the seconds of each."""
import json
import resource
import time
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class Timed(FedAvg):
    """Flower's FedAvg; notes when a round begins and what aggregating takes."""

    def __init__(self, clients):
        super().__init__(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
        self.begun, self.aggregating = [], []

    def configure_train(self, *args):
        self.begun.append(time.monotonic())
        return super().configure_train(*args)

    def aggregate_train(self, *args):
        started = time.monotonic()
        result = super().aggregate_train(*args)
        self.aggregating.append(round(time.monotonic() - started, 3))
        return result


@app.main()
def main(grid, context):
    config = context.run_config
    while len(list(grid.get_node_ids())) < config["clients"]:
        time.sleep(0.1)
    result = {}
    if config["parameters"]:
        arrays = [np.zeros(config["parameters"] // 16, np.float32) for _ in range(16)]
        strategy = Timed(config["clients"])
        strategy.start(grid=grid, initial_arrays=ArrayRecord(arrays), num_rounds=config["rounds"])
        marks = [*strategy.begun, time.monotonic()]
        result["aggregating"] = strategy.aggregating
    else:
        marks = [time.monotonic()]
        for number in range(config["rounds"]):
            nodes = list(grid.get_node_ids())
            empty = RecordDict({"config": ConfigRecord()})
            messages = [Message(empty, dst_node_id=node, message_type=MessageType.TRAIN) for node in nodes]
            replies = list(grid.send_and_receive(messages, timeout=600))
            assert len(replies) == config["clients"] and not any(reply.has_error() for reply in replies)
            marks.append(time.monotonic())
    result["rounds"] = [round(after - before, 3) for before, after in zip(marks, marks[1:])]
    result["peak_bytes"] = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    Path(config["out"]).write_text(json.dumps(result))
''',
    "stock/client.py": '''\
"""Answers at once: nothing, or arrays of the shape it was sent."""
import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message, context):
    if "arrays" not in message.content:
        return Message(RecordDict({"config": ConfigRecord()}), reply_to=message)
    sent = message.content["arrays"].to_numpy_ndarrays()
    rng = np.random.default_rng(context.node_id % 2**32)
    arrays = ArrayRecord([rng.standard_normal(array.shape, np.float32) for array in sent])
    content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": 100})})
    return Message(content, reply_to=message)
''',
}


class Stock:
    """A SuperLink and its SuperNodes; a context, at whose end they end.

    Args:
        folder: empty.
        clients: how many nodes.
        tls: whether over TLS and with authentication of nodes, as `trustformer serve` always is.
        environment: of all processes.
    """

    def __init__(self, folder: Path, clients: int, *, tls: bool, environment: Mapping[str, str] | None = None) -> None:
        self._folder, self._clients, self._tls = folder, clients, tls
        self._port = free_port()
        self._environment = os.environ | QUIET | {"FLWR_HOME": str(folder)} | dict(environment or {})
        # Flower finds its own programs by name.
        self._environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        for name, text in _APP.items():
            path = self._folder / "app" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        address, secure, node = f"127.0.0.1:{self._port}", ["--insecure"], ["--insecure"]
        tls, way = self._folder / "tls", "insecure = true"
        if self._tls:
            make_tls(tls, ["127.0.0.1", "localhost"])
            secure = ["--ssl-ca-certfile", str(tls / "ca.crt"), "--ssl-certfile", str(tls / "server.pem")]
            secure += ["--ssl-keyfile", str(tls / "server.key"), "--enable-supernode-auth"]
            node, way = ["--root-certificates", str(tls / "ca.crt")], f'root-certificates = "{tls / "ca.crt"}"'
        (self._folder / "config.toml").write_text(
            f'[superlink]\ndefault = "it"\n[superlink.it]\naddress = "{address}"\n{way}\n', "utf-8"
        )
        self._start("flower-superlink", "--port", str(self._port), *secure, "--disable-runtime-dependency-installation")
        if not wait_for(self._answers, 120):
            raise RuntimeError((self._folder / "log").read_text("utf-8"))
        for index in range(self._clients):
            key = []
            if self._tls:
                private = self._folder / f"node{index}"
                make_node_key(private, private.with_suffix(".pub"))
                self._register(private.with_suffix(".pub"))
                key = ["--auth-supernode-private-key", str(private)]
            self._start("flower-supernode", "--superlink", address, *node, *key, "--port", str(free_port()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def pid(self) -> int:
        """Of the SuperLink."""
        return self._processes[0].pid

    def run(self, rounds: int, parameters: int = 0, limit: float = 1800) -> dict[str, Any]:
        """Run the app; what its server wrote.

        Raises:
            RuntimeError: it wrote nothing.
        """
        out = self._folder / f"out{time.monotonic_ns()}.json"
        config = f'rounds={rounds} clients={self._clients} parameters={parameters} out="{out}"'
        flwr = [str(Path(sys.executable).parent / "flwr"), "run", str(self._folder / "app"), "it"]
        with open(self._folder / "log", "ab") as log:
            subprocess.run(
                [*flwr, "--run-config", config], stdout=log, stderr=log, env=self._environment, check=True, timeout=120
            )
        if not wait_for(out.exists, limit):
            raise RuntimeError((self._folder / "log").read_text("utf-8")[-4000:])
        time.sleep(0.5)  # written as a whole by then
        result: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return result

    def _start(self, name: str, *arguments: str) -> None:
        command = [str(Path(sys.executable).parent / name), *arguments]
        with open(self._folder / "log", "ab") as log:
            self._processes.append(
                subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment)
            )

    def _answers(self) -> bool:
        scheme = "https" if self._tls else "http"
        try:
            httpx.get(f"{scheme}://127.0.0.1:{self._port}/", verify=False)
        except httpx.TransportError:
            return False
        return True

    def _register(self, public: Path) -> None:
        ca = (self._folder / "tls" / "ca.crt").read_bytes()
        version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
        with ControlHttpClient.from_server_address(f"127.0.0.1:{self._port}", False, ca, [version]) as control:
            control.RegisterNode(RegisterNodeRequest(public_key=public_key(public)))
