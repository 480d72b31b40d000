# SPDX-License-Identifier: Apache-2.0
"""Row centroids of the drift under one partition that every party derives from public state.

    e_i = (mean of the drift's rows over cluster k)_k        decode(e)_r = e_{cluster of r}

With the same clusters everywhere, coding is an orthogonal projection P and the mean of centroids is the centroid of
the mean: no assignments travel, and the spread Σ p_i ||W_i - mean||² loses exactly what P takes of it.

A matrix of R rows has K = ceil(R x ratio) clusters, or in `drift` a share of the same budget; `choices.py` says which
rows go together. Rows that wait share a cluster whose centroid is not sent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Literal

import numpy as np

from trustformer.codec import choices
from trustformer.codec.choices import Partition, width
from trustformer.codec.drift import shift
from trustformer.codec.weights import Weights, weights_digest
from trustformer.message import Dense, Group, Layout, TensorSpec, digest, enc
from trustformer.vq import cluster_means, decode, encode
from trustformer.vq.kmeans import Array

Choice = Literal["rotating", "drift", "history", "random"]

BODY = "centroids"
"""Name of the one flat tensor that holds the centroids of all matrices."""
_ROUNDING = 1e-9
"""70 x 0.1 is a little more than 7."""


@dataclass(frozen=True)
class PartitionCodec:
    """The same for a whole run; `at` gives the codec of one exchange.

    Args:
        tensors: of the model; matrices are clustered by their first axis, one-dimensional ones travel as fp16.
        ratio: centroids of a matrix as a share of its rows.
        choice: how the partition of an exchange is chosen.
        start: G_0, from which `history` and `drift` see what past exchanges moved.
    """

    tensors: tuple[TensorSpec, ...]
    ratio: float
    choice: Choice
    start: Weights = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def upload(self) -> Layout:
        """All centroids as one flat fp16 tensor, then the one-dimensional tensors: nothing else is sent."""
        floats = self.floats
        vectors = tuple(spec for spec in self.tensors if len(spec.shape) == 1)
        centroids = (TensorSpec(BODY, (floats,)),) if floats else ()
        return Layout((Group(Dense("float16"), centroids + vectors),))

    @cached_property
    def floats(self) -> int:
        """Entries of all centroids of a message; what an exchange's clusters leave over is zero."""
        return sum(self.contents.values())

    @property
    def contents(self) -> dict[str, int]:
        """Entries of each matrix in that tensor; `drift` shares them out anew in every exchange."""
        return {spec.name: self.clusters(spec) * width(spec) for spec in self.matrices}

    @property
    def answer(self) -> Layout:
        """The same form: the enclave sees dense tensors and need not know the partition."""
        return self.upload

    @property
    def matrices(self) -> tuple[TensorSpec, ...]:
        """Tensors that are clustered."""
        return tuple(spec for spec in self.tensors if len(spec.shape) > 1)

    def clusters(self, spec: TensorSpec) -> int:
        """Number K of clusters of a matrix."""
        rows = spec.shape[0]
        return min(rows, math.ceil(rows * self.ratio - _ROUNDING))

    def at(self, seed: int, number: int) -> PartitionExchange:
        """Return the codec of exchange `number` (from 1): the same for every party that knows the run's seed."""
        return PartitionExchange(self, partial(self._partition, seed, number))

    def _partition(self, seed: int, number: int, common: Weights) -> Partition:
        matrices, clusters = self.matrices, {spec.name: self.clusters(spec) for spec in self.matrices}
        if self.choice == "random":
            return choices.random(matrices, clusters, seed, number)
        if self.choice == "rotating":
            return choices.rotating(matrices, clusters, seed, number)
        past = {spec.name: common[spec.name] - self.start[spec.name] for spec in matrices}
        choose = choices.history if self.choice == "history" else choices.by_drift
        return choose(matrices, clusters, seed, number, past)


class PartitionExchange:
    """The codec of one exchange.

    Args:
        codec: of the run.
        choose: gives the partition for the common model G; called once for each G.
    """

    def __init__(self, codec: PartitionCodec, choose: Callable[[Weights], Partition]) -> None:
        self.codec, self._choose = codec, choose
        self._known: tuple[bytes, Partition] | None = None

    def partition(self, common: Weights) -> Partition:
        """Return the partition of this exchange, given G before it."""
        model = weights_digest(common)
        if self._known is None or self._known[0] != model:
            self._known = (model, self._choose(common))
        return self._known[1]

    def digest(self, common: Weights) -> bytes:
        """Digest of the common model G and of the partition: an update made under another of either is refused."""
        labels = self.partition(common).labels
        parts = [enc(name, labels[name].astype("<u4").tobytes()) for name in sorted(labels)]
        return digest(enc("tfl/1 partition", weights_digest(common), *parts))

    def encode(self, weights: Weights, common: Weights, rng: np.random.Generator) -> bytes:
        """Return the body of a client's update: the centroids of its drift, fp16."""
        partition = self.partition(common)
        drift = {name: weights[name] - common[name] for name in weights}
        flat, at = np.zeros(self.codec.floats, np.float32), 0
        for spec in self.codec.matrices:
            centroids = _centroids(drift[spec.name].reshape(spec.shape[0], -1), partition, spec.name)
            flat[at : at + centroids.size] = centroids.reshape(-1)
            at += centroids.size
        vectors = {name: values for name, values in drift.items() if name not in partition.labels}
        return encode(self.codec.upload, ({BODY: flat} if flat.size else {}) | vectors, rng)

    def adopt(self, weights: Weights, common: Weights, answer: bytes, own: bytes | None) -> tuple[Weights, Weights]:
        """Return the client's weights and the common model after an exchange, as `DriftCodec.adopt` does."""
        partition = self.partition(common)
        sent = self._decode(own, partition) if own is not None else None
        return shift(weights, common, self._decode(answer, partition), sent)

    def _decode(self, body: bytes, partition: Partition) -> Weights:
        tensors = decode(self.codec.upload, body)
        flat, at = tensors.pop(BODY, np.empty(0, np.float32)), 0
        for spec in self.codec.matrices:
            shape = (partition.clusters[spec.name], width(spec))
            C_KD = flat[at : at + math.prod(shape)].reshape(shape)
            waiting = np.zeros((1, shape[1]), np.float32)
            tensors[spec.name] = np.concatenate([C_KD, waiting])[partition.labels[spec.name]].reshape(spec.shape)
            at += C_KD.size
        return tensors


def _centroids(rows_RD: Array, partition: Partition, name: str) -> Array:
    clusters = partition.clusters[name]
    return cluster_means(rows_RD, partition.labels[name], clusters + 1)[0][:clusters]
