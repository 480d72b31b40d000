# SPDX-License-Identifier: Apache-2.0
"""In the place of Flower's SuperLink: mailboxes in memory, which can hold, repeat and lose what clients send.

`serve` and `join` run as they are, with the enclave in its process; only what reaches the SuperLink ends here.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flwr.app import Message, Metadata
from flwr.app.message import make_message

from trustformer.experiment.reporter import PlainReporter
from trustformer.flower.member import join as join_folder
from trustformer.flower.node import NOT_CONNECTED, LostError
from trustformer.flower.parcel import Parcel
from trustformer.flower.post import parcel_of
from trustformer.flower.serve import serve as serve_folder
from trustformer.training import LocalTrainer


def message_of(parcel: Parcel, node: int = 1, number: str = "1") -> Message:
    """A message of the host with this parcel, as a node receives it."""
    metadata = Metadata(
        run_id=1, message_id=number, src_node_id=99, dst_node_id=node, reply_to_message_id="",
        group_id="", created_at=time.time(), ttl=3600.0, message_type="train",
    )  # fmt: skip
    return make_message(metadata=metadata, content=parcel.to_record())


class Wire:
    """Carries parcels between the host and the nodes, one thread each.

    Attributes:
        sent: (client, parcel) of every reply that a client has sent, in order.
        held: whether a client's reply is kept back; asked again until it is not.
        lost: whether a client's reply never comes, as of a node that died; its message ends in an error.
        copies: how often each reply comes to the host.
        cut: whether the next look into a mailbox, or for replies, fails for good.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[str, Parcel]] = []
        self.held: Callable[[str, Parcel], bool] = lambda client, parcel: False
        self.lost: Callable[[str, Parcel], bool] = lambda client, parcel: False
        self.copies, self.cut = 1, False
        self._lock = threading.Lock()
        self._online: set[int] = set()
        self._boxes: dict[int, deque[Message]] = defaultdict(deque)
        self._replies: list[tuple[str, str, Parcel]] = []
        self._gone: set[str] = set()
        self._count = 0
        self.clients: dict[int, str] = {}
        self.pid = 0

    # ---- what `serve` wants of a SuperLink, and the relay of its post ----

    def superlink(self, folder: Path, address: str, tls: Path, nodes: dict[str, Path]) -> Wire:
        self.clients = dict(enumerate(nodes, 1))
        return self

    def start(self) -> None:
        """It is there."""

    stop = start

    @contextmanager
    def run(self) -> Iterator[Wire]:
        yield self

    def nodes(self) -> set[int]:
        if self.cut:
            raise httpx.ConnectError("cut")
        return set(self._online)

    def send(self, node: int, parcel: Parcel) -> str:
        with self._lock:
            self._count += 1
            self._boxes[node].append(message_of(parcel, node, str(self._count)))
            return str(self._count)

    def replies(self, sent: Mapping[str, int]) -> list[tuple[str, Parcel | None]]:
        if self.cut:
            raise httpx.ConnectError("cut")
        with self._lock:
            ready = [reply for reply in self._replies if reply[0] in sent and not self.held(*reply[1:])]
            self._replies = [reply for reply in self._replies if reply not in ready]
        assert all(len(parcel.body) <= sent[to] for to, _, parcel in ready)
        gone = self._gone
        found = [(to, None if to in gone or self.lost(client, parcel) else parcel) for to, client, parcel in ready]
        return [reply for reply in found for _ in range(self.copies)]

    # ---- what `join` wants of a node ----

    def node(self, superlink: str, ca: Path, key: Path, bundle: str, memo: Path, limit: int, pace: float) -> WireNode:
        client = key.parent.name.removeprefix("client-")
        return WireNode(self, next(node for node, name in self.clients.items() if name == client), client, limit)

    def receive(self, node: int) -> Message | None:
        if self.cut:
            raise ConnectionError
        with self._lock:
            return self._boxes[node].popleft() if self._boxes[node] else None

    def reply(self, client: str, to: str, parcel: Parcel) -> None:
        parcel = Parcel.from_record(parcel.to_record())
        with self._lock:
            self.sent.append((client, parcel))
            self._replies.append((to, client, parcel))

    def asking(self, client: str) -> bool:
        """Whether the host has sent this client something that it has not taken yet."""
        with self._lock:
            return any(self._boxes[node] for node, name in self.clients.items() if name == client)

    def uploaded(self) -> set[str]:
        """Clients that have sent an update."""
        with self._lock:
            return {client for client, parcel in self.sent if parcel.kind == "upload"}

    def accepted(self) -> set[str]:
        """Clients that know that their update is accepted."""
        with self._lock:
            return {client for client, parcel in self.sent if (parcel.kind, parcel.note) == ("done", "accepted")}

    def join(self, node: int) -> None:
        self._online.add(node)

    def leave(self, node: int, *, said: bool) -> None:
        """A node is offline; if it has said so, what the host has not fetched of it yet is dropped, as Flower does."""
        with self._lock:
            self._online.discard(node)
            self._boxes[node].clear()
            if said:
                self._gone |= {to for to, client, _ in self._replies if client == self.clients[node]}


