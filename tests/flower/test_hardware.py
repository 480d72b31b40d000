# SPDX-License-Identifier: Apache-2.0
"""A federation whose clients insist on an enclave in SGX, as far as that goes without one."""

from __future__ import annotations

import json
import re
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from wire import Threaded, Wire

from pseudo_files import answering
from trustformer.attestation import dcap
from trustformer.attestation.collateral import cache_name, save, window
from trustformer.attestation.policy import Policy
from trustformer.attestation.simulated import BANNER, COLLATERAL, SimulatedAttester
from trustformer.cli import main
from trustformer.enclave.config import RunConfig
from trustformer.enclave.measurement import simulated_measurement
from trustformer.errors import ConfigError, TrustformerError
from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.federation.host import Host
from trustformer.flower import collateral
from trustformer.flower.collateral import CollateralSource
from trustformer.flower.serve import serve
from trustformer.flower.settings import ENCLAVE, HostConfig
from trustformer.flower.setup import init_federation

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what flwr itself uses
POLICY = 'mrenclave = ["{}"]\ntcb_status = ["UpToDate"]\n'.format("ab" * 32)


@pytest.fixture
def quote_and_collateral(tmp_path: Path) -> tuple[bytes, bytes]:
    root = SimulatedAttester.create(tmp_path / "root", measurement=bytes(32), now=1_790_000_000)
    return root.evidence(bytes(64)).quote, (tmp_path / "root" / COLLATERAL).read_bytes()


@pytest.fixture
def refusing() -> Iterator[tuple[str, list[str]]]:
    """URL of a server that knows nothing, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY, "utf-8")
    return path


def make(folder: Path, settings: list[str], policy: Path, **host: Any) -> Path:
    config = load_config(None, [*settings, "rounds=1", "enclave.release=acknowledged"])
    init_federation(folder / "fed", config, "127.0.0.1:1", HostConfig(**host), policy)
    return folder / "fed"


@pytest.mark.usefixtures("mini_model")
def test_the_policy_goes_to_every_client_and_the_terms_ask_for_gramine(
    tmp_path: Path, settings: list[str], policy: Path
) -> None:
    fed = make(tmp_path, settings, policy, enclave=ENCLAVE)
    terms = (fed / "host" / "terms.bin").read_bytes()
    assert RunConfig.from_bytes(terms).provider == "gramine-dcap"
    for node in ("client-0", "client-1", "client-2"):
        assert (fed / node / "terms.bin").read_bytes() == terms
        assert Policy.load(fed / node / "policy.toml") == Policy.load(policy)
    assert not (fed / "host" / "enclave").exists()  # nothing simulated
    assert HostConfig.load(fed / "host" / "host.toml") == HostConfig(enclave=ENCLAVE)
    readme = (fed / "README.md").read_text("utf-8")
    assert ENCLAVE in readme
    assert "SIMULATED" not in readme


@pytest.mark.usefixtures("mini_model")
def test_serve_says_that_it_cannot_start_such_an_enclave(tmp_path: Path, settings: list[str], policy: Path) -> None:
    fed = make(tmp_path, settings, policy)
    with pytest.raises(ConfigError, match="gramine-dcap evidence, which serve cannot start") as refused:
        serve(fed / "host", PlainReporter())
    assert "host.toml" in refused.value.hint


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (f'allow_simulated = true\nroot_ca_sha256 = ["{"cd" * 32}"]\n', "Intel's root alone"),
        ('root_ca_files = ["root.der"]\n', "root.der"),
        ("mrsigner = 3\n", "mrsigner"),
    ],
)
def test_a_policy_that_would_not_hold_for_the_clients_is_refused(
    tmp_path: Path, settings: list[str], policy: Path, lines: str, named: str
) -> None:
    policy.write_text(lines + POLICY, "utf-8")
    with pytest.raises(ConfigError, match=named):
        make(tmp_path, settings, policy)
    assert not (tmp_path / "fed").exists()


def test_collateral_from_a_file_beside_host_toml(tmp_path: Path, quote_and_collateral: tuple[bytes, bytes]) -> None:
    quote, data = quote_and_collateral
    (tmp_path / "mine.json").write_bytes(data)
    assert CollateralSource("mine.json", tmp_path)(quote) == data


@pytest.mark.parametrize("source", ["none.json", "localhost:8081", "Intel", "damaged.json"])
def test_a_file_without_collateral_is_named_at_once(tmp_path: Path, source: str) -> None:
    (tmp_path / "damaged.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match=re.escape(f"the collateral of host.toml, {tmp_path / source}: ")):
        CollateralSource(source, tmp_path)


@pytest.mark.parametrize("source", ["ftp://host", "http://[bad", "http://"])
def test_a_url_that_is_none_is_named_at_once(tmp_path: Path, source: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL"):
        CollateralSource(source, tmp_path)


def test_a_service_that_fails_is_left_alone_for_a_while_and_the_quote_is_kept(
    tmp_path: Path,
    quote_and_collateral: tuple[bytes, bytes],
    refusing: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quote, (url, asked) = quote_and_collateral[0], refusing
    source = CollateralSource(url, tmp_path)
    for _ in range(3):
        with pytest.raises(TrustformerError, match="no collateral for the enclave's quote: "):
            source(quote)
    once = len(asked)
    assert once > 0
    assert (tmp_path / "collateral" / "quote.bin").read_bytes() == quote
    monkeypatch.setattr(collateral, "_RETRY_SECONDS", 0.0)
    again = CollateralSource(url, tmp_path)
    for _ in range(2):
        with pytest.raises(TrustformerError):
            again(quote)
    assert len(asked) == 3 * once


def test_collateral_that_should_be_renewed_is_asked_for_seldom(
    tmp_path: Path,
    quote_and_collateral: tuple[bytes, bytes],
    refusing: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quote, data = quote_and_collateral
    url, asked = refusing
    save(tmp_path / "collateral" / cache_name(quote), data)
    monkeypatch.setattr(
        collateral, "time", SimpleNamespace(time=lambda: window(data).not_after - 100, monotonic=time.monotonic)
    )
    source = CollateralSource(url, tmp_path)
    assert source(quote) == data
    once = len(asked)
    assert once > 0
    assert [source(quote) for _ in range(5)] == [data] * 5
    assert len(asked) == once
    monkeypatch.setattr(collateral, "_RETRY_SECONDS", 0.0)
    later = CollateralSource(url, tmp_path)
    assert [later(quote) for _ in range(2)] == [data] * 2
    assert len(asked) == 3 * once


@pytest.mark.usefixtures("mini_model")
def test_from_the_command_line_to_the_last_round(
    tmp_path: Path, settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it but Gramine and Intel's signature: the quotes are of a root of this test, in the place of Intel's."""
    root = SimulatedAttester.create(tmp_path / "root", measurement=simulated_measurement(), now=int(time.time()))
    monkeypatch.setattr(dcap, "INTEL_ROOT_SHA256", root.root_sha256)
    policy = tmp_path / "policy.toml"
    policy.write_text(f'mrenclave = ["{root.mrenclave.hex()}"]\n', "utf-8")
    flags = [part for item in [*settings, "rounds=1"] for part in ("--set", item)]
    assert main(["init-federation", str(tmp_path / "fed"), "--policy", str(policy), *flags]) == 0
    host = tmp_path / "fed" / "host"
    assert HostConfig.load(host / "host.toml").enclave == ENCLAVE
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in (host.parent, host, host.parent / "client-0")} == {0o700}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    shutil.copy(tmp_path / "root" / COLLATERAL, host / "mine.json")
    (host / "host.toml").write_text(HostConfig(enclave=address, collateral="mine.json").to_toml(), "utf-8")
    command = [
        *(sys.executable, "-I", "-B", "-m", "trustformer.enclave", "--socket", f"tcp:{address.rpartition(':')[2]}"),
        *("--terms", str(host / "terms.bin"), "--state", str(tmp_path / "state")),
        *("--provider", "gramine-dcap", "--evidence", str(tmp_path / "attestation")),
    ]
    fed, hello, failures = Threaded(tmp_path / "fed", Wire(), monkeypatch), Host.hello, ["aesmd is down"]

    def failing_once(self: Host, request: bytes) -> bytes:
        if failures:
            raise TrustformerError(failures.pop())
        return hello(self, request)

    monkeypatch.setattr(Host, "hello", failing_once)
    with answering(tmp_path / "attestation", lambda data: root.evidence(data).quote):
        enclave = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            fed.start("0", "1", "2")
            fed.end()
        finally:
            enclave.kill()
            enclave.wait()
    assert BANNER not in fed.said.lines
    assert fed.said.has("aesmd is down")  # which cost a try, and nobody's `join`
    for client in ("0", "1", "2"):
        state = json.loads((fed.fed / f"client-{client}" / "state" / "attestation.json").read_text("utf-8"))
        seen = {(record["kind"], record["decision"]) for record in state["verifications"]}
        assert seen == {("gramine-dcap", "accepted")}


