# SPDX-License-Identifier: Apache-2.0
"""What a client keeps between messages: one file, replaced as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from trustformer.attestation.files import put
from trustformer.codec.weights import Weights
from trustformer.errors import TrustformerError
from trustformer.message import Update
from trustformer.training import OptimizerState


@dataclass
class ClientState:
    """Everything a client needs to go on in a fresh process.

    Attributes:
        weights: W_i.
        common: G, the model all clients hold alike; empty where nothing is exchanged.
        optimizer: Adam's state.
        round: last exchange adopted; `manifest_hash` is that of its manifest.
        trained: last round trained for; `loss` is its mean, in nats per token.
        pending: the update of `trained`, from before it is sent until its exchange is adopted.
        acknowledged: last round whose manifest this client has told the enclave it holds; nothing is uploaded for
            it, or for one before it, ever again. `acknowledged_hash` is the manifest's.
    """

    weights: Weights
    common: Weights
    optimizer: OptimizerState = field(default_factory=OptimizerState)
    round: int = 0
    manifest_hash: bytes = bytes(32)
    trained: int = 0
    loss: float = 0.0
    pending: Update | None = None
    acknowledged: int = 0
    acknowledged_hash: bytes = bytes(32)


class ClientStore:
    """Reads and replaces `state.safetensors` of one client."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "state.safetensors"

    def load(self) -> ClientState | None:
        """Return the stored state, None where there is none; raises `TrustformerError` if it is damaged."""
        if not self.path.exists():
            return None
        tensors: dict[str, Weights] = {"weights": {}, "common": {}, "first": {}, "second": {}, "pending": {}}
        try:
            with safe_open(self.path, "numpy") as file:
                meta = file.metadata()
                for key in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
                    kind, name = key.split("/", 1)
                    tensors[kind][name] = file.get_tensor(key)
            return _state(tensors, meta)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
            raise TrustformerError(
                f"the client state {self.path} is damaged: {error}", "remove the run directory and start again"
            ) from None

    def save(self, state: ClientState) -> None:
        """Replace the stored state durably; after a crash either the old or the new one is there."""
        meta = {
            "round": str(state.round),
            "manifest_hash": state.manifest_hash.hex(),
            "acknowledged": str(state.acknowledged),
            "acknowledged_hash": state.acknowledged_hash.hex(),
            "trained": str(state.trained),
            "loss": repr(state.loss),
            "steps": str(state.optimizer.steps),
        }
        if state.pending is not None:
            meta["pending_common"] = state.pending.common_digest.hex()
            meta["pending_examples"] = str(state.pending.num_examples)
            meta["pending_salt"] = state.pending.salt.hex()
        temporary = self.path.with_suffix(".new")
        try:
            save_file(dict(_entries(state)), temporary, meta)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            put(temporary, self.path)
        except (SafetensorError, OSError) as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise TrustformerError(
                f"{self.path} cannot be written: {error}", "free space, then go on: --resume, or the same serve or join"
            ) from None


def _state(tensors: dict[str, Weights], meta: dict[str, str]) -> ClientState:
    pending = None
    if "body" in tensors["pending"]:
        pending = Update(
            round=int(meta["trained"]),
            common_digest=bytes.fromhex(meta["pending_common"]),
            num_examples=int(meta["pending_examples"]),
            salt=bytes.fromhex(meta["pending_salt"]),
            body=tensors["pending"]["body"].tobytes(),
        )
    return ClientState(
        weights=tensors["weights"],
        common=tensors["common"],
        optimizer=OptimizerState(int(meta["steps"]), tensors["first"], tensors["second"]),
        round=int(meta["round"]),
        manifest_hash=bytes.fromhex(meta["manifest_hash"]),
        trained=int(meta["trained"]),
        loss=float(meta["loss"]),
        pending=pending,
        acknowledged=int(meta["acknowledged"]),
        acknowledged_hash=bytes.fromhex(meta["acknowledged_hash"]),
    )


def _entries(state: ClientState) -> Iterator[tuple[str, np.ndarray]]:
    parts = {
        "weights": state.weights,
        "common": state.common,
        "first": state.optimizer.first,
        "second": state.optimizer.second,
    }
    for kind, tensors in parts.items():
        for name, values in tensors.items():
            yield f"{kind}/{name}", np.ascontiguousarray(values)
    if state.pending is not None:
        yield "pending/body", np.frombuffer(state.pending.body, np.uint8)
