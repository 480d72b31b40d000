# SPDX-License-Identifier: Apache-2.0
"""A host that is not ours: its SuperLink sends an app bundle that reads the text beside which it runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

import httpx
from flower_kit import SENTENCE, flags, flower_command, free_address, processes, run_hostile, wait_for

pytestmark = [
    pytest.mark.flower,
    pytest.mark.slow,
    pytest.mark.timeout(900),  # of processes that share a busy machine
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of what flwr itself uses
]


def _register(address: str, ca: Path, key: Path) -> None:
    from flwr.proto.control_pb2 import RegisterNodeRequest
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    from trustformer.flower.superlink import public_key

    kind = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
    with ControlHttpClient.from_server_address(address, False, ca.read_bytes(), [kind]) as control:
        control.RegisterNode(RegisterNodeRequest(public_key=public_key(key)))


def test_a_hostile_bundle_reads_the_text_beside_a_supernode_and_not_beside_join(tmp_path: Path) -> None:
    """The same SuperLink and run, one node of each kind: the attack is real, and `join` runs none of it."""
    from trustformer.flower import QUIET
    from trustformer.flower.keys import make_node_key

    fed, address, log = tmp_path / "fed", free_address(), tmp_path / "log"
    tls, ca, data = fed / "host" / "tls", fed / "client-0" / "ca.crt", fed / "client-0" / "data"
    other = tmp_path / "other.key"
    make_node_key(other, other.with_suffix(".pub"))
    with processes(log) as running:
        running.verb_done("init-federation", str(fed), "--address", address, *flags(tmp_path))
        running.start(
            *(flower_command("flower-superlink"), "--host", "127.0.0.1", "--port", address.rpartition(":")[2]),
            *("--ssl-ca-certfile", str(tls / "ca.crt"), "--ssl-certfile", str(tls / "server.pem")),
            *("--ssl-keyfile", str(tls / "server.key"), "--enable-supernode-auth"),
            "--disable-runtime-dependency-installation",
            **QUIET,
            FLWR_HOME=str(tmp_path / "superlink"),
            PATH=f"{Path(flower_command('flwr')).parent}:/usr/bin:/bin",
        )

        def registered() -> bool:
            try:
                _register(address, ca, fed / "host" / "nodes" / "0.pub")
            except httpx.TransportError:
                return False
            return True

        wait_for(registered, log)
        _register(address, ca, other.with_suffix(".pub"))
        running.start(
            *(flower_command("flower-supernode"), "--superlink", address, "--root-certificates", str(ca)),
            *("--auth-supernode-private-key", str(other), "--port", free_address().rpartition(":")[2]),
            **QUIET,
            FLWR_HOME=str(tmp_path / "supernode"),
            PATH=f"{Path(flower_command('flwr')).parent}:/usr/bin:/bin",
        )
        join = running.verb("join", str(fed / "client-0"))
        trace, out = run_hostile(running, tmp_path / "hostile", address, ca, data)
        wait_for(out.exists, log)
        wait_for(lambda: "refused: run" in log.read_text("utf-8"), log)
        assert join.poll() is None  # it goes on waiting for the run that it has agreed to
    replies = json.loads(out.read_text("utf-8"))
    (victim, stolen), (_, refused) = sorted(replies.items(), key=lambda reply: SENTENCE not in reply[1])
    assert SENTENCE in stolen  # Flower's own node has sent its text
    assert SENTENCE not in refused
    assert "'note': 'BundleError'" in refused
    assert "'body': b''" in refused
    assert set(trace.read_text("utf-8").splitlines()) == {"server", f"client {victim}"}  # none of it ran beside `join`
    assert "brings an app bundle that this client has not pinned" in log.read_text("utf-8")
