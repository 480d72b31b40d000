# SPDX-License-Identifier: Apache-2.0
"""The SuperLink as a process beside the enclave, and the one run it carries.

It is Flower's own, over TLS and with authentication of nodes. Its app runtime is this process: tasks are given out
against a secret that only `trustformer serve` holds, so that whoever starts another run at the port gets no code run.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from flwr.common.constant import SubStatus
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import RegisterNodeRequest, StartRunRequest
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    PullTaskInputRequest,
    PushTaskOutputRequest,
    SendTaskHeartbeatRequest,
)
from flwr.supercore.constant import FLWR_IN_MEMORY_DB_NAME, TaskType
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity

from trustformer.errors import ConfigError, TrustformerError
from trustformer.flower import QUIET
from trustformer.flower.bundle import bundle_hash, make_bundle
from trustformer.flower.post import Post

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0
_PORT_SECONDS = 20.0
_TAKEN = "end the process that does, or change `listen` in host.toml"
_NOT_OURS = "let `listen` in host.toml be an address of this machine, or 0.0.0.0 for all, and a port that you may use"
_BEAT = 10.0
"""Seconds between signs of life of the run; the SuperLink gives it up after about a minute without."""
_CODE = """\
from flwr.supercore.app_utils import start_parent_process_monitor as watch
from flwr.superlink.cli.flower_superlink import flower_superlink
from flwr.superlink.routers.control.router import router
router.routes[:] = [route for route in router.routes if route.path.endswith(("/register-node", "/start-run"))]
watch({})
flower_superlink()
"""
"""What the process runs: Flower's own command, which ends when its parent does, without the requests by which whoever
reaches its port could remove a client's node or stop the run."""


class GoneError(TrustformerError):
    """The SuperLink was killed as it started: it may be started again."""


