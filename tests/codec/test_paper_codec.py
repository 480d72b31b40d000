# SPDX-License-Identifier: Apache-2.0
"""The published exchange does what the paper's code does, no better and no worse."""

import numpy as np
import pytest

from trustformer.codec.paper import PaperCodec, row_clusters
from trustformer.codec.weights import specs_of
from trustformer.errors import ConfigError, MessageError
from trustformer.methods import MethodConfig, build
from trustformer.vq import decode, encode

RNG = np.random.default_rng(7)


def make_weights(seed, rows=20, width=6):
    rng = np.random.default_rng(seed)
    return {
        "matrix": rng.standard_normal((rows, width)).astype(np.float32),
        "short": rng.standard_normal((4, width)).astype(np.float32),
        "bias": rng.standard_normal(width).astype(np.float32),
    }


def exchange(codec, clients):
    """What clients and aggregator do in one round: average by index, unweighted, then shift."""
    bodies = [codec.encode(weights, {}, RNG) for weights in clients]
    sent = [decode(codec.upload, body) for body in bodies]
    means = {name: np.mean([one[name] for one in sent], 0, dtype=np.float64).astype(np.float32) for name in sent[0]}
    answer = encode(codec.answer, means, RNG)
    return [codec.adopt(weights, {}, answer, body)[0] for weights, body in zip(clients, bodies, strict=True)]


def reference_clusters(rows, n_clusters):
    """The published loop, one row at a time."""
    centroids = rows[np.random.default_rng(42).permutation(len(rows))[:n_clusters]].astype(np.float64)
    labels = np.full(len(rows), -1)
    for _ in range(51):
        again = np.array([np.argmin(((row - centroids) ** 2).sum(1)) for row in rows])
        if np.array_equal(again, labels):
            break
        labels = again
        for k in range(n_clusters):
            members = rows[labels == k]
            centroids[k] = members.mean(0) if len(members) else 0
    return centroids, labels


def test_clusters_are_those_of_the_published_loop():
    rows = make_weights(1, rows=60)["matrix"]
    centroids, labels = row_clusters(rows, 7)
    expected, expected_labels = reference_clusters(rows, 7)
    np.testing.assert_array_equal(labels, expected_labels)
    np.testing.assert_allclose(centroids, expected, atol=1e-6)


def test_a_cluster_that_became_empty_has_the_centroid_zero():
    rows = np.ones((6, 3), np.float32)
    centroids, labels = row_clusters(rows, 3)
    assert set(labels) == {0}
    np.testing.assert_array_equal(centroids, [[1, 1, 1], [0, 0, 0], [0, 0, 0]])


def test_with_as_many_clusters_as_rows_it_is_federated_averaging_of_matrices():
    clients = [make_weights(seed) for seed in (1, 2, 3)]
    codec = PaperCodec.make(specs_of(clients[0]), ratio=1.0)
    for after in exchange(codec, clients):
        for name in ("matrix", "short"):
            mean = np.mean([client[name] for client in clients], 0)
            np.testing.assert_allclose(after[name], mean, atol=1e-6)


def test_one_dimensional_tensors_and_matrices_without_a_centroid_stay_local():
    clients = [make_weights(seed) for seed in (1, 2)]
    codec = PaperCodec.make(specs_of(clients[0]), ratio=0.1)
    assert [tensor.name for tensor in codec.upload.tensors] == ["matrix"]
    for before, after in zip(clients, exchange(codec, clients), strict=True):
        np.testing.assert_array_equal(after["short"], before["short"])
        np.testing.assert_array_equal(after["bias"], before["bias"])


def test_identical_clients_change_nothing():
    weights = make_weights(5)
    codec = PaperCodec.make(specs_of(weights), ratio=0.3)
    for after in exchange(codec, [weights, weights]):
        np.testing.assert_allclose(after["matrix"], weights["matrix"], atol=1e-6)


def test_the_mean_of_the_clients_is_not_preserved():
    """Its weakness: cluster j of one client is averaged with an unrelated cluster j of another."""
    clients = [make_weights(seed, rows=50) for seed in (1, 2, 3)]
    codec = PaperCodec.make(specs_of(clients[0]), ratio=0.1)
    after = exchange(codec, clients)
    moved = np.mean([one["matrix"] for one in after], 0) - np.mean([one["matrix"] for one in clients], 0)
    assert np.abs(moved).max() > 0.01


def test_weights_that_are_too_large_to_travel_are_refused_as_what_they_are():
    weights = {"matrix": np.full((20, 6), 33, np.float32)}
    with pytest.raises(MessageError, match="tensor 'matrix' holds NaN, infinity or an entry over 32") as refused:
        PaperCodec.make(specs_of(weights), ratio=0.5).encode(weights, {}, RNG)
    assert "variant paper sends weights" in refused.value.hint


def test_a_client_that_was_not_included_keeps_its_weights():
    weights = make_weights(1)
    codec = PaperCodec.make(specs_of(weights), ratio=0.5)
    answer = codec.encode(make_weights(2), {}, RNG)
    assert codec.adopt(weights, {}, answer, None)[0] is weights


def test_a_ratio_that_leaves_nothing_to_send_is_refused():
    config = MethodConfig(variant="paper", ratio=0.001)
    with pytest.raises(ConfigError, match=r"method\.ratio 0\.001"):
        build(config, specs_of(make_weights(1)))
