# SPDX-License-Identifier: Apache-2.0
"""A client's end of the line: takes the host's commands, and carries the client's own requests to the enclave.

Flower lets a client speak only when spoken to. So each request goes out as the reply to the host's last message, and
its answer is the host's next one.
"""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable

from flwr.app import Message

from trustformer.errors import EnclaveLostError, MessageError, ProtocolError, SealError, TrustformerError
from trustformer.experiment.reporter import duration
from trustformer.federation.connection import read_error
from trustformer.flower.node import NOT_CONNECTED, BundleError, LostError, Node
from trustformer.flower.parcel import MAX_ANSWER, Parcel
from trustformer.flower.post import parcel_of
from trustformer.message import Reader

POLL = (0.02, 1.0)
"""Seconds between two questions for a message: at first, and after a while without one."""
_RECONNECT = 0.5
_SILENT = 3.0
"""Seconds that a reason not to be connected may last before it is shown: a SuperLink refuses nodes as it starts."""
_LONG = 15.0
"""Seconds after a client's part of a round until it is said that others are still at theirs."""
_PARTING = 3.0
"""Seconds for the host to hear a client's last word; of one that has left it hears none."""
_HOSTS = (ProtocolError, SealError, MessageError, EnclaveLostError)
"""Errors that a host can tell of; after each of them it may be asked again."""
COMMANDS = ("take part", "finish", "sponsor", "stand by")


class _SilentError(LostError):
    """The SuperLink answers, and has had nothing from the host for as long as one waits for an answer."""


class SupersededError(TrustformerError):
    """The host has gone on to something else: what this client was doing no longer matters."""


