# SPDX-License-Identifier: Apache-2.0
"""Parcels on Flower's wire: packed and pushed, pulled and unpacked, at either end.

Flower takes a message apart into objects, each with an HTTP request of its own: nine for one short message from end
to end. One that fits travels within its message instead, in three.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from flwr.app import Message, MessageType, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node as NodeProto
from flwr.proto.runtime_pb2 import GetNodesRequest, PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    ObjectUnavailableError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.runtime import RuntimeHttpClient

from trustformer.errors import MessageError
from trustformer.flower.parcel import CHUNK, MAX_CHUNKS, Parcel

_AROUND = 4096
"""Most bytes around a chunk in its object. The object that lists all chunks of the longest parcel is shorter too."""
_OBJECTS = 2  # the message and its list of records
_LOOK_AGAIN = (0.1, 5.0)
"""Seconds until the host looks again for objects of a reply that are not there yet: at first, and after many looks."""
_KEPT = 365 * 86400.0
"""Seconds for which the SuperLink takes a reply. Flower's 12 hours are less than a client may train for."""
_ARRIVES_WITHIN = 3600.0
"""Seconds after which a reply whose objects have not come is given up."""


class IncompleteError(Exception):
    """A message has come, but not all of its objects."""


class End(Protocol):
    """What Flower's clients of the Fleet API and of the Runtime API have in common."""

    PushObject: Any
    PullObject: Any
    ConfirmMessageReceived: Any


@dataclass(frozen=True)
class Packed:
    """A message as it is pushed: itself, the tree of its objects, and those that do not travel within it."""

    proto: MessageProto
    tree: ObjectTree
    objects: Mapping[str, Any]

    @classmethod
    def of(cls, message: Message, *, within: bool = True) -> Packed:
        """Pack a message with a parcel in it; `within` its message if it fits, which only `unpack` reads."""
        with no_object_id_recompute():
            message.metadata.__dict__["_message_id"] = message.object_id
            proto = message_to_proto(message)
            if within and proto.ByteSize() <= CHUNK:
                return cls(proto, ObjectTree(object_id=message.object_id), {})
            return cls(
                message_to_proto(remove_content_from_message(message)),
                get_object_tree(message),
                get_all_nested_objects(message),
            )

    def push(self, end: End, node: NodeProto, run_id: int, session: str, wanted: Sequence[str]) -> None:
        """Push the objects that the SuperLink lacks; `ObjectPushError` if it does not take them."""
        if self.objects:
            push = make_push_object_fn_protobuf(end.PushObject, node, run_id, session)
            with no_object_id_recompute():
                push_objects(dict(self.objects), push, object_ids_to_push=set(wanted))


