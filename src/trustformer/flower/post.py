# SPDX-License-Identifier: Apache-2.0
"""Parcels on Flower's wire: packed and pushed, pulled and unpacked, at either end.

Flower takes a message apart into objects, each with an HTTP request of its own: nine for one short message from end
to end. One that fits travels within its message instead, in three.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from flwr.app import Message, MessageType
from flwr.app.message import remove_content_from_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node as NodeProto
from flwr.proto.runtime_pb2 import GetNodesRequest, PullAppMessagesRequest, PushAppMessagesRequest
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree, no_object_id_recompute
from flwr.supercore.inflatable.inflatable_protobuf_utils import (
    make_confirm_message_received_fn_protobuf,
    make_pull_object_fn_protobuf,
    make_push_object_fn_protobuf,
)
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    pull_and_inflate_object_from_tree,
    push_objects,
)
from flwr.supercore.runtime import RuntimeHttpClient

from trustformer.errors import MessageError
from trustformer.flower.parcel import CHUNK, Parcel


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


def unpack(end: End, node: NodeProto, proto: MessageProto, tree: ObjectTree) -> Message:
    """The message with its content; raises `ObjectPullError` where a part of it is missing."""
    run_id = proto.metadata.run_id
    confirm = make_confirm_message_received_fn_protobuf(end.ConfirmMessageReceived, node, run_id)
    if proto.HasField("error") or len(proto.content.items):
        confirm(tree.object_id)
        message: Message = message_from_proto(proto)
    else:
        pull = make_pull_object_fn_protobuf(end.PullObject, node, run_id)
        message = pull_and_inflate_object_from_tree(tree, pull, confirm, return_type=Message)
    message.metadata.__dict__["_message_id"] = tree.object_id
    return message


def parcel_of(message: Message) -> Parcel:
    """What a message carries; raises `MessageError` for anything that is not a parcel."""
    if not message.has_content():
        raise MessageError("a message without content")
    return Parcel.from_record(message.content)


class Post:
    """The host's end: reaches the nodes of one run.

    Args:
        client: of the SuperLink's Runtime API, with the run's token.
        run_id: of the run.
    """

    def __init__(self, client: RuntimeHttpClient, run_id: int) -> None:
        self._client, self._run_id = client, run_id
        self._node = NodeProto(node_id=SUPERLINK_NODE_ID)

    def nodes(self) -> set[int]:
        """Ids of the nodes that are online."""
        return {node.node_id for node in self._client.GetNodes(GetNodesRequest()).nodes}

    def send(self, node: int, parcel: Parcel) -> str:
        """Send to one node; return the message's id."""
        message = Message(
            parcel.to_record(), dst_node_id=node, message_type=MessageType.TRAIN, group_id=str(parcel.round)
        )
        packed = Packed.of(message)
        request = PushAppMessagesRequest(messages_list=[packed.proto], message_object_trees=[packed.tree])
        pushed = self._client.PushMessages(request)
        packed.push(self._client, self._node, self._run_id, pushed.session_id, pushed.objects_to_push)
        return str(pushed.message_ids[0])

    def replies(self, sent: Sequence[str]) -> list[tuple[str, Parcel | None]]:
        """What has come in reply to these messages, by id; None where the node is gone or the message too old."""
        answer = self._client.PullMessages(PullAppMessagesRequest(message_ids=sent))
        found: list[tuple[str, Parcel | None]] = []
        for proto, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            found.append((proto.metadata.reply_to_message_id, self._open(proto, tree)))
        return found

    def _open(self, proto: MessageProto, tree: ObjectTree) -> Parcel | None:
        try:
            message = unpack(self._client, self._node, proto, tree)
        except ObjectPullError:
            return None
        if message.has_error():
            return None
        try:
            return parcel_of(message)
        except MessageError:
            return Parcel("failed", note="MessageError")
