# SPDX-License-Identifier: Apache-2.0
"""A SuperNode: one client's connection to the SuperLink, over TLS and with its own key.

It speaks Flower's Fleet API as `flower-supernode` does, with two differences. The app bundle that a SuperLink offers is
never fetched and never run: the code beside the private text is the installed package, and a run of any bundle but the
pinned one is refused. And messages are asked for more often than every three seconds.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from cryptography.x509 import load_pem_x509_certificates
from flwr.app import Message
from flwr.common.constant import HEARTBEAT_MAX_INTERVAL, HEARTBEAT_MIN_INTERVAL, HEARTBEAT_PATIENCE
from flwr.proto.fleet_pb2 import ActivateNodeRequest, DeactivateNodeRequest, PullMessagesRequest, PushMessagesRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.node_pb2 import Node as NodeProto
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from trustformer.errors import ConfigError, MessageError, TrustformerError
from trustformer.federation.ledger import named
from trustformer.flower.parcel import Parcel
from trustformer.flower.post import Packed, unpack

BEAT = 4.0
"""Seconds between signs of life. The SuperLink takes a node for lost after two intervals of the shortest it allows."""
BUSY = 100
"""Clients up to which every node keeps this pace. With more, each speaks as much less often, and all together as often:
a SuperLink answers some 270 requests a second (docs/scale.md)."""
NOT_CONNECTED = "not connected"
_STRANGER = "the clocks differ by minutes, or it does not know its key"
_REFUSALS = {
    401: _STRANGER,
    403: _STRANGER,
    412: "another join with its key is online or was seconds ago, as from a copy of this folder (end all but one), or"
    " it knows this client by another key",
}
"""What Flower may mean by a status; by 412, which activating alone is answered with, it means either."""
_T = TypeVar("_T")
_FAULTS = (httpx.HTTPError, ObjectPullError, ObjectPushError, MessageError, ValueError, IndexError)
"""The last two: what the SuperLink sent is not what Flower's client reads."""


class LostError(TrustformerError):
    """The SuperLink cannot be reached, or does not know this node (any more): connect again."""


class BundleError(TrustformerError):
    """A run of an app bundle that this client has not pinned."""


