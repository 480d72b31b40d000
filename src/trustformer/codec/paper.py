# SPDX-License-Identifier: Apache-2.0
"""The exchange as published in "Trustformer: A Trusted Federated Transformer" (arXiv 2501.11706).

Each client clusters the rows of every weight matrix itself (not of its drift) into K = floor(R x ratio) clusters and
sends the centroids; assignments stay with it. The aggregator averages centroid j of all clients, unweighted.
A client shifts each row by (average - own) centroid of its cluster. Nothing but one seed for the initial rows makes
cluster j of one client correspond to cluster j of another. There is no common model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trustformer.codec.fixed import Fixed
from trustformer.codec.weights import Weights, dense_layout
from trustformer.errors import MessageError
from trustformer.message import Layout, TensorSpec
from trustformer.vq import assign, cluster_means, decode, encode
from trustformer.vq.kmeans import Array, Codes

_SEED = 42
"""One fixed seed picks the same initial rows on every client and in every round."""
_STEPS = 50


@dataclass(frozen=True)
class PaperCodec(Fixed):
    """Row centroids of the weights themselves; matrices whose K would be 0 are not exchanged."""

    upload: Layout
    answer: Layout

    @classmethod
    def make(cls, tensors: Sequence[TensorSpec], ratio: float) -> PaperCodec:
        """Return the codec for a model's tensors; one-dimensional ones stay local."""
        clustered = [
            TensorSpec(tensor.name, (int(tensor.shape[0] * ratio), int(np.prod(tensor.shape[1:]))))
            for tensor in tensors
            if len(tensor.shape) > 1 and int(tensor.shape[0] * ratio) > 0
        ]
        layout = dense_layout(clustered)
        return cls(layout, layout)

    def encode(self, weights: Weights, common: Weights, rng: np.random.Generator) -> bytes:
        """Return the body of a client's update: the row centroids of its weights, fp32; raises `MessageError`."""
        tensors = {spec.name: self._cluster(weights, spec)[0] for spec in self.upload.tensors}
        try:
            return encode(self.upload, tensors, rng)
        except MessageError as error:
            raise MessageError(
                error.message,
                "variant paper sends weights, not how they moved: if those of the model are that large, choose another "
                "method.variant; else training has probably diverged: lower train.learning_rate",
            ) from None

    def adopt(self, weights: Weights, common: Weights, answer: bytes, own: bytes | None) -> tuple[Weights, Weights]:
        """Shift every row by (average - own) centroid of its cluster; without an own update nothing changes.

        The assignments are computed again: weights and seed are those of `encode`, so they are the same.
        """
        if own is None:
            return weights, common
        averages, sent = decode(self.answer, answer), decode(self.upload, own)
        shifted = dict(weights)
        for spec in self.upload.tensors:
            _, labels_R = self._cluster(weights, spec)
            shift_RD = (averages[spec.name] - sent[spec.name])[labels_R]
            shifted[spec.name] = weights[spec.name] + shift_RD.reshape(weights[spec.name].shape)
        return shifted, common

    def _cluster(self, weights: Weights, spec: TensorSpec) -> tuple[Array, Codes]:
        rows_RD = weights[spec.name].reshape(len(weights[spec.name]), -1)
        return row_clusters(rows_RD, spec.shape[0])


def row_clusters(W_RD: Array, n_clusters: int) -> tuple[Array, Codes]:
    """Return centroids (K, D) and the label of each row (R,), as the published code computes them.

    Initial centroids are the first K rows of a seeded permutation; at most 50 Lloyd steps; a cluster that became empty
    has the centroid zero from then on.
    """
    C_KD = W_RD[np.random.default_rng(_SEED).permutation(len(W_RD))[:n_clusters]]
    labels_R = assign(W_RD, C_KD)
    for _ in range(_STEPS):
        C_KD, _ = cluster_means(W_RD, labels_R, n_clusters)
        again_R = assign(W_RD, C_KD)
        if np.array_equal(again_R, labels_R):
            break
        labels_R = again_R
    return C_KD, labels_R
