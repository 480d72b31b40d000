# SPDX-License-Identifier: Apache-2.0
"""The host's end: passes clients' requests to the enclave and its answers back, and decides when a round is closed.

It decides nothing about content and cannot: what it sees are the kinds and lengths of messages. A round is closed when
every client that is online has sent, or at its deadline with at least `min_clients`; what comes later is late. With
fewer, the enclave drops what it had and the round is tried again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trustformer.errors import EnclaveLostError, ProtocolError, TrustformerError
from trustformer.federation.host import Host, Link
from trustformer.flower.parcel import Parcel
from trustformer.flower.post import Post
from trustformer.flower.record import Record
from trustformer.flower.settings import HostConfig
from trustformer.message import enc

POLL = (0.02, 0.3)
"""Seconds between two questions for replies: right after one, and after a while without."""
_NODES_EVERY = 1.0
_STATUS_EVERY = 10.0
_RETRY = (0.2, 10.0)
"""Seconds until a client that failed is asked again: at first, and after many times."""


@dataclass
class Line:
    """The conversation with one client's node.

    Attributes:
        waiting: ids of messages without a reply yet; the last one is what counts.
        round: of the last command; 0 for `finish`.
        working: whether the client has not yet said what the last command came to.
        probe: id of a message that only asks whether the client's process is still the same.
        heard: when it last said anything.
        failures: in a row; after each, it is asked again at `retry`.
        out: why it is not asked any more in this round.
    """

    node: int
    client: str
    link: Link
    online: bool = False
    waiting: list[str] = field(default_factory=list)
    round: int = -1
    working: bool = False
    probe: str = ""
    heard: float = 0.0
    failures: int = 0
    retry: float = 0.0
    out: str = ""


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
        self._post, self._host, self._record, self._note = post, host, record, note
        self._min_clients, self._rounds, self._settings = min_clients, rounds, settings
        self._lines = {node: Line(node, client, host.link(client)) for node, client in clients.items()}
        self._asked: dict[str, tuple[Line, int, bytes]] = {}  # message to a sponsor -> who asked, its call, the request
        self._nodes_at = self._status_at = 0.0
        self._seen: set[str] = set()
        self._idle = POLL[0]

    def run(self) -> None:
        """Close every round that is left and let the clients finish.

        Raises:
            TrustformerError: a round has too few clients for too long, or the enclave cannot go on.
            httpx.HTTPError: the SuperLink is gone; what the enclave has closed stays closed.
        """
        self._record.restore(self._host)
        for number in range(self._host.round + 1, self._rounds + 1):
            self._round(number)
        self._finish()

    def _round(self, number: int) -> None:
        started = time.monotonic()
        attempt, deadline = 1, started + self._settings.deadline
        for line in self._lines.values():
            line.out, line.failures, line.retry = "", 0, 0.0
        self._record.open(number)
        while True:
            try:
                if self._gather(number, deadline, started):
                    self._host.close(number)
                    break
                attempt += 1
                if attempt > self._settings.attempts:
                    raise TrustformerError(
                        f"round {number}: {self._shortage(number)}, {attempt - 1} times",
                        "when they are back, start serve again: it goes on with this round",
                    )
                self._note(f"round {number}: {self._shortage(number)}; try {attempt} of {self._settings.attempts}")
                deadline = time.monotonic() + self._settings.deadline
                self._host.close(number)  # too few: the enclave drops them, and the next try begins
            except ProtocolError as error:
                self._note(f"round {number}: {error.message}")
            except EnclaveLostError as lost:
                self._note(f"round {number}: {lost.message}")
        self._record.close(number, self._host)
        self._note(self._record.line(number, self._rounds))

    def _gather(self, number: int, deadline: float, started: float) -> bool:
        """Collect updates until the round may be closed; False when the deadline comes with too few."""
        while True:
            self._pump()
            if self._host.round >= number:
                return True
            accepted = set(self._host.accepted)
            self._command(Parcel("take part", number), accepted)
            late = time.monotonic() >= deadline
            missing = [line.client for line in self._lines.values() if self._expected(line, late) and not line.out]
            missing = [client for client in missing if client not in accepted]
            if len(accepted) >= self._min_clients and (late or not missing):
                if missing:
                    self._note(f"round {number}: closed at its deadline without {', '.join(missing)}")
                return True
            if late:
                return False
            self._status(number, accepted, deadline, started)
            self._pause()

    def _pause(self) -> None:
        time.sleep(self._idle)
        self._idle = min(1.3 * self._idle, POLL[1])

    def _expected(self, line: Line, late: bool) -> bool:
        """Whether a round waits for this client: it is online, or was not here yet since serve began."""
        return line.online or (line.client not in self._seen and not late)

    def _shortage(self, number: int) -> str:
        accepted = set(self._host.accepted)
        missing = [
            f"{line.client} ({line.out or ('at work' if line.working else 'online') if line.online else 'offline'})"
            for line in self._lines.values()
            if line.client not in accepted
        ]
        return f"{len(accepted)} of the {self._min_clients} updates needed; without {', '.join(missing)}"

    def _finish(self) -> None:
        """Let every client that is online take over the last round and end."""
        deadline = time.monotonic() + self._settings.deadline
        for line in self._lines.values():
            line.out, line.failures, line.retry = "", 0, 0.0
        self._note("all rounds are closed; clients take over the last one")
        while time.monotonic() < deadline:
            self._pump()
            done = self._record.finished
            self._command(Parcel("finish"), done)
            self._record.save_late()
            waiting = [line for line in self._lines.values() if line.client not in done and not line.out]
            if not any(self._expected(line, late=False) for line in waiting):
                break
            self._pause()
        self._pump()  # what a client said before it left
        missing = [line.client for line in self._lines.values() if line.client not in self._record.finished]
        if missing:
            self._note(
                f"without the last round: {', '.join(missing)}; when they are back, start serve again and they join"
            )

    # ---- messages ----

    def _command(self, parcel: Parcel, done: set[str]) -> None:
        """Ask everyone online that has not done it yet; ask again whoever failed, fell silent or began anew."""
        now = time.monotonic()
        if now >= self._nodes_at:
            self._nodes_at = now + _NODES_EVERY
            self._look(self._post.nodes())
        for line in self._lines.values():
            if not line.online or line.client in done or line.out or now < line.retry:
                continue
            if not line.working or line.round != parcel.round:
                line.round, line.working, line.probe = parcel.round, True, ""
                self._send(line, parcel)
            elif not line.probe and now - line.heard > self._settings.probe:
                line.probe = self._send(line, parcel)

    def _look(self, online: set[int]) -> None:
        for line in self._lines.values():
            if (line.node in online) != line.online:
                line.online = line.node in online
                self._note(f"client {line.client} is {'online' if line.online else 'offline'}")
                line.working, line.retry = False, 0.0
                self._seen.add(line.client)

    def _send(self, line: Line, parcel: Parcel) -> str:
        sent = self._post.send(line.node, parcel)
        line.waiting.append(sent)
        line.heard = time.monotonic()
        return sent

    def _pump(self) -> None:
        """Handle every reply that has come in."""
        waiting = {sent: line for line in self._lines.values() for sent in line.waiting}
        if not waiting:
            return
        for sent, parcel in self._post.replies(list(waiting)):
            line = waiting.get(sent)
            if line is not None and sent in line.waiting:
                newest = line.waiting[-1] == sent
                line.waiting.remove(sent)
                self._idle = POLL[0]
                self._handle(line, parcel, sent, newest)

    def _handle(self, line: Line, parcel: Parcel | None, sent: str, newest: bool) -> None:
        if parcel is None:
            if newest:
                line.working = False
            return
        line.heard = time.monotonic()
        if sent == line.probe:
            line.probe = ""
        self._record.heard(line.client, parcel.round)
        if sent in self._asked:
            self._sponsored(sent, line, parcel)
        elif parcel.kind in ("hello", "upload", "sync"):
            self._answer(line, parcel)
        elif parcel.kind == "common":
            self._find_sponsor(line, parcel)
        elif parcel.kind in ("done", "failed"):
            self._settle(line, parcel)

    def _settle(self, line: Line, parcel: Parcel) -> None:
        line.working = False
        if parcel.kind == "done":
            line.failures = 0
            if parcel.note == "finished":
                self._record.finish(line.client)
            self._record.status(line.client, parcel.note)
            if parcel.note == "refused":
                line.out = "refused by the enclave"
            if parcel.note not in ("accepted", "finished"):
                line.retry = time.monotonic() + _RETRY[0]
            return
        line.failures += 1
        line.retry = time.monotonic() + min(_RETRY[0] * 1.6**line.failures, _RETRY[1])
        if line.failures == 1 or line.failures % 10 == 0:
            self._note(f"client {line.client} failed with {parcel.note[:60]!r}; it is asked again")

    def _answer(self, line: Line, parcel: Parcel) -> None:
        try:
            if parcel.kind == "hello":
                body = line.link.hello(parcel.body)
            elif parcel.kind == "upload":
                body = line.link.upload(parcel.body)
            else:
                body = line.link.sync(parcel.body, parcel.after, manifests_only=parcel.note == "manifests")
            answer = Parcel("answer", call=parcel.call, body=body)
        except TrustformerError as error:
            if isinstance(error, EnclaveLostError):
                self._note(error.message)
            answer = _error(error, parcel.call)
        self._send(line, answer)

    # ---- the dense common model, from one client to another ----

    def _find_sponsor(self, line: Line, parcel: Parcel) -> None:
        current = [other for other in self._lines.values() if other.online and not other.working and other is not line]
        current = [other for other in current if other.client in self._record.current(self._host.round)]
        if not current:
            error = ProtocolError("no client that is up to date is free to share the common model", "it is tried again")
            self._send(line, _error(error, parcel.call))
            return
        sent = self._send(current[0], Parcel("sponsor", body=parcel.body))
        self._asked[sent] = (line, parcel.call, parcel.body)

    def _sponsored(self, sent: str, sponsor: Line, parcel: Parcel) -> None:
        line, call, request = self._asked.pop(sent)
        if parcel.kind != "done":
            error = ProtocolError(f"client {sponsor.client} could not share the common model", "it is tried again")
            self._send(line, _error(error, call))
            return
        reply = line.link.ask_common(request, lambda _: sponsor.link.answer_common(parcel.body))
        self._send(line, Parcel("answer", call=call, body=enc(sponsor.client, reply)))

    def _status(self, number: int, accepted: set[str], deadline: float, started: float) -> None:
        now = time.monotonic()
        if now < self._status_at:
            return
        self._status_at = now + _STATUS_EVERY
        online = [line.client for line in self._lines.values() if line.online]
        self._note(
            f"round {number} of {self._rounds}: online {len(online)}/{len(self._lines)}"
            f" ({', '.join(online) or 'nobody'}), sent {len(accepted)} of at least {self._min_clients}"
            f", {now - started:,.0f} s, deadline in {deadline - now:,.0f} s{self._record.left(number, self._rounds)}"
        )


def _error(error: TrustformerError, call: int) -> Parcel:
    body = enc(type(error).__name__, error.message, error.hint)
    return Parcel("error", call=call, note=type(error).__name__, body=body)
