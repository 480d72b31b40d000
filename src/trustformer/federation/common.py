# SPDX-License-Identifier: Apache-2.0
"""The dense common model from one client to another that is new or too far behind.

It is sealed to the asking client's fresh key, so that the host in between sees only its length, and signed by the
sponsor. What it holds is checked against the digest that most clients report to the enclave.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trustformer.codec.weights import Weights
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import MAX_MESSAGE, Wire, sign, signed_body, split_signed
from trustformer.errors import MessageError, ProtocolError, SealError
from trustformer.federation.channel import Channel
from trustformer.message import Aggregate, Reader, digest, enc
from trustformer.secure.identity import verify
from trustformer.secure.sealing import (
    WRAP_SIZE,
    RecipientKey,
    decrypt_chunks,
    encrypt_chunks,
    new_content_key,
    sealed_length,
    wrap_key,
)
from trustformer.vq import body_size


@dataclass(frozen=True)
class Ask(Wire):
    """The wire form of a request."""

    LABEL = "tfl/1 ask common"
    KINDS = ("id16", "text", "int", "b32")
    run_id: bytes
    client_id: str
    round: int
    recipient: bytes


@dataclass(frozen=True)
class CommonRequest:
    """A request and the key its answer will be opened with."""

    ask: Ask
    signed: bytes
    key: RecipientKey

    @classmethod
    def new(cls, channel: Channel, number: int) -> CommonRequest:
        """Ask for the common model after round `number`."""
        key = RecipientKey()
        ask = Ask(channel.config.run_id, channel.client_id, number, key.public)
        return cls(ask, sign(ask.to_bytes(), channel.identity), key)


class CommonReply:
    """The sealed dense model."""

    @staticmethod
    def make(request: bytes, channel: Channel, common: Weights) -> bytes:
        """Seal G to a client of the roster.

        Raises:
            ProtocolError, SealError: the request is anyone else's.
            MessageError: an entry of G is not finite; names the tensor.
        """
        ask = Ask.from_bytes(split_signed(request, "ask common")[0])
        signed_body(request, channel.config.key_of(ask.client_id), "ask common")
        if ask.run_id != channel.config.run_id or ask.round != channel.welcome.round:
            raise ProtocolError("ask common: another run or round than this client is at")
        payload = _to_bytes(common)
        content_key = new_content_key()
        wrap = wrap_key(content_key, ask.recipient, _info(request, channel.client_id))
        chunks = encrypt_chunks(content_key, payload)
        return enc(wrap, channel.identity.sign(_to_sign(request, wrap, chunks)), chunks)

    @staticmethod
    def open(reply: bytes, request: CommonRequest, sponsor: str, config: RunConfig, like: Weights) -> Weights:
        """Return a model of the shapes of `like`; raises `SealError` or `MessageError` if it is not the sponsor's."""
        length = _size(like)
        reader = Reader(reply, "common model")
        wrap, signature = reader.raw(limit=WRAP_SIZE, exactly=WRAP_SIZE), reader.raw(limit=64, exactly=64)
        chunks = reader.raw(limit=sealed_length(length))
        reader.end()
        verify(config.key_of(sponsor), signature, _to_sign(request.signed, wrap, chunks), "common model")
        if request.ask.client_id == sponsor:
            raise SealError("common model: a client cannot be its own sponsor")
        content_key = request.key.unwrap(wrap, _info(request.signed, sponsor))
        return _from_bytes(decrypt_chunks(content_key, chunks, length), like)


def longest_answer(config: RunConfig, common: Weights, max_lag: int) -> int:
    """Bytes that no honest answer to a client exceeds: the rounds it may have missed, and a dense common model.

    Args:
        config: the run's terms.
        common: a model of the common one's shapes; empty where the method has none.
        max_lag: most rounds a client catches up one by one; two more may be closed while it asks.
    """
    missed = 2 * MAX_MESSAGE + sealed_length(len(Aggregate(0, b"").to_bytes()) + body_size(config.answer))
    return (max_lag + 2) * missed + sealed_length(_size(common)) + 2 * MAX_MESSAGE


def _size(common: Weights) -> int:
    return 4 * sum(values.size for values in common.values())


def _to_bytes(common: Weights) -> bytes:
    """Entries by tensors' names, little-endian fp32: a model's, so without the bound on those of a drift."""
    return b"".join(_finite(name, common[name]).astype("<f4").tobytes() for name in sorted(common))


def _from_bytes(data: bytes, like: Weights) -> Weights:
    """Return tensors of the shapes of `like`; `data` has the length that `_size` gives."""
    common, at = {}, 0
    for name in sorted(like):
        values = np.frombuffer(data, "<f4", like[name].size, at)
        common[name] = _finite(name, values.astype(np.float32).reshape(like[name].shape))
        at += values.nbytes
    return common


def _finite(name: str, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if not np.isfinite(values).all():
        raise MessageError(
            f"common model: the tensor {name!r} holds NaN or infinity",
            "it has diverged at its sender; where all hold it so, run again with a lower train.learning_rate",
        )
    return values


def _info(request: bytes, sponsor: str) -> bytes:
    return b"tfl/1 common" + digest(request) + sponsor.encode()


def _to_sign(request: bytes, wrap: bytes, chunks: bytes) -> bytes:
    return enc("tfl/1 commonsig", digest(request), digest(wrap), digest(chunks))
