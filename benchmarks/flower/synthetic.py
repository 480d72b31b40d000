# SPDX-License-Identifier: Apache-2.0
"""A federation of clients that train nothing: `trustformer serve` as it is, and clients that send random updates.

python benchmarks/flower/synthetic.py FOLDER CLIENT      (one client; started by scale.py)
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

from trustformer.attestation.policy import Policy
from trustformer.attestation.simulated import SimulatedAttester
from trustformer.enclave.config import RunConfig
from trustformer.enclave.measurement import simulated_measurement
from trustformer.enclave.protocol import NO_HASH
from trustformer.experiment.config import ClientsConfig, Config
from trustformer.federation.channel import Channel, Position
from trustformer.federation.common import longest_answer
from trustformer.flower.bundle import bundle_hash, make_bundle
from trustformer.flower.conversation import Conversation
from trustformer.flower.keys import make_node_key, make_tls
from trustformer.flower.node import Node
from trustformer.flower.settings import HostConfig
from trustformer.message import Coding, Dense, Group, Layout, TensorSpec, Update
from trustformer.secure.identity import Identity
from trustformer.vq import body_size

COMMON = bytes(32)
"""Stands for the digest of G: nobody holds one here."""


class NoJournal:
    """Keeps nothing."""

    def verification(self, client_id: str, record: object) -> None:
        """A quote was verified."""

    def welcome(self, client_id: str, signed: bytes) -> None:
        """A hello was answered."""

    def receipt(self, client_id: str, signed: bytes) -> None:
        """An upload was answered."""


def make(folder: Path, clients: int, parameters: int, coding: Coding, rounds: int, address: str) -> None:
    """Write what `serve` and the clients need; the model is sixteen tensors in two groups, as of micro/enclave.py."""
    tensors = tuple(TensorSpec(f"w{i}", (parameters // 16,)) for i in range(16))
    layout = Layout((Group(coding, tensors[:8]), Group(coding, tensors[8:])))
    identities = {str(index): Identity.generate() for index in range(clients)}
    terms = RunConfig(
        run_id=os.urandom(16),
        provider="simulated",
        experiment=bytes(32),
        common_digest=COMMON,
        roster=tuple((client, identity.public) for client, identity in identities.items()),
        min_clients=clients,
        max_share_ppm=1_000_000,
        rounds=rounds,
        seed=1,
        upload=layout,
        answer=layout,
    )
    host = folder / "host"
    for path in (host / "nodes", host / "enclave"):
        path.mkdir(parents=True)
    (host / "terms.bin").write_bytes(terms.to_bytes())
    config = Config(clients=ClientsConfig(max_lag=rounds))
    (host / "config.toml").write_text(config.to_toml(), "utf-8")
    (host / "host.toml").write_text(HostConfig(listen=address).to_toml(), "utf-8")
    make_tls(host / "tls", ["127.0.0.1", "localhost"])
    root = SimulatedAttester.create(
        host / "enclave" / "simulated", measurement=simulated_measurement(), now=int(time.time())
    )
    lines = ["allow_simulated = true", f'root_ca_sha256 = ["{root.root_sha256}"]']
    (folder / "policy.toml").write_text("\n".join([*lines, f'mrenclave = ["{root.mrenclave.hex()}"]\n']), "utf-8")
    for client, identity in identities.items():
        identity.save(folder / f"{client}.identity")
        make_node_key(folder / f"{client}.node", host / "nodes" / f"{client}.pub")


def random_body(layout: Layout, rng: np.random.Generator) -> bytes:
    """A body of the right form without k-means: random centroids, scales and codes."""
    parts = []
    for group in layout.groups:
        size = body_size(Layout((group,)))
        if isinstance(group.coding, Dense):
            parts.append((rng.standard_normal(size // 4, np.float32) * np.float32(0.01)).tobytes())
            continue
        entries = group.coding.clusters * group.coding.block
        parts += [np.full(1, 0.01, "<f4").tobytes(), rng.standard_normal(entries).astype("<f2").tobytes()]
        parts.append(rng.bytes(size - 4 - 2 * entries))
    return b"".join(parts)


def take_part(folder: Path, client: str) -> None:
    """One client to the end of the run: verify, catch up, seal, send."""
    host, rng = folder / "host", np.random.default_rng(int(client))
    terms = RunConfig.from_bytes((host / "terms.bin").read_bytes())
    node = Node(
        *(HostConfig.load(host / "host.toml").listen, host / "tls" / "ca.crt", folder / f"{client}.node"),
        *(bundle_hash(make_bundle()), folder / f"{client}.id", longest_answer(terms, {}, terms.rounds)),
    )
    line = Conversation(node, 600.0, print)
    channel = Channel(
        *(client, Identity.load(folder / f"{client}.identity"), terms),
        policy=Policy.load(folder / "policy.toml"),
        link=line,
        journal=NoJournal(),
    )
    position = Position(0, NO_HASH, COMMON)
    while True:
        command = line.command()
        welcome = channel.hello(position)
        if welcome.round > position.round:
            for manifest, _ in channel.sync(position):
                position = Position(manifest.round, manifest.hash, COMMON)
            channel.hello(position)
        if command.kind == "finish":
            line.done("finished")
            node.close(leave=False)
            return
        body = random_body(terms.upload, rng)
        line.trained = command.round
        line.done(channel.upload(Update(command.round, COMMON, 100, os.urandom(32), body)))


if __name__ == "__main__":
    take_part(Path(sys.argv[1]), sys.argv[2])
