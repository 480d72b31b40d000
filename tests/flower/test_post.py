# SPDX-License-Identifier: Apache-2.0
"""Parcels on Flower's wire: short ones within their message, long ones in objects of a few megabytes."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra flower")

from flwr.app import ConfigRecord, Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.proto.node_pb2 import Node

from trustformer.errors import MessageError
from trustformer.flower.parcel import CHUNK, Parcel
from trustformer.flower.post import Packed, parcel_of, unpack

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what flwr itself uses


class Store:
    """A SuperLink's store of objects, as its clients see it; counts requests."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.confirmed: list[str] = []
        self.requests = 0

    def PushObject(self, request: Any) -> Any:  # noqa: N802
        self.requests += 1
        self.objects[request.object_id] = request.object_content
        return SimpleNamespace(stored=True)

    def PullObject(self, request: Any) -> Any:  # noqa: N802
        self.requests += 1
        content = self.objects[request.object_id]
        return SimpleNamespace(object_found=True, object_available=True, object_content=content)

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


def test_what_is_no_parcel_is_refused_by_name() -> None:
    for content in (RecordDict(), RecordDict({"parcel": ConfigRecord({"kind": "upload"})})):
        with pytest.raises(MessageError, match="parcel"):
            parcel_of(_message(content))
