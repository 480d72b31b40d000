# SPDX-License-Identifier: Apache-2.0
"""Parcels on Flower's wire: short ones within their message, long ones in objects of a few megabytes."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from flwr.supercore.task_identity import TaskIdentity

from trustformer.errors import MessageError
from trustformer.flower.keys import make_node_key, make_tls
from trustformer.flower.node import LostError
from trustformer.flower.node import Node as FlowerNode
from trustformer.flower.parcel import CHUNK, MAX_CHUNKS, Parcel
from trustformer.flower.post import Packed, Post, parcel_of, unpack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what flwr itself uses


class Store:
    """A SuperLink's store of objects, as its clients see it; counts requests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.confirmed: list[str] = []
        self.requests = 0
        self.mail: list[Packed] = []

    def PullMessages(self, request: Any) -> Any:  # noqa: N802
        """Each once, as Flower does."""
        out = [one for one in self.mail if one.proto.metadata.reply_to_message_id in request.message_ids]
        self.mail = [one for one in self.mail if one not in out]
        return SimpleNamespace(messages_list=[one.proto for one in out], message_object_trees=[one.tree for one in out])

    def PushObject(self, request: Any) -> Any:  # noqa: N802
        self.requests += 1
        self.objects[request.object_id] = request.object_content
        return SimpleNamespace(stored=True)

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        self.requests += 1
        content = self.objects.get(request.object_id)
        return SimpleNamespace(object_found=True, object_available=content is not None, object_content=content)

    def ConfirmMessageReceived(self, request: Any) -> Any:  # noqa: N802
        self.requests += 1
        self.confirmed.append(request.message_object_id)


def _message(content: RecordDict) -> Message:
    return make_message(
        metadata=Metadata(
            run_id=1, message_id="", src_node_id=1, dst_node_id=2, reply_to_message_id="", group_id="1",
            created_at=time.time(), ttl=3600.0, message_type="train",
        ),
        content=content,
    )  # fmt: skip


def _through(parcel: Parcel, store: Store) -> Parcel:
    packed, node = Packed.of(_message(parcel.to_record())), Node(node_id=2)
    packed.push(store, node, 1, "session", list(packed.objects))
    return parcel_of(unpack(store, node, packed.proto, packed.tree))


def test_a_short_parcel_travels_within_its_message() -> None:
    store, parcel = Store(), Parcel("upload", round=3, call=7, body=os.urandom(77_000))
    assert _through(parcel, store) == parcel
    assert not store.objects
    assert store.requests == len(store.confirmed) == 1


@pytest.mark.parametrize("length", [CHUNK - 100, CHUNK, CHUNK + 1, 2 * CHUNK + 17])
def test_a_long_parcel_travels_in_objects_of_at_most_a_chunk(length: int) -> None:
    store, parcel = Store(), Parcel("upload", body=os.urandom(length))
    assert _through(parcel, store) == parcel
    assert all(len(content) < CHUNK + 1000 for content in store.objects.values())
    assert len(store.confirmed) == 1


def _hostile(chunks: list[bytes], store: Store, *, within: bool = False) -> Packed:
    """A message of a client that packs what it likes, pushed."""
    content = Parcel("upload").to_record()
    content["parcel"]["body"] = chunks[0]
    for number, chunk in enumerate(chunks[1:], 1):
        content[f"body {number}"] = ConfigRecord({"body": chunk})
    packed = Packed.of(_message(content), within=within)
    packed.push(store, Node(node_id=2), 1, "session", list(packed.objects))
    store.requests = 0
    return packed


def _unpacked(packed: Packed, store: Store, limit: int) -> Parcel:
    return parcel_of(unpack(store, Node(node_id=2), packed.proto, packed.tree, limit), limit)


def test_more_objects_than_the_limit_takes_are_refused_before_one_is_pulled() -> None:
    store = Store()
    packed = _hostile([b"a", b"b", b"c"], store)
    with pytest.raises(MessageError, match="content of 5 objects where 4 are allowed"):
        _unpacked(packed, store, 2 * CHUNK)
    assert store.requests == len(store.confirmed) == 1
    assert _unpacked(packed, store, 2 * CHUNK + 1).body == b"abc"


def test_objects_that_are_too_long_are_refused_as_they_come() -> None:
    store = Store()
    packed = _hostile([bytes(2 * CHUNK)], store)
    with pytest.raises(MessageError, match=f"an object of .* bytes where {CHUNK + 4096} are allowed"):
        _unpacked(packed, store, 2 * CHUNK)
    assert len(store.confirmed) == 1


@pytest.mark.parametrize("within", [True, False])
def test_a_body_beyond_the_limit_is_refused_before_it_is_joined(within: bool) -> None:
    store = Store()
    packed = _hostile([bytes(1001)], store, within=within)
    with pytest.raises(MessageError, match="parcel: a body of 1001 bytes where 1000 are allowed"):
        _unpacked(packed, store, 1000)
    assert _unpacked(packed, store, 1001).body == bytes(1001)


