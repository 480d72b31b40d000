# SPDX-License-Identifier: Apache-2.0
"""The round: the page to read first.

Each client trains on its own text, sends its coded drift sealed to the enclave, and adopts what the enclave
releases. Clients that are absent, late or cut off keep their drift and catch up when they are back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from trustformer.errors import EnclaveLostError, ProtocolError
from trustformer.federation.client import BehindError, Client
from trustformer.federation.host import Host

Report = Callable[[str, str, int, int], None]
"""Called with client id, what it is doing, and how much of how much is done."""
NOBODY = "-"
"""In place of a client's id: something happened to the run."""


@dataclass(frozen=True)
class Cohort:
    """Who takes part in one round.

    Attributes:
        present: clients that train and talk to the enclave in this round.
        late: those of `present` whose update arrives after the round was closed.
        duplicate: those of `present` whose update arrives twice.
    """

    present: tuple[str, ...]
    late: tuple[str, ...] = ()
    duplicate: tuple[str, ...] = ()


def run_round(
    number: int, clients: Sequence[Client], host: Host, cohort: Cohort, report: Report, *, train: bool = True
) -> dict[str, str]:
    """Run one round and return each present client's status: accepted, late or another word of its receipt.

    Where the enclave dies on the way, the round begins again: what was done already is not redone, and what only the
    dead enclave knew is sent again.

    Args:
        number: of the round, from 1.
        clients: all clients of the run.
        host: relays to the enclave.
        cohort: who is present, late, or sends twice.
        report: for progress.
        train: False for an exchange without training.
    """
    present = [client for client in clients if client.id in cohort.present]
    statuses: dict[str, str] = {}
    while True:
        try:
            greet(present)
            for client in present:
                client.train(number, epochs=train, report=partial(report, client.id))
            _exchange(number, present, host, cohort, report, statuses)
            return statuses
        except EnclaveLostError as lost:
            report(NOBODY, lost.message, 1, 1)


def _exchange(
    number: int, present: Sequence[Client], host: Host, cohort: Cohort, report: Report, statuses: dict[str, str]
) -> None:
    def send(client: Client) -> None:
        report(client.id, "sending", 0, 1)
        status = client.contribute()
        report(client.id, "sending", 1, 1)
        if statuses.get(client.id) not in ("accepted", "late"):  # else: sent again after the enclave died
            statuses[client.id] = status
        if client.id in cohort.duplicate:
            client.contribute()

    for client in present:
        if client.id not in cohort.late:
            send(client)
    if host.round < number:
        host.close(number)
    for client in present:
        if client.id in cohort.late:
            send(client)
    for client in present:
        client.acknowledge()
    for client in present:
        report(client.id, "adopting", 0, 1)
        client.adopt()
        report(client.id, "adopting", 1, 1)


def greet(clients: Sequence[Client]) -> None:
    """Let clients verify the enclave and catch up; those too far behind take G from one that is not.

    A client is asked again when the enclave first needs to hear others (after a restart without its newest
    state), and when the enclave has learned from others that it was behind.
    """
    waiting = list(clients)
    behind: list[Client] = []
    while waiting:
        again: list[Client] = []
        failure: ProtocolError | None = None
        for client in waiting:
            try:
                client.greet()
            except BehindError:
                behind.append(client)
            except ProtocolError as error:
                failure, again = error, [*again, client]
        if failure is not None and len(again) == len(waiting):
            raise failure
        newest = max(client.channel.welcome.round for client in clients if client not in again)
        stale = [c for c in clients if c not in (*again, *behind) and c.channel.welcome.round < newest]
        waiting = [*again, *stale]
    current = [client for client in clients if client not in behind]
    if not current and any(client.state.common for client in behind):
        raise ProtocolError("every client present is too far behind to catch up", "wait for one that is up to date")
    for client in behind:
        client.ask_common((current or behind)[0])  # without a common model nobody is asked
