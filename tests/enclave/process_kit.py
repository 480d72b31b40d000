# SPDX-License-Identifier: Apache-2.0
"""A run's terms and clients for tests of the enclave process: channels and messages are the real ones."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trustformer.attestation.handshake import VerificationRecord
from trustformer.attestation.policy import Policy
from trustformer.attestation.simulated import SimulatedAttester
from trustformer.enclave.config import RunConfig
from trustformer.enclave.measurement import simulated_measurement
from trustformer.enclave.protocol import NO_HASH, Manifest
from trustformer.federation.channel import Channel, Position
from trustformer.federation.host import Host
from trustformer.federation.ledger import Ledger
from trustformer.federation.remote import RemoteEnclave
from trustformer.message import Aggregate, Codebook, Dense, Group, Layout, TensorSpec, Update
from trustformer.secure.identity import Identity
from trustformer.vq import decode, encode

COMMON = bytes(range(32))
LAYOUT = Layout(
    (
        Group(Codebook(4, 16), (TensorSpec("w", (24, 16)), TensorSpec("v", (16, 12)))),
        Group(Dense("float16"), (TensorSpec("b", (33,)),)),
    )
)


class NoJournal:
    def verification(self, client_id: str, record: VerificationRecord) -> None:
        pass

    def welcome(self, client_id: str, signed: bytes) -> None:
        pass

    def receipt(self, client_id: str, signed: bytes) -> None:
        pass


class Party:
    """Terms, identities and a simulated root in one folder; the enclave is a process."""

    def __init__(self, folder: Path, clients: int = 3, **terms: Any) -> None:
        self.folder = folder
        self.identities = {f"c{index}": Identity.generate() for index in range(clients)}
        self.config = replace(
            RunConfig(
                run_id=os.urandom(16),
                provider="simulated",
                experiment=bytes(32),
                common_digest=COMMON,
                roster=tuple((client, identity.public) for client, identity in self.identities.items()),
                min_clients=2,
                max_share_ppm=1_000_000,
                rounds=1000,
                seed=1,
                upload=LAYOUT,
                answer=LAYOUT,
            ),
            **terms,
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "terms.bin").write_bytes(self.config.to_bytes())
        root = SimulatedAttester.create(folder / "root", measurement=simulated_measurement(), now=int(time.time()))
        lines = ["allow_simulated = true", f'root_ca_sha256 = ["{root.root_sha256}"]']
        (folder / "policy.toml").write_text("\n".join([*lines, f'mrenclave = ["{root.mrenclave.hex()}"]\n']))
        self.policy = Policy.load(folder / "policy.toml")

    def command(self, address: Path | str, *flags: str, evidence: str = "root") -> list[str]:
        files = {"--terms": "terms.bin", "--state": "state", "--evidence": evidence}
        pairs = [text for flag, name in files.items() for text in (flag, str(self.folder / name))]
        served = ("--socket", str(address), "--provider", self.config.provider)
        return [sys.executable, "-I", "-B", "-m", "trustformer.enclave", *pairs, *served, *flags]

    def remote(self) -> RemoteEnclave:
        return RemoteEnclave(
            *(self.folder / "terms.bin", self.folder / "state"),
            provider="simulated",
            evidence=self.folder / "root",
            log=self.folder / "log.txt",
        )

    def host(self, enclave: Any, **settings: Any) -> Host:
        return Host(enclave, self.folder / "host", Ledger(self.folder / "ledger.jsonl"), max_lag=8, **settings)

    def players(self, host: Host) -> dict[str, Player]:
        return {
            client: Player(
                Channel(client, identity, self.config, policy=self.policy, link=host.link(client), journal=NoJournal())
            )
            for client, identity in self.identities.items()
        }


@dataclass
class Player:
    """One client that sends what it is told to; G is a digest here, since nothing is trained."""

    channel: Channel
    round: int = 0
    manifest_hash: bytes = NO_HASH
    acknowledged: int = 0
    acknowledged_hash: bytes = NO_HASH

    @property
    def position(self) -> Position:
        return Position(self.round, self.manifest_hash, COMMON)

    def update(self, tensors: dict[str, np.ndarray], examples: int = 10) -> Update:
        body = encode(self.channel.config.upload, tensors, np.random.default_rng(0))
        return Update(self.round + 1, COMMON, examples, os.urandom(32), body)

    def hello(self) -> None:
        self.channel.hello(self.position)

    def adopt(self) -> list[tuple[Manifest, Aggregate]]:
        adopted = list(self.channel.sync(self.position))
        for manifest, _ in adopted:
            self.round, self.manifest_hash = manifest.round, manifest.hash
        return adopted


def drift(seed: int, layout: Layout = LAYOUT, size: float = 0.01) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {t.name: (rng.standard_normal(t.shape) * size).astype(np.float32) for t in layout.tensors}


def honest_round(host: Host, players: dict[str, Player], seed: int = 0) -> dict[str, np.ndarray]:
    """Play one exchange of all players and return what it combined."""
    for player in players.values():
        player.hello()
    for index, player in enumerate(players.values()):
        assert player.channel.upload(player.update(drift(seed + index))) == "accepted"
    host.close(host.round + 1)
    bodies = {player.adopt()[-1][1].body for player in players.values()}
    assert len(bodies) == 1
    return decode(LAYOUT, bodies.pop())


def connect(path: Path, process: subprocess.Popen[bytes] | None = None) -> socket.socket:
    for _ in range(1200):
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
            connection.settimeout(60)
            return connection
        except OSError:
            connection.close()
            assert process is None or process.poll() is None, "the enclave ended"
            time.sleep(0.05)
    raise AssertionError("nobody listens")


def frame(operation: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 1) + operation + body


def read_reply(connection: socket.socket) -> bytes:
    """Status and body; empty where the enclave hung up."""
    data = b""
    while len(data) < 4 or len(data) < 4 + struct.unpack(">I", data[:4])[0]:
        try:
            more = connection.recv(65536)
        except ConnectionError:
            return b""
        if not more:
            return b""
        data += more
    return data[4:]


def all_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