class WireNode:
    """One client's end."""

    def __init__(self, wire: Wire, number: int, client: str, limit: int) -> None:
        self._wire, self._number, self._client, self._connected = wire, number, client, False
        self._limit = limit

    def connect(self) -> None:
        self._connected = True
        self._wire.join(self._number)

    def close(self, *, leave: bool = True) -> None:
        self._wire.leave(self._number, said=leave)

    def receive(self) -> Message | None:
        if not self._connected:
            raise LostError(NOT_CONNECTED)
        message = self._wire.receive(self._number)
        assert message is None or parcel_of(message, self._limit)
        return message

    def reply(self, message: Message, parcel: Parcel, *, within: bool = True) -> None:
        assert parcel_of(message)
        self._wire.reply(self._client, message.metadata.message_id, parcel)


class Notes(PlainReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def has(self, *words: str) -> bool:
        """Whether one line has all of them."""
        return any(all(word in line for word in words) for line in self.lines)


class Threaded:
    """`serve` and `join` of one federation, each in a thread, over a wire.

    Args:
        fed: folder that `init-federation` made.
        wire: carries.

    Attributes:
        after_training: called with a client's id by its thread whenever it has trained.
    """

    def __init__(self, fed: Path, wire: Wire, patch: pytest.MonkeyPatch) -> None:
        self.fed, self.wire, self.said = fed, wire, Notes()
        self._threads: dict[str, threading.Thread] = {}
        self.errors: dict[str, BaseException] = {}
        self.after_training: Callable[[str], None] = lambda client: None
        self._skew = 0.0
        self._turn = threading.Lock()  # torch draws dropout for all threads from one generator
        patch.setattr(LocalTrainer, "train", self._alone(LocalTrainer.train))
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self._skew)
        patch.setattr("trustformer.flower.relay.time", clock)
        patch.setattr("trustformer.flower.serve.SuperLink", wire.superlink)
        patch.setattr("trustformer.flower.member.Node", wire.node)

    def _alone(self, train: Callable[..., Any]) -> Callable[..., Any]:
        def alone(*arguments: Any, **keywords: Any) -> Any:
            with self._turn:
                trained = train(*arguments, **keywords)
                self.after_training(threading.current_thread().name)
                return trained

        return alone

    def start(self, *clients: str) -> None:
        """`serve`, then `join` of these."""
        if "serve" not in self._threads:
            self._go("serve", lambda: serve_folder(self.fed / "host", self.said))
            self.until(lambda: self.said.has("listening"))
        for client in clients:
            self._go(client, lambda client=client: join_folder(self.fed / f"client-{client}", self.said))

    def _go(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self.errors[name] = error

        self._threads[name] = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads[name].start()

    def skip(self, seconds: float) -> None:
        """Put the clock by which rounds are closed forward."""
        self._skew += seconds

    def until(self, what: Callable[[], Any], seconds: float = 280) -> None:
        """Wait for it; fails with what was said."""
        deadline = time.monotonic() + seconds
        while not what():
            assert not self.errors, (self.errors, self.said.lines)
            assert time.monotonic() < deadline, self.said.lines
            time.sleep(0.005)

    def error(self, name: str) -> BaseException:
        """Wait until this one has ended with an error, and return it; the others are cut off."""
        self._threads[name].join(60)
        error = self.errors.pop(name)
        self.wire.cut = True
        for thread in self._threads.values():
            thread.join(60)
        return error

    def cut_off(self) -> None:
        """End all that is still at work: threads left over would see the next test's clock."""
        self.wire.cut = True
        for thread in self._threads.values():
            thread.join(60)
            assert not thread.is_alive()
        self.errors.clear()

    def end(self) -> None:
        """Wait until all have ended by themselves."""
        self.until(lambda: not any(thread.is_alive() for thread in self._threads.values()))
        assert not self.errors, self.errors
