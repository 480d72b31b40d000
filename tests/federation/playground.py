# SPDX-License-Identifier: Apache-2.0
"""A federation of three clients in one process, round by round."""

from __future__ import annotations

from pathlib import Path

from trustformer.codec.weights import weights_digest
from trustformer.enclave.protocol import Manifest, split_signed
from trustformer.experiment.config import load_config
from trustformer.experiment.parties import Federation, assemble
from trustformer.experiment.prepare import prepare
from trustformer.experiment.record import RunDirectory
from trustformer.federation.client import Client
from trustformer.federation.host import Host, split_kept
from trustformer.federation.round import Cohort, run_round

ROUNDS = 6
"""Of the terms; a test plays as many as it needs."""


class Party:
    """The parties of one run directory; making another one of the same folder restarts them all."""

    def __init__(self, folder: Path, settings: list[str]) -> None:
        self.folder = folder
        self.config = load_config(None, settings)
        directory = RunDirectory(folder)
        folder.mkdir(exist_ok=True)
        self.federation: Federation = assemble(self.config, prepare(self.config), directory, ROUNDS)
        self._settings = settings

    def restarted(self) -> Party:
        return Party(self.folder, self._settings)

    @property
    def clients(self) -> list[Client]:
        return self.federation.clients

    @property
    def host(self) -> Host:
        assert self.federation.host is not None
        return self.federation.host

    def play(self, number: int, present: str = "012", late: str = "", duplicate: str = "") -> dict[str, str]:
        self.federation.ledger.round = number
        cohort = Cohort(tuple(present), tuple(late), tuple(duplicate))
        return run_round(number, self.clients, self.host, cohort, lambda *_: None)

    def manifest(self, number: int) -> Manifest:
        kept = self.host_file(number).read_bytes()
        return Manifest.from_bytes(split_signed(split_kept(kept, 2**24)[0], "manifest")[0])

    def host_file(self, number: int) -> Path:
        return self.folder / "host" / f"round-{number:05d}.sealed"

    @property
    def state_file(self) -> Path:
        return self.folder / "enclave" / "state.sealed"

    def digests(self, which: str = "012") -> set[bytes]:
        """Digests of G at these clients."""
        return {weights_digest(self.clients[int(index)].state.common) for index in which}

    def sent(self, kind: str) -> list[tuple[str, str, int]]:
        """Client, direction and length of all messages of a kind."""
        return [(e.client, e.direction, e.bytes) for e in self.federation.ledger.entries if e.kind == kind]
