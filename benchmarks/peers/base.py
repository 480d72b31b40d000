# SPDX-License-Identifier: Apache-2.0
"""What a coder of drifts is in the screening harness, and the exchange built from two of them.

A coder turns named float32 arrays into bytes and back. It need not know about clients, rounds or feedback:
`exchange` is the one equation of the project,

    u = Σ p_i decode(e_i) + s        ē = E'(u)        s <- u - decode(ē)

and a coder whose messages answer each other within an exchange (PowerSGD) overrides it. Parties keep what a coder
remembers between exchanges in `memory`, a dictionary of arrays that the harness stores with the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trustformer.aggregation import WeightedMean
from trustformer.codec.rates import join, pieces
from trustformer.codec.weights import Weights, dense_layout, specs_of
from trustformer.message import Layout, Reader, TensorSpec, enc
from trustformer.vq import decode as decode_layout
from trustformer.vq import encode as encode_layout

Memory = dict[str, npt.NDArray[np.float32]]
Specs = tuple[TensorSpec, ...]


@dataclass
class Outcome:
    """What one exchange came to.

    Attributes:
        sent: decode(e_i) of every client.
        step: decode(ē).
        s: the enclave's new s.
        up: lengths of one client's messages, in bytes; the longest client where they differ.
        down: lengths of the answers to one client.
    """

    sent: list[Weights]
    step: Weights
    s: Weights
    up: tuple[int, ...]
    down: tuple[int, ...]


class Codec:
    """Tensors to bytes and back."""

    def encode(self, tensors: Weights, memory: Memory, rng: np.random.Generator) -> bytes:
        """Return the message of one party; `rng` draws the same for all clients of an exchange."""
        raise NotImplementedError

    def decode(self, body: bytes, specs: Specs, memory: Memory) -> Weights:
        """Return what a message stands for; `specs` are the names and shapes that were encoded."""
        raise NotImplementedError

    def learn(self, answer: Weights, memory: Memory) -> None:
        """Remember what every party saw: called for each with the decoded answer."""

    def exchange(
        self,
        answer: Codec,
        drifts: Sequence[Weights],
        common: Weights,
        counts: Sequence[int],
        s: Weights,
        memories: Sequence[Memory],
        draw: tuple[int, int],
        max_share: float,
    ) -> Outcome:
        """Run one exchange.

        Args:
            answer: codes ē.
            drifts: x_i of every client, the tensors of this exchange only.
            common: G.
            counts: training examples of every client.
            s: what the last answer could not express; empty for zero.
            memories: of the enclave, then of every client.
            draw: seed and number of the exchange: of every random draw.
            max_share: as in `WeightedMean`.
        """
        specs = specs_of(drifts[0])
        bodies = [
            self.encode(drift, memory, np.random.default_rng(draw))
            for drift, memory in zip(drifts, memories[1:], strict=True)
        ]
        sent = [self.decode(body, specs, memory) for body, memory in zip(bodies, memories[1:], strict=True)]
        mixed = mean_of(sent, counts, max_share)
        total = {spec.name: mixed[spec.name] for spec in specs}  # coders pool tensors in their order
        for name in s:
            total[name] += s[name]
        body = answer.encode(total, memories[0], np.random.default_rng(draw))
        step = answer.decode(body, specs, memories[0])
        for memory in memories:
            answer.learn(step, memory)
        left = {name: total[name] - step[name] for name in total}
        return Outcome(sent, step, left, (max(map(len, bodies)),), (len(body),))


def mean_of(sent: Sequence[Weights], counts: Sequence[int], max_share: float) -> Weights:
    """Return the enclave's own weighted mean, bit for bit."""
    layout = dense_layout(specs_of(sent[0]))
    mean = WeightedMean(layout, max_share, clients=len(counts))
    for tensors, count in zip(sent, counts, strict=True):
        mean.add(count, encode_layout(layout, tensors, np.random.default_rng(0)))
    return mean.result()


class LayoutCodec(Codec):
    """A coder of the project itself, given by the layout it makes of the tensors' specs."""

    def layout(self, specs: Specs) -> Layout:
        raise NotImplementedError

    def encode(self, tensors: Weights, memory: Memory, rng: np.random.Generator) -> bytes:
        layout = self.layout(specs_of(tensors))
        return encode_layout(layout, pieces(layout, tensors), rng)

    def decode(self, body: bytes, specs: Specs, memory: Memory) -> Weights:
        return join(decode_layout(self.layout(specs), body))


class MatrixCodec(Codec):
    """Codes each matrix by itself; one-dimensional tensors travel as fp16. A subclass gives `pack` and `unpack`."""

    def pack(self, values: npt.NDArray[np.float32], rng: np.random.Generator) -> bytes:
        raise NotImplementedError

    def unpack(self, data: bytes, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        raise NotImplementedError

    def encode(self, tensors: Weights, memory: Memory, rng: np.random.Generator) -> bytes:
        return enc(
            *(
                values.astype("<f2").tobytes() if values.ndim == 1 else self.pack(values, rng)
                for values in tensors.values()
            )
        )

    def decode(self, body: bytes, specs: Specs, memory: Memory) -> Weights:
        reader = Reader(body, "peer")
        tensors = {}
        for spec in specs:
            data = reader.raw(limit=8 * spec.size + 4096)
            if len(spec.shape) == 1:
                tensors[spec.name] = np.frombuffer(data, "<f2").astype(np.float32)
            else:
                tensors[spec.name] = self.unpack(data, spec.shape)
        reader.end()
        return tensors
