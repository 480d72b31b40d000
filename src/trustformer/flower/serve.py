# SPDX-License-Identifier: Apache-2.0
"""`trustformer serve`: enclave, SuperLink and relay of a federation, on the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx

from trustformer.attestation.simulated import BANNER, SimulatedAttester
from trustformer.enclave.config import RunConfig
from trustformer.errors import ConfigError, TrustformerError
from trustformer.experiment.config import load_config
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.reporter import Reporter
from trustformer.federation.attached import AttachedEnclave
from trustformer.federation.connection import EnclaveConnection
from trustformer.federation.host import Host
from trustformer.federation.ledger import Ledger
from trustformer.federation.remote import RemoteEnclave
from trustformer.flower.agreement import read_terms
from trustformer.flower.collateral import CollateralSource
from trustformer.flower.record import Record
from trustformer.flower.relay import Relay
from trustformer.flower.settings import HostConfig
from trustformer.flower.superlink import GoneError, SuperLink


def serve(folder: Path, reporter: Reporter) -> None:
    """Serve the federation of `folder` until its last round; started again, it goes on where it was.

    Raises:
        TrustformerError: a file that is missing or damaged, too few clients for too long, or a process that does
            not stay up; what was closed stays closed.
    """
    settings, directory = HostConfig.load(folder / "host.toml"), RunDirectory(folder)
    terms = read_terms(folder / "terms.bin")
    clients = tuple(client for client, _ in terms.roster)
    nodes = {client: folder / "nodes" / f"{client}.pub" for client in clients}
    with directory.locked():
        collateral = CollateralSource(settings.collateral, folder)
        superlink = SuperLink(folder / "superlink", settings.listen, folder / "tls", nodes)
        enclave = _enclave(folder, terms, settings, reporter.note)
        try:
            ledger = Ledger(folder / "ledger.jsonl")
            config = load_config(folder / "config.toml")
            host = Host(enclave, folder / "released", ledger, max_lag=config.clients.max_lag, collateral=collateral)
            record = Record(directory, clients, ledger)
            closing = terms.rounds - config.rounds
            kinds = f" ({config.rounds} with training, {closing} exchange only)" if closing else ""
            reporter.note(
                f"run {terms.run_id.hex()}: {len(clients)} clients, {terms.rounds} rounds{kinds}, "
                f"round {record.last} done"
            )
            if terms.provider == SimulatedAttester.kind:
                reporter.note(BANNER)
            for left in range(settings.restarts, -1, -1):
                try:
                    superlink.start()
                    reporter.note(f"listening on {settings.listen}; processes: {enclave}, SuperLink {superlink.pid}")
                    with superlink.run() as post:
                        relay = Relay(
                            *(post, superlink.clients, host),
                            min_clients=terms.min_clients,
                            rounds=terms.rounds,
                            settings=settings,
                            record=record,
                            note=reporter.note,
                        )
                        relay.run()
                    return
                except (httpx.HTTPError, GoneError) as error:
                    reporter.note(
                        f"the SuperLink is gone ({type(error).__name__}); it is started again, {left} times at most"
                    )
            raise TrustformerError("the SuperLink does not stay up", f"read {folder / 'superlink' / 'superlink.log'}")
        finally:
            superlink.stop()
            enclave.stop()


def _enclave(folder: Path, terms: RunConfig, settings: HostConfig, note: Callable[[str], None]) -> EnclaveConnection:
    if settings.enclave:
        return AttachedEnclave(terms, settings.enclave, restarts=settings.restarts, note=note)
    if terms.provider != SimulatedAttester.kind:
        raise ConfigError(
            f"clients agreed on an enclave with {terms.provider} evidence, which serve cannot start",
            f"start it (docs/deploy-gramine.md) and name its address as `enclave` in {folder / 'host.toml'}",
        )
    return RemoteEnclave(
        *(folder / "terms.bin", folder / "enclave"),
        provider=terms.provider,
        evidence=folder / "enclave" / "simulated",
        log=folder / "enclave" / "log.txt",
        restarts=settings.restarts,
    )