def test_text_of_clients_is_not_taken_into_a_federation(tmp_path: Path, settings: list[str]) -> None:
    plain = [value for value in settings if not value.startswith(("data.", "clients."))]
    config = load_config(None, [*plain, "data.source=folder", 'clients.folders=["a", "b"]', "tokenizer.file=x.model"])
    with pytest.raises(ConfigError, match="would come to each other") as refused:
        init_federation(tmp_path / "fed", config, "127.0.0.1:1", HostConfig())
    assert "node.toml" in refused.value.hint
    assert not (tmp_path / "fed").exists()


@pytest.mark.parametrize(
    "value", ["clients.participation=0.5", "clients.late=0.1", "clients.duplicate=0.1", "record_messages=true"]
)
def test_what_a_run_plays_is_not_taken_into_a_federation(tmp_path: Path, settings: list[str], value: str) -> None:
    with pytest.raises(ConfigError, match=value.partition("=")[0]):
        init_federation(tmp_path / "fed", load_config(None, [*settings, value]), "127.0.0.1:1", HostConfig())
    assert not (tmp_path / "fed").exists()


@pytest.mark.parametrize("port", ["65536", "94430", "99999", "123456", ""])
def test_a_port_that_is_none_is_refused(port: str, tmp_path: Path) -> None:
    (tmp_path / "host.toml").write_text(f'listen = "0.0.0.0:{port}"\n', "utf-8")
    with pytest.raises(ConfigError, match="listen"):
        HostConfig.load(tmp_path / "host.toml")
    (tmp_path / "host.toml").write_text('listen = "0.0.0.0:65535"\n', "utf-8")
    assert HostConfig.load(tmp_path / "host.toml").listen == "0.0.0.0:65535"