class Node:
    """One connection at a time to one SuperLink.

    Args:
        superlink: its address, `HOST:PORT`.
        ca: PEM file of the certificate authority of its TLS certificate.
        key: OpenSSH file of the node's private key, of a NIST curve.
        bundle: SHA-256 of the app bundle whose runs are taken part in, in hex.
        memo: file that keeps the node's id, so that one killed a moment ago can take its own place again; a copy of it
            elsewhere is of no use.
        limit: most bytes of a message's body.
        pace: factor by which signs of life come less often.

    Raises:
        ConfigError: a file that cannot be read.
    """

    def __init__(
        self, superlink: str, ca: Path, key: Path, bundle: str, memo: Path, limit: int, pace: float = 1.0
    ) -> None:
        _loaded(ca, "TLS file", load_pem_x509_certificates)
        self._ca, private = ca.read_bytes(), _loaded(key, "key", lambda data: load_ssh_private_key(data, None))
        if not isinstance(private, EllipticCurvePrivateKey):
            raise ConfigError(f"{key}: Flower takes keys of a NIST curve only")
        self._superlink, self._key, self._bundle, self._memo = superlink, private, bundle, memo
        self._limit, self._pace = limit, pace
        self._client: FleetHttpClient | None = None
        self._node = NodeProto()
        self._allowed: dict[int, bool] = {}
        self._stop = threading.Event()

    def connect(self) -> None:
        """Activate this node; raises `LostError` saying why it cannot be."""
        self.close(leave=False)
        headers = (
            RuntimeVersionHttpInterceptor(component_name="SuperNode"),
            NodeAuthHttpInterceptor(self._key, self._key.public_key()),
        )
        client = FleetHttpClient.from_server_address(self._superlink, False, self._ca, interceptors=headers)
        request = ActivateNodeRequest(
            public_key=public_key_to_bytes(self._key.public_key()), heartbeat_interval=self._interval
        )
        try:
            if before := self._before():
                with suppress(httpx.HTTPStatusError, ValueError):
                    client.DeactivateNode(DeactivateNodeRequest(node_id=before))
            self._node = NodeProto(node_id=client.ActivateNode(request).node_id)
        except _FAULTS as error:
            client.close()
            raise LostError(f"no connection to {self._superlink}: {_why(error)}") from None
        temporary = self._memo.with_suffix(".new")
        with named(temporary):
            temporary.write_text(f"{self._node.node_id} {_place(self._memo.parent)}", "utf-8")
        os.replace(temporary, self._memo)
        self._client, self._allowed, self._stop = client, {}, threading.Event()
        threading.Thread(target=self._beat, args=(client, self._node, self._stop), daemon=True).start()

    def _before(self) -> int:
        """Id under which a process of this very folder may still count as online though it was killed; 0 for none.

        It is the last sign of life that says how long: whoever came in after that is another process, and stays.
        """
        with suppress(OSError, ValueError):
            number, _, place = self._memo.read_text("utf-8").partition(" ")
            since = time.time() - self._memo.stat().st_mtime
            if place == _place(self._memo.parent) and 0 <= since < HEARTBEAT_PATIENCE * self._interval:
                return int(number)
        return 0

    @property
    def _interval(self) -> float:
        return float(min(self._pace * HEARTBEAT_MIN_INTERVAL, HEARTBEAT_MAX_INTERVAL))

    def _beat(self, client: FleetHttpClient, node: NodeProto, stop: threading.Event) -> None:
        request = SendNodeHeartbeatRequest(node=node, heartbeat_interval=self._interval)
        while not stop.wait(self._pace * BEAT):
            with suppress(OSError):
                os.utime(self._memo)
            with suppress(httpx.HTTPError, RuntimeError):  # RuntimeError: closed a moment ago
                client.SendNodeHeartbeat(request)

    def close(self, *, leave: bool = True) -> None:
        """End the connection; `leave` says so to the SuperLink. May be called again."""
        self._stop.set()
        if self._client is not None:
            if leave:
                with suppress(httpx.HTTPError):
                    self._client.DeactivateNode(DeactivateNodeRequest(node_id=self._node.node_id))
            self._client.close()
            self._client = None

    def receive(self) -> Message | None:
        """Return the next message, None where there is none.

        Raises:
            LostError: connect again.
            BundleError: the message belongs to a run of a bundle that is not pinned: it was answered with a refusal.
        """
        client, node = self._open(), self._node
        try:
            response = client.PullMessages(PullMessagesRequest(node=node))
            if not response.messages_list:
                return None
            message = unpack(client, node, response.messages_list[0], response.message_object_trees[0], self._limit)
            run_id = message.metadata.run_id
            if run_id not in self._allowed:
                offered = client.GetRun(GetRunRequest(node=node, run_id=run_id)).run.fab_hash
                self._allowed[run_id] = offered == self._bundle
        except _FAULTS as error:
            raise LostError(f"the SuperLink does not answer: {_why(error)}") from None
        if not self._allowed[run_id]:
            self.reply(message, Parcel("failed", note="BundleError"), within=False)  # any app reads it
            raise BundleError(
                f"run {run_id} brings an app bundle that this client has not pinned; nothing of it was run",
                "if it is meant to be, agree with the host on its SHA-256 and put it into the node's config",
            )
        return message

    def reply(self, message: Message, parcel: Parcel, *, within: bool = True) -> None:
        """Answer a message, as `Packed.of` packs it; raises `LostError`."""
        client, node = self._open(), self._node
        packed = Packed.of(Message(parcel.to_record(), reply_to=message), within=within)
        request = PushMessagesRequest(
            node=node, messages_list=[packed.proto], message_object_trees=[packed.tree], clientapp_runtime_list=[0.0]
        )
        try:
            pushed = client.PushMessages(request)
            packed.push(client, node, message.metadata.run_id, pushed.session_id, pushed.objects_to_push)
        except _FAULTS as error:
            raise LostError(f"a reply could not be sent: {_why(error)}") from None

    def _open(self) -> FleetHttpClient:
        if self._client is None:
            raise LostError(NOT_CONNECTED)
        return self._client


def _why(error: Exception) -> str:
    if not isinstance(error, httpx.HTTPStatusError):
        return str(error) or type(error).__name__
    code = error.response.status_code
    if code in _REFUSALS:
        return f"it refuses this node ({code}): {_REFUSALS[code]}"
    return f"it answers {code}"


def _place(folder: Path) -> str:
    """What tells a folder from copies of it, on this machine or another, until the machine is started again."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        boot = platform.node()
    found = folder.stat()
    return f"{boot} {found.st_dev} {found.st_ino}"


def _loaded(path: Path, what: str, load: Callable[[bytes], _T]) -> _T:
    """What `load` makes of a file's bytes; raises `ConfigError` naming the file."""
    hint = "take it from the folder that init-federation wrote for this client"
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"the node's {what} {path} cannot be read: {error.strerror}", hint) from None
    except ValueError:
        raise ConfigError(f"the node's {what} {path} is damaged or holds something else", hint) from None
