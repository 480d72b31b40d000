# SPDX-License-Identifier: Apache-2.0
"""The parties of a run in one process, built new or taken up from its directory."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from trustformer.attestation.handshake import VerificationRecord
from trustformer.attestation.policy import Policy
from trustformer.attestation.simulated import SimulatedAttester
from trustformer.enclave.config import RunConfig
from trustformer.enclave.measurement import simulated_measurement
from trustformer.enclave.session import Enclave
from trustformer.enclave.state import StateStore
from trustformer.evaluation.tasks import Task
from trustformer.experiment.config import Config
from trustformer.experiment.guarantee import Guarantee
from trustformer.experiment.prepare import Prepared
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.terms import Shared, agreed_terms
from trustformer.federation.channel import Channel
from trustformer.federation.client import Client
from trustformer.federation.host import Host
from trustformer.federation.interfaces import Trainer
from trustformer.federation.ledger import Ledger, append, whole_lines
from trustformer.federation.remote import RemoteEnclave
from trustformer.federation.store import ClientStore
from trustformer.federation.tap import Tap, TappedChannel, TappedLink
from trustformer.methods import Method
from trustformer.models.seq2seq import Model
from trustformer.secure.identity import Identity
from trustformer.training import LocalTrainer, RecordTrainer


@dataclass(frozen=True)
class Federation:
    """The parties of a run; `host` is None where nothing is exchanged, `process` where the enclave has none."""

    clients: list[Client]
    host: Host | None
    ledger: Ledger
    process: RemoteEnclave | None = None

    def stop(self) -> None:
        """End the enclave's process."""
        if self.process is not None:
            self.process.stop()


class RunJournal:
    """Keeps verification records in `attestation.json`, signed messages in `welcomes.jsonl` and `receipts.jsonl`."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        kept = directory.read_json("attestation.json")
        self._records = kept["verifications"] if kept else []
        for name in ("welcome", "receipt"):
            if (path := self._path(name)).exists():
                whole_lines(path)  # the next one begins a line of its own

    def verification(self, client_id: str, record: VerificationRecord) -> None:
        """Add one appraisal."""
        self._records.append({"client": client_id, **record.to_dict()})
        self._directory.write_json("attestation.json", {"verifications": self._records})

    def welcome(self, client_id: str, signed: bytes) -> None:
        """Add one signed welcome."""
        self._add("welcome", client_id, signed)

    def receipt(self, client_id: str, signed: bytes) -> None:
        """Add one signed receipt."""
        self._add("receipt", client_id, signed)

    def _add(self, name: str, client_id: str, signed: bytes) -> None:
        append(self._path(name), json.dumps({"client": client_id, name: base64.b64encode(signed).decode()}))

    def _path(self, name: str) -> Path:
        return self._directory.path / f"{name}s.jsonl"


def assemble(config: Config, prepared: Prepared, directory: RunDirectory, rounds: int) -> Federation:
    """Build or take up clients, enclave and host from a run directory."""
    trainer = make_trainer(config, prepared.model, prepared.method, prepared.task, prepared.guarantee)
    return connect(config, prepared, directory, rounds, lambda client: trainer)


def connect(
    config: Config, prepared: Shared, directory: RunDirectory, rounds: int, trainer_of: Callable[[str], Trainer]
) -> Federation:
    """Build or take up the parties; `trainer_of` gives what trains a client's weights."""
    ledger = Ledger(directory.path / "ledger.jsonl")
    folders = {client: directory.path / "clients" / client for client in prepared.clients}
    codec, host, channel_of, process = prepared.method.codec, None, None, None
    if codec is not None:
        identities = {client: _identity(folder) for client, folder in folders.items()}
        terms = agreed_terms(config, prepared, codec, identities, directory, rounds)
        attester = simulated_root(directory)
        enclave = _enclave(config, terms, directory, attester)
        process = enclave if isinstance(enclave, RemoteEnclave) else None
        host = Host(enclave, directory.path / "host", ledger, max_lag=config.clients.max_lag)
        tap = Tap(directory.path / "messages", ledger) if config.record_messages else None
        channel_of = _channels(terms, identities, host, directory, attester, ledger, tap)
    with ExitStack() as undo:
        if process is not None:
            undo.callback(process.stop)  # a damaged client state must not leave a process behind
        clients = [
            Client(
                *(client, index, examples),
                trainer=trainer_of(client),
                store=ClientStore(folders[client]),
                start=prepared.start,
                common=prepared.common,
                codec=codec,
                weighted=prepared.method.weighted,
                channel=channel_of(client) if channel_of else None,
                seed=config.seed,
                max_lag=config.clients.max_lag,
            )
            for index, (client, examples) in enumerate(prepared.clients.items())
        ]
        undo.pop_all()
    return Federation(clients, host, ledger, process)


