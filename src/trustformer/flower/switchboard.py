# SPDX-License-Identifier: Apache-2.0
"""Who is asked what: the host's conversations with all clients' nodes, one line each.

It passes requests to the enclave and answers back, asks again whoever failed, fell silent or began anew, and finds a
client that shares the common model with one that is too far behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from trustformer.attestation.errors import Refusal
from trustformer.enclave.protocol import Hello, split_signed
from trustformer.errors import EnclaveLostError, MessageError, ProtocolError, SealError, TrustformerError
from trustformer.federation.host import Host, Link
from trustformer.flower.parcel import MAX_ANSWER, Parcel
from trustformer.flower.post import Post
from trustformer.flower.record import Record
from trustformer.foreign import shown
from trustformer.message import enc

POLL = (0.02, 0.3)
"""Seconds between two questions for replies: right after one, and after a while without."""
_NODES_EVERY = 1.0
_RETRY = (0.2, 10.0)
"""Seconds until a client that failed is asked again: at first, and after many times."""
_GROWS = 20
"""Failures in a row after which that time grows no more."""
_REFUSALS = {kind.__name__ for kind in Refusal.__subclasses__()}
_SPONSOR = 600.0
"""Seconds a sponsor has to share the common model. Its answer may be lost without a sign; then another one is asked."""


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
        since: when it last came or went; None before it has come.
        said: class of the error it last failed with, in its own words; empty once it has done what it was asked.
        over: whether it has finished, and its process ends; False again when it comes back.
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
    since: float | None = None
    said: str = ""
    over: bool = False


@dataclass(frozen=True)
class _Asked:
    """Who wants the common model, in which of its calls and with what request; who was asked for it, and when."""

    line: Line
    call: int
    request: bytes
    sponsor: Line
    at: float


class Switchboard:
    """All lines of one run.

    Args:
        post: reaches the nodes.
        clients: node id to client id, as registered.
        host: relays to the enclave.
        probe: seconds of silence after which a client is asked whether its process is still the same.
        record: keeps what clients say of themselves.
        note: shows one line.
    """

    def __init__(
        self,
        post: Post,
        clients: Mapping[int, str],
        host: Host,
        *,
        probe: float,
        record: Record,
        note: Callable[[str], None],
    ) -> None:
        self._post, self._probe, self._record, self._note = post, probe, record, note
        self.lines = [Line(node, client, host.link(client)) for node, client in clients.items()]
        """One a client, in the order of registration."""
        self._asked: dict[str, _Asked] = {}  # by the message to the sponsor
        self._turn = 0
        self._limit = host.limit
        self._nodes_at = 0.0
        self._idle = POLL[0]
        self._complaint = ""
        self.began = time.monotonic()
        """When clients could first come, of `time.monotonic`."""

    def renew(self) -> None:
        """Something new begins: nobody is out, nobody has failed."""
        for line in self.lines:
            line.out, line.failures, line.retry = "", 0, 0.0

    def pause(self) -> None:
        """Wait before the next look: shortly after an answer, longer in silence."""
        time.sleep(self._idle)
        self._idle = min(1.3 * self._idle, POLL[1])

    def command(self, parcel: Parcel, done: set[str]) -> None:
        """Ask everyone online that is not `done` yet; ask again whoever failed, fell silent or began anew."""
        now = time.monotonic()
        if now >= self._nodes_at:
            self._nodes_at = now + _NODES_EVERY
            self._look(self._post.nodes())
            self._give_up(now)
        for line in self.lines:
            if not line.online or line.client in done or line.out or now < line.retry:
                continue
            if not line.working or line.round != parcel.round:
                line.round, line.working, line.probe = parcel.round, True, ""
                self._send(line, parcel)
            elif not line.probe and now - line.heard > self._probe:
                line.probe = self._send(line, parcel)

    def _look(self, online: set[int]) -> None:
        for line in self.lines:
            if (line.node in online) != line.online:
                line.online = line.node in online
                self._note(f"client {line.client} is {'online' if line.online else 'offline'}")
                line.working, line.over, line.since = False, line.over and not line.online, time.monotonic()

    def _send(self, line: Line, parcel: Parcel) -> str:
        sent = self._post.send(line.node, parcel)
        line.waiting.append(sent)
        line.heard = time.monotonic()
        return sent

    def pump(self) -> None:
        """Handle every reply that has come in."""
        waiting = {sent: line for line in self.lines for sent in line.waiting}
        if not waiting:
            return
        limits = {sent: MAX_ANSWER if sent in self._asked else self._limit for sent in waiting}
        for sent, parcel in self._post.replies(limits):
            line = waiting.get(sent)
            if line is not None and sent in line.waiting:
                newest = line.waiting[-1] == sent
                line.waiting.remove(sent)
                self._idle = POLL[0]
                self._handle(line, parcel, sent, newest)

    def _handle(self, line: Line, parcel: Parcel | None, sent: str, newest: bool) -> None:
        if sent == line.probe:
            line.probe = ""
        if parcel is None:
            line.working = line.working and not newest
            if sent in self._asked:
                self._sponsored(sent, line, Parcel("failed"))
            return
        line.heard = time.monotonic()
        self._record.heard(line.client, parcel.round)
        if parcel.kind in ("hello", "upload", "sync"):
            answered = self._answer(line, parcel)
            if sent in self._asked:  # a sponsor that was started again verifies the enclave first
                self._asked[answered] = self._asked.pop(sent)
        elif sent in self._asked:
            self._sponsored(sent, line, parcel)
        elif parcel.kind == "common":
            self._find_sponsor(line, parcel)
        elif parcel.kind in ("done", "failed"):
            self._settle(line, parcel)
        if parcel.kind == "busy" and parcel.call and not self._at_it(line):
            self._send(line, _error(ProtocolError("a message was lost", "ask again"), parcel.call))

    def _at_it(self, line: Line) -> bool:
        """Whether a request of this client, its answer, or a sponsor's is on its way."""
        return bool(line.waiting) or any(asked.line is line for asked in self._asked.values())

    def _settle(self, line: Line, parcel: Parcel) -> None:
        line.working = False
        if parcel.kind == "done":
            line.failures, line.said = 0, ""
            if parcel.note == "finished":
                line.over = True
                self._record.finish(line.client)
            self._record.status(line.client, parcel.note)
            if parcel.note == "refused":
                line.out = "refused by the enclave"
            if parcel.note not in ("accepted", "finished"):
                line.retry = time.monotonic() + _RETRY[0]
            return
        line.failures += 1
        line.retry = time.monotonic() + min(_RETRY[0] * 1.6 ** min(line.failures, _GROWS), _RETRY[1])
        before, line.said = line.said, parcel.note[:60]
        if line.failures == 1 or line.failures % 10 == 0 or line.said != before:
            what = "says that it refuses the enclave:" if line.said in _REFUSALS else "failed with"
            then = "docs/attestation.md has that check" if line.said in _REFUSALS else "it is asked again"
            self._note(f"client {line.client} {what} {line.said!r}; {then}")

    def _answer(self, line: Line, parcel: Parcel) -> str:
        """Pass a request to the enclave; return the id of the message with its answer."""
        try:
            if parcel.kind == "hello":
                _check_line(line, parcel.body)
                body = line.link.hello(parcel.body)
            elif parcel.kind == "upload":
                body = line.link.upload(parcel.body)
            else:
                body = line.link.sync(parcel.body, parcel.after, manifests_only=parcel.note == "manifests")
            answer = Parcel("answer", call=parcel.call, body=body)
        except (ProtocolError, SealError, MessageError) as error:
            answer = _error(error, parcel.call)
        except TrustformerError as error:  # nothing a client did or can mend: it asks again
            if error.message != self._complaint or isinstance(error, EnclaveLostError):
                self._note(f"{error.message} ({error.hint})" if error.hint else error.message)
            self._complaint = error.message
            lost = isinstance(error, EnclaveLostError)
            answer = _error(error if lost else ProtocolError(error.message, error.hint), parcel.call)
        return self._send(line, answer)

    # ---- the dense common model, from one client to another ----

    def _find_sponsor(self, line: Line, parcel: Parcel) -> None:
        free = [other for other in self.lines if other.online and not other.working and other is not line]
        current = [other for other in free if other.client in self._record.current]
        if not current:
            error = ProtocolError("no client that is up to date is free to share the common model", "it is tried again")
            self._send(line, _error(error, parcel.call))
            return
        sponsor = current[self._turn % len(current)]
        self._turn += 1  # whatever it answers: one that gives rubbish is not asked for ever
        sent = self._send(sponsor, Parcel("sponsor", body=parcel.body))
        self._asked[sent] = _Asked(line, parcel.call, parcel.body, sponsor, time.monotonic())

    def _give_up(self, now: float) -> None:
        for sent, asked in list(self._asked.items()):
            if now - asked.at > _SPONSOR:
                asked.sponsor.waiting.remove(sent)
                self._sponsored(sent, asked.sponsor, Parcel("failed"))

    def _sponsored(self, sent: str, sponsor: Line, parcel: Parcel) -> None:
        asked = self._asked.pop(sent)
        line, call = asked.line, asked.call
        if parcel.kind != "done":
            error = ProtocolError(f"client {sponsor.client} could not share the common model", "it is tried again")
            self._send(line, _error(error, call))
            return
        reply = line.link.ask_common(asked.request, lambda _: sponsor.link.answer_common(parcel.body))
        self._send(line, Parcel("answer", call=call, body=enc(sponsor.client, reply)))


def _check_line(line: Line, hello: bytes) -> None:
    """Refuse a client on another one's line: whoever is asked there would be believed to have answered."""
    try:
        said = Hello.from_bytes(split_signed(hello, "hello")[0]).client_id
    except MessageError:
        return  # the enclave says what is wrong with it
    if said != line.client:
        raise MessageError(f"client {shown(said)} comes with the node key of client {line.client}")


def _error(error: TrustformerError, call: int) -> Parcel:
    body = enc(type(error).__name__, error.message, error.hint)
    return Parcel("error", call=call, note=type(error).__name__, body=body)