def unpack(
    end: End,
    node: NodeProto,
    proto: MessageProto,
    tree: ObjectTree,
    limit: int = MAX_CHUNKS * CHUNK,
    *,
    wait: bool = True,
) -> Message:
    """The message with its content, a parcel with a body of at most `limit` bytes.

    Objects are counted before any is pulled. How long one is, Flower says only with the whole of it: each is measured
    as it comes, and no further ones are pulled after one that is too long. What travels within its message has come
    with it. A message that is refused is confirmed all the same: the SuperLink need not keep it. Flower hands out a
    message before its objects have come: they are waited for, unless `wait` is False.

    Raises:
        IncompleteError: an object has not come yet, and `wait` is False.
        ObjectPullError: a part is missing.
        MessageError: more or longer objects than such a parcel has, or something that Flower cannot read.
        httpx.HTTPError: the SuperLink does not answer.
    """
    run_id = proto.metadata.run_id
    confirm = make_confirm_message_received_fn_protobuf(end.ConfirmMessageReceived, node, run_id)
    pull = make_pull_object_fn_protobuf(end.PullObject, node, run_id)

    def measured(object_id: str) -> bytes:
        try:
            content: bytes = pull(object_id)
        except ObjectUnavailableError:
            if wait:
                raise
            raise IncompleteError from None
        _bound("an object", len(content), CHUNK + _AROUND, "bytes")
        return content

    try:
        if proto.HasField("error") or len(proto.content.items):
            confirm(tree.object_id)
            _bound("content within it", proto.ByteSize(), CHUNK + _AROUND, "bytes")
            message: Message = message_from_proto(proto)
        else:
            most = max(1, -(-limit // CHUNK)) + _OBJECTS
            _bound("content", sum(1 for _ in iterate_object_tree(tree)), most, "objects")
            message = pull_and_inflate_object_from_tree(tree, measured, confirm, return_type=Message)
    except (httpx.HTTPError, ObjectPullError, IncompleteError):
        raise
    except MessageError:
        confirm(tree.object_id)
        raise
    except Exception as error:  # Flower has no class of its own for what it cannot read
        raise MessageError(f"a message that Flower cannot read: {type(error).__name__}") from None
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message


def _bound(what: str, count: int, most: int, unit: str) -> None:
    if count > most:
        raise MessageError(f"a message with {what} of {count} {unit} where {most} are allowed")


def parcel_of(message: Message, limit: int = MAX_CHUNKS * CHUNK) -> Parcel:
    """What a message carries; raises `MessageError` for all but a parcel with a body of at most `limit` bytes."""
    if not message.has_content() or not isinstance(message.content, RecordDict):
        raise MessageError("a message without content")
    return Parcel.from_record(message.content, limit)


@dataclass(eq=False)
class _Arriving:
    """A reply that has been handed out, and when its objects are looked for."""

    proto: MessageProto
    tree: ObjectTree
    since: float
    again: float = 0.0
    pause: float = _LOOK_AGAIN[0]

    @property
    def to(self) -> str:
        """Id of the message it replies to."""
        return str(self.proto.metadata.reply_to_message_id)


class Post:
    """The host's end: reaches the nodes of one run.

    Args:
        client: of the SuperLink's Runtime API, with the run's token.
        run_id: of the run.
    """

    def __init__(self, client: RuntimeHttpClient, run_id: int) -> None:
        self._client, self._run_id = client, run_id
        self._node = NodeProto(node_id=SUPERLINK_NODE_ID)
        self._arriving: list[_Arriving] = []

    def nodes(self) -> set[int]:
        """Ids of the nodes that are online."""
        return {node.node_id for node in self._client.GetNodes(GetNodesRequest()).nodes}

    def send(self, node: int, parcel: Parcel) -> str:
        """Send to one node; return the message's id."""
        message = Message(
            parcel.to_record(),
            dst_node_id=node,
            message_type=MessageType.TRAIN,
            ttl=_KEPT,
            group_id=str(parcel.round),
        )
        packed = Packed.of(message)
        request = PushAppMessagesRequest(messages_list=[packed.proto], message_object_trees=[packed.tree])
        pushed = self._client.PushMessages(request)
        packed.push(self._client, self._node, self._run_id, pushed.session_id, pushed.objects_to_push)
        return str(pushed.message_ids[0])

    def replies(self, sent: Mapping[str, int]) -> list[tuple[str, Parcel | None]]:
        """What has come in reply to messages, by id; None where the node is gone or the message too old.

        A reply whose objects are still on their way, from a slow client or one that is no more, holds up no other.

        Args:
            sent: id of each message, and the most bytes of a reply's body. What is longer, or cannot be read, comes as
                `failed`.
        """
        self._arriving = [one for one in self._arriving if one.to in sent]
        known = {one.to for one in self._arriving}  # Flower hands out a reply once
        if unknown := [to for to in sent if to not in known]:
            answer = self._client.PullMessages(PullAppMessagesRequest(message_ids=unknown))
            new = zip(answer.messages_list, answer.message_object_trees, strict=True)
            self._arriving += [_Arriving(proto, tree, time.monotonic()) for proto, tree in new]
        found: list[tuple[str, Parcel | None]] = []
        for one in list(self._arriving):
            if (now := time.monotonic()) < one.again:
                continue
            try:
                found.append((one.to, self._open(one, sent.get(one.to, 0))))
            except IncompleteError:
                one.again, one.pause = now + one.pause, min(2 * one.pause, _LOOK_AGAIN[1])
                if now - one.since < _ARRIVES_WITHIN:
                    continue
                found.append((one.to, None))
            self._arriving.remove(one)
        return found

    def _open(self, one: _Arriving, limit: int) -> Parcel | None:
        try:
            message = unpack(self._client, self._node, one.proto, one.tree, limit, wait=False)
            return None if message.has_error() else parcel_of(message, limit)
        except ObjectPullError:
            return None
        except MessageError:
            return Parcel("failed", note="MessageError")