def make_trainer(config: Config, model: Model, method: Method, task: Task, promise: Guarantee | None) -> LocalTrainer:
    """What trains weights as the config says: with the noise of a promise where that is of `records`."""
    if promise is None or config.privacy.mechanism != "records":
        return LocalTrainer(
            *(model, config.train, method.rule),
            objective=task.objective,
            rounds=config.rounds,
        )
    return RecordTrainer(
        *(model, config.train),
        noise_multiplier=promise.noise_multiplier,
        clipping_norm=config.privacy.clipping_norm,
        batch_pairs=config.privacy.batch_pairs,
        rounds=config.rounds,
    )


def _enclave(
    config: Config, terms: RunConfig, directory: RunDirectory, attester: SimulatedAttester
) -> Enclave | RemoteEnclave:
    folder = directory.path / "enclave"
    if not config.enclave.process:
        return Enclave(terms, StateStore(folder, terms.digest), attester)
    return RemoteEnclave(
        *(directory.path / "terms.bin", folder),
        provider=terms.provider,
        evidence=folder / "simulated",
        log=folder / "log.txt",
        restarts=config.enclave.restarts,
    )


def _channels(
    terms: RunConfig,
    identities: dict[str, Identity],
    host: Host,
    directory: RunDirectory,
    attester: SimulatedAttester,
    ledger: Ledger,
    tap: Tap | None,
) -> Callable[[str], Channel]:
    journal = RunJournal(directory)
    policy = simulated_policy(directory, attester)

    def channel(client: str) -> Channel:
        if tap is None:
            return Channel(client, identities[client], terms, policy=policy, link=host.link(client), journal=journal)
        link = TappedLink(host, client, ledger, tap)
        tapped = TappedChannel(client, identities[client], terms, policy=policy, link=link, journal=journal)
        tapped.tap = tap
        return tapped

    return channel


def simulated_root(directory: RunDirectory) -> SimulatedAttester:
    """The root of a run's simulated quotes: made once, then read again."""
    folder, measurement = directory.path / "enclave" / "simulated", simulated_measurement()
    if (folder / "mrenclave").exists():  # the last file `create` writes
        return SimulatedAttester.load(folder, measurement=measurement)
    for file in folder.glob("*"):
        file.unlink()  # a crash in the middle of making a root that nobody has pinned yet
    return SimulatedAttester.create(folder, measurement=measurement, now=int(time.time()))


def simulated_policy(directory: RunDirectory, attester: SimulatedAttester) -> Policy:
    """The clients' policy: written when the run begins, and from then on what they insist on."""
    path = directory.path / "policy.toml"
    if not path.exists():
        lines = [
            "# What this run's clients let read their updates. SIMULATED: it proves nothing about hardware.",
            "allow_simulated = true",
            f'root_ca_sha256 = ["{attester.root_sha256}"]',
            f'mrenclave = ["{attester.mrenclave.hex()}"]',
        ]
        directory.write("policy.toml", ("\n".join(lines) + "\n").encode())
    return Policy.load(path)


def _identity(folder: Path) -> Identity:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "identity.key"
    if path.exists():
        return Identity.load(path)
    identity = Identity.generate()
    identity.save(path)
    return identity