class SuperLink:
    """Starts Flower's SuperLink, registers the nodes of the roster, and takes over one run.

    Args:
        folder: of its database, log and secret.
        address: `HOST:PORT` it serves on.
        tls: folder of `ca.crt`, `server.pem` and `server.key`.
        nodes: client id to its node's public key, an OpenSSH file.
    """

    def __init__(self, folder: Path, address: str, tls: Path, nodes: Mapping[str, Path]) -> None:
        self._folder, self._tls, self._nodes = folder, tls, nodes
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._ca = (tls / "ca.crt").read_bytes()
        near = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        self._local = f"[{near}]:{port}" if ":" in near else f"{near}:{port}"
        self._secret = secrets.token_bytes(32)
        self._process: subprocess.Popen[bytes] | None = None
        self.clients: dict[int, str] = {}
        """Client id of each node id, as registered."""

    @property
    def pid(self) -> int:
        """Of the process that runs now; 0 for none."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process anew and register all nodes.

        Raises:
            GoneError: it was killed.
            TrustformerError: its port is taken, its certificate is for another address, it ended at once, or does not
                answer.
        """
        self.stop()
        self._wait_for_port()
        self._folder.mkdir(parents=True, exist_ok=True)
        secret = self._folder / "superexec.secret"
        secret.unlink(missing_ok=True)
        with open(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(self._secret)
        command = [
            *(sys.executable, "-c", _CODE.format(os.getpid())),
            *("--host", self._host, "--port", str(self._port), "--database", FLWR_IN_MEMORY_DB_NAME),
            *("--ssl-ca-certfile", str(self._tls / "ca.crt"), "--ssl-certfile", str(self._tls / "server.pem")),
            *("--ssl-keyfile", str(self._tls / "server.key"), "--enable-supernode-auth"),
            *("--isolation", "process", "--superexec-auth-secret-file", str(secret)),
            "--disable-runtime-dependency-installation",
        ]
        environment = os.environ | QUIET | {"FLWR_HOME": str(self._folder / "flwr")}
        with open(self._folder / "superlink.log", "ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment)
        self._register()

    def _wait_for_port(self) -> None:
        """The SuperLink of a `serve` that was killed a moment ago ends a little later than that."""
        deadline = time.monotonic() + _PORT_SECONDS
        near = f"[{self._host}]" if ":" in self._host else self._host
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        while True:
            try:
                socket.create_server((self._host, self._port), family=family).close()
                return
            except OSError as error:
                taken = error.errno == errno.EADDRINUSE
                if not taken or time.monotonic() > deadline:
                    what = f"cannot listen on {near}:{self._port}: {error.strerror}"
                    hint = _TAKEN if taken else _NOT_OURS
                    raise TrustformerError(what, hint) from None
            time.sleep(0.1)

    def _register(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        waiting = list(self._nodes.items())
        self.clients = {}
        with self._control() as control:
            while waiting:
                client, path = waiting[0]
                try:
                    reply = control.RegisterNode(RegisterNodeRequest(public_key=public_key(path)))
                    self.clients[reply.node_id] = client
                    waiting.pop(0)
                except httpx.TransportError as error:
                    self._check_certificate(error)
                    if self._process is not None and (self._process.poll() or 0) < 0:
                        raise GoneError("the SuperLink was killed as it started") from None
                    if not self.alive or time.monotonic() > deadline:
                        raise TrustformerError(
                            "the SuperLink does not start", f"read {self._folder / 'superlink.log'}"
                        ) from None
                    time.sleep(0.1)
                except httpx.HTTPStatusError as error:
                    raise TrustformerError(f"the SuperLink refuses {path}: {error.response.status_code}") from None

    def _check_certificate(self, error: httpx.TransportError) -> None:
        _, failed, why = str(error).partition("certificate verify failed: ")
        if failed:
            address = f"let `listen` in host.toml be 0.0.0.0:{self._port} or the address that init-federation was given"
            clock = "check the clock of this machine; a certificate that has run out takes a new federation"
            raise TrustformerError(
                f"{self._tls / 'server.pem'} does not hold for {self._local}: {why.partition(' (_ssl')[0]}",
                clock if "expired" in why or "not yet valid" in why else address,
            ) from None

    def stop(self) -> None:
        """End the process. May be called again."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @contextmanager
    def run(self) -> Iterator[Post]:
        """Start a run of the bundle and yield what reaches the nodes; the run ends with the context.

        Raises:
            httpx.HTTPError: the SuperLink does not answer (any more).
        """
        bundle = make_bundle()
        fab = Fab(bundle_hash(bundle), bundle, {})
        with self._control() as control:
            run_id = control.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id
        token = RuntimeTokenHttpInterceptor(token=self._token(run_id))
        kind = RuntimeVersionHttpInterceptor(component_name="flwr-serverapp")
        # Without retries: a SuperLink that is gone has forgotten the run.
        client = RuntimeHttpClient.from_server_address(self._local, False, self._ca, [kind, token])
        stop, done = threading.Event(), SubStatus.FAILED
        threading.Thread(target=_beat, args=(client, stop), daemon=True).start()
        try:
            task = client.PullTaskInput(PullTaskInputRequest())
            TaskIdentity.task_id, TaskIdentity.run_id = task.task_id, task.run.run_id
            TaskIdentity.node_id = task.context.node_id
            yield Post(client, task.run.run_id)
            done = SubStatus.COMPLETED
        finally:
            stop.set()
            with suppress(httpx.HTTPError):
                client.PushTaskOutput(PushTaskOutputRequest(sub_status=done, details=""))
            client.close()

    def _token(self, run_id: int) -> str:
        """Take over the run's one task."""
        secret = SuperExecAuthHttpInterceptor(
            master_secret=self._secret, protected_methods={"/flwr.proto.Runtime/AcquireTask"}
        )
        with RuntimeHttpClient.from_server_address(
            self._local, False, self._ca, [RuntimeVersionHttpInterceptor(component_name="SuperExec"), secret]
        ) as client:
            deadline = time.monotonic() + _START_SECONDS
            while time.monotonic() < deadline:
                reply = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
                if reply.HasField("task") and reply.token and reply.task.run_id == run_id:
                    return str(reply.token)
                time.sleep(0.05)
        raise TrustformerError("the SuperLink gives no task for its run")

    def _control(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(
            self._local, False, self._ca, [RuntimeVersionHttpInterceptor(component_name="flwr CLI")]
        )


def _beat(client: RuntimeHttpClient, stop: threading.Event) -> None:
    while not stop.wait(_BEAT):
        with suppress(httpx.HTTPError, RuntimeError):  # RuntimeError: closed a moment ago
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())


def public_key(path: Path) -> bytes:
    """A node's public key as Flower registers it; raises `ConfigError` for a file that holds none."""
    try:
        key = load_ssh_public_key(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"the node key {path} cannot be read: {error}") from None
    if not isinstance(key, EllipticCurvePublicKey):
        raise ConfigError(f"{path}: Flower takes keys of a NIST curve only")
    encoded: bytes = public_key_to_bytes(key)
    return encoded