def test_a_client_takes_no_message_of_the_host_beyond_its_limit(tmp_path: Path) -> None:
    make_tls(tmp_path / "tls", ["127.0.0.1"])
    make_node_key(tmp_path / "node.key", tmp_path / "node.pub")
    files = (tmp_path / "tls" / "ca.crt", tmp_path / "node.key")
    store, packed = Store(), None
    client: Any = store
    client.GetRun = lambda request: SimpleNamespace(run=SimpleNamespace(fab_hash="0" * 64))
    client.PullMessages = lambda request: SimpleNamespace(
        messages_list=[packed.proto], message_object_trees=[packed.tree]
    )
    node = FlowerNode("127.0.0.1:1", *files, "0" * 64, tmp_path / "node.id", 2 * CHUNK)
    node._client = client
    packed = _hostile([b"a", b"b", b"c"], store)
    with pytest.raises(LostError, match="content of 5 objects where 4 are allowed"):
        node.receive()
    assert store.requests == len(store.confirmed) == 1
    packed = _hostile([b"a", b"b"], store)
    assert (message := node.receive()) is not None
    assert parcel_of(message).body == b"ab"


def test_a_message_that_came_whole_and_is_too_long_is_refused() -> None:
    store, message = Store(), _message(RecordDict({"parcel": ConfigRecord({"body": bytes(2 * CHUNK)})}))
    with pytest.raises(MessageError, match=r"content within it of .* bytes"):
        unpack(store, Node(node_id=2), message_to_proto(message), ObjectTree(object_id="x"), 8 * CHUNK)


def test_the_longest_list_of_chunks_fits_into_an_object() -> None:
    names = {"parcel": "", **{f"body {number}": "" for number in range(1, MAX_CHUNKS)}}
    records = RecordDict({name: ConfigRecord({"body": name}) for name in names})
    assert len(records.deflate()) < CHUNK


def test_chunks_and_texts_that_no_parcel_has_are_refused() -> None:
    long = Parcel("upload").to_record()
    long["parcel"]["body"] = bytes(CHUNK + 1)
    with pytest.raises(MessageError, match=f"a chunk of {CHUNK + 1} bytes where {CHUNK} are allowed"):
        Parcel.from_record(long)
    with pytest.raises(MessageError, match="a text of more than 128"):
        Parcel.from_record(Parcel("done", note="x" * 129).to_record())


def test_what_flower_cannot_read_fails_its_sender_and_not_the_host() -> None:
    store = Store()
    packed = _hostile([b"a"], store)
    list_only = packed.tree.children[0]  # of records, in the place of a message
    with pytest.raises(MessageError, match="cannot read: TypeError"):
        unpack(store, Node(node_id=2), packed.proto, list_only)
    long = _hostile([bytes(1001)], store)
    long.proto.metadata.reply_to_message_id = packed.proto.metadata.reply_to_message_id = "asked"
    store.mail = [replace(packed, tree=list_only), long]
    failed = Parcel("failed", note="MessageError")
    assert Post(store, 1).replies({"asked": 1000}) == [("asked", failed)] * 2  # type: ignore[arg-type]


def test_a_reply_counts_however_long_its_client_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_run_id", "_task_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    pushed: list[Any] = []

    def push(request: Any) -> Any:
        pushed.extend(request.messages_list)
        return SimpleNamespace(session_id="", objects_to_push=[], message_ids=["1"])

    Post(SimpleNamespace(PushMessages=push), 1).send(2, Parcel("take part", 1))  # type: ignore[arg-type]
    message = message_from_proto(pushed[0])
    assert message.metadata.ttl >= 30 * 86400
    assert Message(RecordDict(), reply_to=message).metadata.ttl >= 30 * 86400 - 60


def test_a_reply_whose_objects_have_not_come_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower hands out a reply before its objects are there: its sender may be slow, or no more."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("trustformer.flower.post.time", SimpleNamespace(monotonic=lambda: clock.now))
    store, parcel = Store(), Parcel("upload", body=os.urandom(2 * CHUNK))
    slow = Packed.of(_message(parcel.to_record()))
    dead = Packed.of(_message(Parcel("upload", body=os.urandom(2 * CHUNK)).to_record()))
    quick = Packed.of(_message(Parcel("done").to_record()))
    for to, packed in (("slow", slow), ("dead", dead), ("quick", quick)):
        packed.proto.metadata.reply_to_message_id = to
    store.mail = [slow, dead, quick]
    post, sent = Post(store, 1), dict.fromkeys(("slow", "dead", "quick"), 3 * CHUNK)  # type: ignore[arg-type]
    assert post.replies(sent) == [("quick", Parcel("done"))]
    del sent["quick"]
    for _ in range(3):
        clock.now += 10.0
        assert post.replies(sent) == []
    slow.push(store, Node(node_id=2), 1, "session", list(slow.objects))  # type: ignore[arg-type]
    assert post.replies(sent) == []  # not looked for yet
    clock.now += 10.0
    assert post.replies(sent) == [("slow", parcel)]
    del sent["slow"]
    clock.now += 3600.0
    assert post.replies(sent) == [("dead", None)]
    assert post.replies({}) == []


def test_what_is_no_parcel_is_refused_by_name() -> None:
    for content in (RecordDict(), RecordDict({"parcel": ConfigRecord({"kind": "upload"})})):
        with pytest.raises(MessageError, match="parcel"):
            parcel_of(_message(content))