class Conversation:
    """One client's line to the host; has the interface that `Channel` asks of a link.

    Args:
        node: the connection.
        patience: seconds without any sign of the SuperLink or host after which a call gives up.
        note: shows one line.
        pace: factor by which it asks less often in silence.
    """

    def __init__(self, node: Node, patience: float, note: Callable[[str], None], pace: float = 1.0) -> None:
        self._node, self._patience, self._note, self._idle = node, patience, note, pace * POLL[1]
        self._call = secrets.randbits(60)  # a process that took this one's place numbers its calls otherwise
        self._open: Message | None = None
        self._command, self._next = Parcel(""), Parcel("")
        self._done = 0  # the round this client's part of is done, if that was the last command
        self.trained = 0
        """Last round trained for; told with every message, so that the host can record who took part."""

    # ---- commands ----

    def command(self) -> Parcel:
        """Wait for what the host wants next; connects, and connects again, as need be.

        Raises:
            LostError: nothing was heard of the SuperLink for `patience` seconds.
        """
        if self._next.kind:
            self._command, self._next = self._next, Parcel("")
            return self._command
        due = time.monotonic() + _LONG if self._done else math.inf
        while True:
            try:
                message = self._wait(min(self._patience, due - time.monotonic()))
                self._open, self._command = message, _parcel(message)
                if self._command.kind in COMMANDS:
                    return self._command
                self._reply(Parcel("busy"))
            except _SilentError:  # this client's part is done, and others are still at theirs
                if time.monotonic() >= due:
                    self._note(f"round {self._done}: this client's part is done; waiting for others, still at theirs")
                    due = math.inf
            except LostError as error:
                self._reconnect(error)

    def _reconnect(self, error: LostError) -> None:
        """Connect, saying why where that lasts; raises `LostError` when that takes more than `patience` seconds."""
        told, lost = NOT_CONNECTED, time.monotonic()
        since = lost
        while time.monotonic() - lost <= self._patience:
            if error.message != told and time.monotonic() - since > _SILENT:
                self._note(f"waiting: {error.message}; trying again for {duration(self._patience)} at most")
                told = error.message
            time.sleep(_RECONNECT)
            try:
                self._node.connect()
            except LostError as again:
                if again.message != error.message:
                    since = time.monotonic()
                error = again
            else:
                self._note("connected")
                return
        raise error

    def done(self, note: str, body: bytes = b"") -> None:
        """Report what the command came to."""
        self._done = self._command.round if self._command.kind == "take part" else 0
        self._reply(Parcel("done", note=note, body=body))

    def failed(self, error: BaseException) -> None:
        """Report that the command failed: the class of the error, nothing of what it says."""
        self._done = 0
        self._reply(Parcel("failed", note=type(error).__name__))

    def part(self, error: Exception) -> None:
        """Report an error that ends this client, and wait a moment until the host has heard it."""
        self.failed(error)
        self._wait(_PARTING)

    # ---- the link of a channel ----

    def hello(self, request: bytes) -> bytes:
        """Send a hello, receive a welcome."""
        return self._ask(Parcel("hello", body=request))

    def upload(self, request: bytes) -> bytes:
        """Send a sealed update, receive a receipt."""
        return self._ask(Parcel("upload", body=request))

    def sync(self, request: bytes, after: int, *, manifests_only: bool = False) -> bytes:
        """Ask for the rounds after `after`; receive keys, manifests and sealed aggregates."""
        return self._ask(Parcel("sync", after=after, note="manifests" if manifests_only else "", body=request))

    def ask_common(self, request: bytes, answer: Callable[[bytes], bytes]) -> bytes:
        """Ask another client for the dense common model."""
        return answer(request)

    def answer_common(self, reply: bytes) -> bytes:
        """The answer to another client's `ask_common`; it goes out as the result of the command."""
        return reply

    def common(self, request: bytes) -> bytes:
        """Have the host pass a request to another client; receive enc(its id, its answer)."""
        return self._ask(Parcel("common", body=request))

    # ---- both ----

    def _ask(self, request: Parcel) -> bytes:
        self._call += 1
        call = self._call
        self._reply(request, call)
        while True:
            message = self._wait(self._patience)
            parcel = _parcel(message)
            if parcel.kind in COMMANDS and (parcel.kind, parcel.round) != (self._command.kind, self._command.round):
                self._open, self._next = message, parcel
                raise SupersededError(f"the host has gone on to {parcel.kind} {parcel.round or ''}")
            if parcel.kind in ("answer", "error") and parcel.call == call:
                self._open = message
                if parcel.kind == "error":
                    raise _answered(read_error(parcel.body))
                return parcel.body
            self._open = message
            self._reply(Parcel("busy"), call)  # a host that has nothing of that call any more says so

    def _wait(self, seconds: float) -> Message:
        deadline, pause = time.monotonic() + seconds, POLL[0]
        while time.monotonic() < deadline:
            try:
                message = self._node.receive()
            except BundleError as error:  # a stranger's run: it is refused, and what goes on goes on
                self._note(f"refused: {error.message}")
                continue
            if message is not None:
                return message
            time.sleep(pause)
            pause = min(1.4 * pause, self._idle)
        raise _SilentError(f"the host has said nothing for {duration(seconds)}")

    def _reply(self, parcel: Parcel, call: int = 0) -> None:
        message, self._open = self._open, None
        if message is None:
            raise LostError("there is nothing to reply to")
        told = Parcel(parcel.kind, self.trained, call, parcel.after, parcel.note, parcel.body)
        self._node.reply(message, told)


class RemoteSponsor:
    """Whoever of the other clients the host finds to share the common model."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation, self.id = conversation, ""

    def share_common(self, request: bytes) -> bytes:
        """Ask through the host; from then on `id` says who answered."""
        reader = Reader(self._conversation.common(request), "common model")
        self.id, reply = reader.text(), reader.raw(limit=MAX_ANSWER)
        reader.end()
        return reply


def _answered(error: TrustformerError) -> TrustformerError:
    """What the host says went wrong, as its word: nothing of it is signed, and it gives no verdict for this client."""
    kind = type(error) if isinstance(error, _HOSTS) else ProtocolError
    return kind(f"the host answered: {error.message}")


def _parcel(message: Message) -> Parcel:
    """What a message carries; one that cannot be read is of no kind."""
    try:
        return parcel_of(message)
    except MessageError:
        return Parcel("")
