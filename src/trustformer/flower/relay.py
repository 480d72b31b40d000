# SPDX-License-Identifier: Apache-2.0
"""The host's end: when a round is closed, tried again or given up, and who is waited for.

It decides nothing about content and cannot: what it sees are the kinds and lengths of messages. A round is closed when
every client that is online has sent, or at its deadline with at least `min_clients`; what comes later is late. With
fewer, the enclave drops what it had and the round is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from trustformer.errors import EnclaveLostError, ProtocolError, TrustformerError
from trustformer.experiment.reporter import duration
from trustformer.federation.host import Host
from trustformer.flower.parcel import Parcel
from trustformer.flower.post import Post
from trustformer.flower.record import Record
from trustformer.flower.roll import absent, lacking, names
from trustformer.flower.settings import HostConfig
from trustformer.flower.switchboard import Line, Switchboard

_LONG = 15.0
"""Seconds: until it is said what the end may be waiting for, and for clients that are let go."""
_COMING = 5.0
"""Seconds for clients to connect where all had finished before: one of them may be waiting to be let go."""
_STATUS_EVERY = (10.0, 60.0)
"""Seconds between two lines about who is waited for: in the first minute of a wait, and after it."""
_REFUSED = 10.0
"""Seconds until a close that the enclave refused is tried again: clients that confirm its state may come by then."""


class Relay:
    """Carries one run from wherever the enclave is to its last round.

    Args:
        post: reaches the nodes.
        clients: node id to client id, as registered.
        host: relays to the enclave.
        min_clients: fewest updates of a round; the enclave insists on it too.
        rounds: last exchange of the run.
        settings: how long to wait.
        record: keeps who took part.
        note: shows one line.
    """

    def __init__(
        self,
        post: Post,
        clients: Mapping[int, str],
        host: Host,
        *,
        min_clients: int,
        rounds: int,
        settings: HostConfig,
        record: Record,
        note: Callable[[str], None],
    ) -> None:
        self._host, self._record, self._note = host, record, note
        self._min_clients, self._rounds, self._settings = min_clients, rounds, settings
        self._board = Switchboard(post, clients, host, probe=settings.probe, record=record, note=note)
        self._status_at = 0.0

    def run(self) -> None:
        """Close every round that is left and let the clients finish.

        Raises:
            TrustformerError: a round has too few clients for too long, the enclave refuses to close it whatever clients
                say, or cannot go on.
            httpx.HTTPError: the SuperLink is gone; what the enclave has closed stays closed.
        """
        while True:
            try:
                self._restore()
                while (done := self._host.round) < self._rounds:
                    self._round(done + 1)
                break
            except EnclaveLostError as lost:
                self._note(lost.message)
        self._finish()

    def _round(self, number: int) -> None:
        started = earliest = time.monotonic()
        attempt, deadline = 1, started + self._settings.deadline
        self._board.renew()
        self._record.open(number)
        while True:
            try:
                if self._gather(number, earliest, deadline, started):
                    self._host.close(number)
                    break
                hint = "when they are back, start serve again: it goes on with this round"
                attempt = self._next_try(number, attempt, self._shortage(), hint)
                deadline = time.monotonic() + self._settings.deadline
                with suppress(ProtocolError):  # too few: the enclave drops them, and the next try begins
                    self._host.close(number)
            except ProtocolError as error:
                if self._host.round >= number:  # known from clients to an enclave without its state: it was kept then
                    break
                hint = "bring back whoever holds the newest round, or keep away who only claims to; then serve again"
                attempt = self._next_try(number, attempt, error.message, hint)
                earliest = time.monotonic() + min(_REFUSED, self._settings.deadline)
            except EnclaveLostError as lost:
                self._note(f"round {number}: {lost.message}")
        if number > self._record.last and number not in self._restore():
            self._note(self._record.line(number, self._rounds))

    def _restore(self) -> list[int]:
        """Record what is closed; return the rounds of which nothing can be."""
        lost = self._record.restore(self._host)
        if lost:
            which = names(f"round {number}" for number in lost)
            self._note(f"{which}: gone from released/, so who took part is not known; whoever lacks it needs a dense G")
        return lost

    def _next_try(self, number: int, attempt: int, why: str, hint: str) -> int:
        """Say why a round is tried again; raises `TrustformerError` after the last try."""
        if attempt >= self._settings.attempts:
            raise TrustformerError(f"round {number}: {why}, {attempt} times", hint)
        self._note(f"round {number}: {why}; try {attempt + 1} of {self._settings.attempts}")
        self._board.renew()
        return attempt + 1

    def _gather(self, number: int, earliest: float, deadline: float, started: float) -> bool:
        """Collect updates until the round may be closed, not before `earliest`; False at the deadline with too few."""
        while True:
            self._board.pump()
            if self._host.round >= number:
                return True
            accepted = set(self._host.accepted)
            self._board.command(Parcel("take part", number), accepted)
            now = time.monotonic()
            late, enough = now >= deadline, len(accepted) >= self._min_clients
            rest = [line for line in self._board.lines if line.client not in accepted]
            waited = any(self._expected(line) and not line.out for line in rest)
            if enough and now >= earliest and (late or not waited):
                if late and (missing := lacking(rest, accepted)):
                    self._note(f"round {number}: closed at its deadline without {missing}")
                return True
            if late and not enough:
                return False
            self._status(number, accepted, deadline, started)
            self._board.pause()

    @staticmethod
    def _expected(line: Line) -> bool:
        """Whether this client is waited for until the deadline: it is online, or was not here yet since serve began."""
        return line.online or line.since is None

    def _shortage(self) -> str:
        accepted = set(self._host.accepted)
        missing = lacking(self._board.lines, accepted)
        return f"{len(accepted)} of the {self._min_clients} updates needed; without {missing}"

    def _finish(self) -> None:
        """Let every client that is online take over the last round and end."""
        started = time.monotonic()
        clients = {line.client for line in self._board.lines}
        earlier, told = set(self._record.finished), False
        self._board.renew()
        self._note("all rounds are closed; clients take over the last one")
        while time.monotonic() - started < self._settings.deadline:
            self._board.pump()
            done = self._record.finished
            self._board.command(Parcel("finish"), done)
            waiting = [line for line in self._board.lines if line.client not in done and not line.out]
            if not any(self._expected(line) for line in waiting):
                break
            self._end_status(waiting, started)
            # A new boot of the enclave gives out the last round when enough clients have told it that they hold it.
            self._board.command(Parcel("stand by"), clients - self._back() | self._record.standing)
            if earlier and not told and time.monotonic() - started > _LONG:
                told = True
                who = names(line.client for line in waiting)
                self._note(f"{who}: may need clients that have finished to join again")
            self._board.pause()
        self._dismiss(clients, started + (_COMING if earlier == clients else 0))
        self._board.pump()  # what a client said before it left
        missing = [line.client for line in self._board.lines if line.client not in self._record.finished]
        if missing:
            self._note(f"without the last round: {names(missing)}; when they are back, start serve again and they join")
        else:
            self._note(f"finished: all {len(clients)} clients have the last round")

    def _back(self) -> set[str]:
        """Clients that had finished and have come again, whether or not they have said so yet."""
        finished = self._record.finished
        return {line.client for line in self._board.lines if line.online and not line.over and line.client in finished}

    def _dismiss(self, clients: set[str], coming: float) -> None:
        """Let clients go that had finished and came back to stand by, or come back until `coming`."""
        until = time.monotonic() + _LONG
        while ((back := self._back()) or time.monotonic() < coming) and time.monotonic() < until:
            self._board.command(Parcel("finish"), clients - back)
            self._board.pause()
            self._board.pump()

    def _due(self, started: float) -> bool:
        """Whether a person has not been told for a while how it stands; `started`: when this wait began."""
        if (now := time.monotonic()) < self._status_at:
            return False
        self._status_at = now + _STATUS_EVERY[now - started >= _STATUS_EVERY[1]]
        return True

    def _status(self, number: int, accepted: set[str], deadline: float, started: float) -> None:
        if not self._due(started):
            return
        lines, now = self._board.lines, time.monotonic()
        online = [line.client for line in lines if line.online]
        self._note(
            f"round {number} of {self._rounds}: online {len(online)}/{len(lines)}"
            f" ({names(online) or 'nobody'}), sent {len(accepted)} of at least {self._min_clients}"
            f", {duration(now - started)}, deadline in {duration(deadline - now)}"
            f"{self._record.left(number, self._rounds)}{absent(lines, self._board.began, deadline - now)}"
        )

    def _end_status(self, waiting: list[Line], started: float) -> None:
        if self._due(started):
            left = started + self._settings.deadline - time.monotonic()
            at_it = names(line.client for line in waiting if line.online) or "nobody"
            self._note(f"taking over the last round: {at_it}{absent(waiting, self._board.began, left)}")
