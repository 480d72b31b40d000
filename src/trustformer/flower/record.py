# SPDX-License-Identifier: Apache-2.0
"""Who took part in which round: `rounds.jsonl`, in the form that `trustformer run` replays (`clients.cohorts`).

Who was combined stands in the manifests. Who trained and was not is known from the clients, who say with every
message how far they have trained: one that trained for a round and was not combined is recorded as late.
"""

from __future__ import annotations

import json
import time
from typing import Any

from trustformer.enclave.protocol import MAX_MESSAGE, Manifest, split_signed
from trustformer.errors import ProtocolError
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.reporter import duration
from trustformer.federation.host import Host, split_kept
from trustformer.federation.ledger import Ledger

STANDING = "standing by"
"""What a client says that has nothing more to do and stays for the others."""


class Record:
    """The host's record of a deployment.

    Args:
        directory: of the host.
        clients: ids of the roster.
        ledger: the bytes that were carried.
    """

    def __init__(self, directory: RunDirectory, clients: tuple[str, ...], ledger: Ledger) -> None:
        self._directory, self._clients, self._ledger = directory, clients, ledger
        self._rounds: dict[int, dict[str, Any]] = {record["round"]: record for record in directory.rounds()}
        self._trained: dict[int, set[str]] = {n: set(record["present"]) for n, record in self._rounds.items()}
        self._statuses: dict[str, str] = {}
        self._unknown: set[int] = set()
        self._started = time.monotonic()
        self.finished: set[str] = set(directory.read_json("finished.json") or ())
        """Clients that have taken over the last round and ended."""

    def finish(self, client: str) -> None:
        """A client has taken over the last round: nobody waits for it any more, whoever is started again."""
        if client not in self.finished:
            self.finished.add(client)
            self._directory.write_json("finished.json", sorted(self.finished))

    def restore(self, host: Host) -> list[int]:
        """Add the rounds that the enclave has closed and a crash kept from being recorded.

        Returns:
            Those found now whose released data the host has lost: nobody knows who took part, and they stay out.
        """
        lost = []
        for number in sorted(set(range(1, host.round + 1)) - self._rounds.keys() - self._unknown):
            try:
                self.close(number, host)
            except ProtocolError:  # of the host, or of an enclave that learned its newest round from clients
                lost.append(number)
        self._unknown.update(lost)
        return lost

    def open(self, number: int) -> None:
        """Round `number` begins."""
        self._ledger.round, self._statuses, self._started = number, {}, time.monotonic()

    def heard(self, client: str, trained: int) -> None:
        """A client says how far it has trained; of a closed round that is written before the client goes on."""
        known = self._trained.setdefault(trained, set())
        if client not in known:
            known.add(client)
            if trained in self._rounds:
                self._write()

    def status(self, client: str, status: str) -> None:
        """A client's receipt in the open round."""
        self._statuses[client] = status

    @property
    def standing(self) -> set[str]:
        """Clients that had finished earlier and are here for the others."""
        return {client for client, status in self._statuses.items() if status == STANDING}

    def close(self, number: int, host: Host) -> None:
        """Round `number` is closed: write who was combined, who was late, and what it took."""
        self._rounds[number] = {
            "round": number,
            "combined": list(self._combined(number, host)),
            "status": self._statuses,
            "bytes_up": self._ledger.total("up", [number]),
            "bytes_down": self._ledger.total("down", [number]),
            "seconds": {"round": round(time.monotonic() - self._started, 3)},
        }
        self._write()

    def _write(self) -> None:
        for number, record in self._rounds.items():
            combined = record["combined"]
            trained = self._trained.get(number, set()) | set(combined)
            record["present"] = [client for client in self._clients if client in trained]
            record["late"] = [client for client in record["present"] if client not in combined]
        lines = [json.dumps(self._rounds[number]) + "\n" for number in sorted(self._rounds)]
        self._directory.write("rounds.jsonl", "".join(lines).encode())

    @staticmethod
    def _combined(number: int, host: Host) -> list[str]:
        data = host.kept(number)
        signed = split_kept(data, len(data))[0]
        manifest = Manifest.from_bytes(split_signed(signed, "manifest")[0])
        assert len(signed) <= MAX_MESSAGE
        return [client for client, _ in manifest.uploads]

    @property
    def last(self) -> int:
        """The last round known to be closed; 0 before the first."""
        return max({*self._rounds, *self._unknown}, default=0)

    @property
    def current(self) -> set[str]:
        """Clients that hold the last round: combined in it, or trained for the next one."""
        return self._trained.get(self.last + 1, set()) | set(self._rounds.get(self.last, {}).get("combined", ()))

    def line(self, number: int, rounds: int) -> str:
        """What a person wants to know of a closed round."""
        record = self._rounds[number]
        up, down = (sum(record[f"bytes_{way}"].values()) for way in ("up", "down"))
        late = f", late {', '.join(record['late'])}" if record["late"] else ""
        return (
            f"round {number} of {rounds}: combined {', '.join(record['combined'])}{late}; "
            f"of all clients {up:,} bytes up, {down:,} down, {record['seconds']['round']:,.1f} s"
            f"{self.left(number + 1, rounds)}"
        )

    def left(self, number: int, rounds: int) -> str:
        """Time until the end at the pace so far; nothing before the first round is done."""
        times = [record["seconds"]["round"] for record in self._rounds.values()]
        if not times or number > rounds:
            return ""
        return f", about {duration((rounds - number + 1) * sum(times) / len(times))} left"
