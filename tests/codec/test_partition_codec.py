# SPDX-License-Identifier: Apache-2.0
"""Centroids under a public partition: which rows go together, and what a message of them is."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustformer.codec.drift import DriftCodec
from trustformer.codec.partition import PartitionCodec
from trustformer.codec.weights import dense_layout, specs_of, weights_digest
from trustformer.message import TensorSpec
from trustformer.vq import body_size

RNG = np.random.default_rng(0)
SHAPES = {"wide": (20, 6), "tall": (7, 3), "row": (1, 5), "cube": (6, 2, 3), "bias": (9,)}


def make_weights(seed, size=1.0):
    rng = np.random.default_rng(seed)
    return {name: (rng.standard_normal(shape) * size).astype(np.float32) for name, shape in SHAPES.items()}


CHOICES = ["rotating", "drift", "history", "random"]
ALONE = ["rotating", "drift"]


def make_codec(ratio=0.3, choice="rotating", start=0):
    return PartitionCodec(specs_of(make_weights(0)), ratio, choice, make_weights(start))


def partition_of(rows, ratio, choice, seed, number):
    """The partition of one matrix that has moved, of a share of its rows, by different amounts."""
    codec = PartitionCodec((TensorSpec("w", (rows, 2)),), ratio, choice, {"w": np.zeros((rows, 2), np.float32)})
    moved = np.random.default_rng(rows).standard_normal((rows, 2)) ** 3 * (np.arange(rows) % 3 > 0)[:, None]
    partition = codec.at(seed, number).partition({"w": moved.astype(np.float32)})
    assert partition.clusters["w"] == codec.clusters(codec.tensors[0])  # one matrix has all of the budget
    return partition.labels["w"], partition.clusters["w"]


def labels_of(rows, ratio, choice, seed, number):
    return partition_of(rows, ratio, choice, seed, number)[0]


def expressed(exchange, drift):
    """decode(E(x)): what the common model moves by when nobody else takes part, and the partition that did it."""
    common = make_weights(9)
    weights = {name: common[name] + values for name, values in drift.items()}
    body = exchange.encode(weights, common, RNG)
    after = exchange.adopt(weights, common, body, body)[1]
    return {name: after[name] - common[name] for name in drift}, exchange.partition(common)


ratios = st.floats(0.01, 1.0)


@given(rows=st.integers(1, 300), ratio=ratios, choice=st.sampled_from(CHOICES), seed=st.integers(0, 9))
@settings(max_examples=120, deadline=None)
def test_a_partition_has_k_clusters_and_is_the_same_for_all(rows, ratio, choice, seed):
    labels, clusters = partition_of(rows, ratio, choice, seed, 6)
    assert set(labels) <= set(range(clusters + 1))
    if choice != "history":  # fewer distinct rows than clusters leave some empty
        assert set(labels) - {clusters} == set(range(clusters))
    assert (labels == clusters).sum() == (rows - clusters if choice in ALONE else 0)
    assert len(labels) == rows
    assert rows * ratio - 1e-6 <= clusters < rows * ratio + 1
    np.testing.assert_array_equal(labels, labels_of(rows, ratio, choice, seed, 6))


@given(rows=st.integers(2, 300), ratio=ratios, choice=st.sampled_from(ALONE), first=st.integers(1, 1000))
@settings(max_examples=80, deadline=None)
def test_in_one_turn_every_row_is_alone_once(rows, ratio, choice, first):
    """`drift` begins with such a turn, and then no longer promises one."""
    alone, first = set(), first if choice == "rotating" else 1
    for number in range(first, first + math.ceil(1 / ratio)):
        labels, clusters = partition_of(rows, ratio, choice, 1, number)
        named = np.flatnonzero(labels < clusters)
        assert len(named) == clusters
        alone |= set(named)
    assert alone == set(range(rows))


def test_random_clusters_are_of_equal_size_and_drawn_anew():
    labels, clusters = partition_of(103, 0.1, "random", 1, 1)
    sizes = np.bincount(labels, minlength=clusters)
    assert sizes.max() - sizes.min() <= 1
    assert (labels != labels_of(103, 0.1, "random", 1, 2)).any()
    assert (labels != labels_of(103, 0.1, "random", 2, 1)).any()


def test_history_puts_together_rows_that_moved_alike_in_every_second_exchange():
    kinds = np.random.default_rng(5).standard_normal((6, 4)).astype(np.float32)
    kind_of_row = np.random.default_rng(6).permutation(np.arange(60) % 6)
    codec = PartitionCodec((TensorSpec("w", (60, 4)),), 0.1, "history", {"w": np.ones((60, 4), np.float32)})
    labels = codec.at(1, 2).partition({"w": 1 + kinds[kind_of_row]}).labels["w"]
    assert len({(kind, label) for kind, label in zip(kind_of_row, labels, strict=True)}) == 6
    for number in (1, 3, 5):
        alone = codec.at(1, number).partition({"w": 1 + kinds[kind_of_row]}).labels["w"]
        rotating = replace(codec, choice="rotating").at(1, (number + 1) // 2).partition({"w": kinds})
        np.testing.assert_array_equal(alone, rotating.labels["w"])


def drifting(moved, ratio=0.1):
    """A codec of matrices of 200, 40 and 40 rows, 4, 4 and 16 wide, and G after each has moved by `moved`."""
    shapes = {"tall": (200, 4), "busy": (40, 4), "wide": (40, 16)}
    specs = tuple(TensorSpec(name, shape) for name, shape in shapes.items())
    start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    common = {name: np.full(shape, moved[name], np.float32) for name, shape in shapes.items()}
    return PartitionCodec(specs, ratio, "drift", start), common


def test_matrices_that_drift_more_are_finer_at_the_same_length():
    codec, common = drifting({"tall": 0.1, "busy": 0.8, "wide": 0.1})
    before, after = codec.at(1, 1).partition(common), codec.at(1, 11).partition(common)
    assert before.clusters == {"tall": 20, "busy": 4, "wide": 4}  # the first turn
    assert after.clusters["busy"] >= 8
    assert after.clusters["tall"] < 20
    assert after.clusters["wide"] <= 4
    for partition in (before, after):
        spent = sum(partition.clusters[spec.name] * spec.shape[1] for spec in codec.tensors)
        assert codec.floats - 4 < spent <= codec.floats
    bodies = [codec.at(1, number).encode(common, common, RNG) for number in (1, 11, 12)]
    assert {len(body) for body in bodies} == {body_size(codec.upload)}


def test_rows_that_moved_more_have_their_turn_more_often_and_all_have_one():
    codec, common = drifting({"tall": 0.1, "busy": 0.1, "wide": 0.1})
    common["tall"][:20] *= 30
    turns = np.zeros(200)
    for number in range(11, 111):
        labels = codec.at(1, number).partition(common).labels["tall"]
        turns += labels < labels.max()
    assert turns[20:].min() >= 2  # once in five turns, at the worst
    assert turns[:20].mean() > 4 * turns[20:].mean()


@pytest.mark.parametrize("number", [4, 40])
@pytest.mark.parametrize("choice", CHOICES)
def test_what_is_expressed_are_cluster_means_of_rows(choice, number):
    drift, codec = make_weights(3), make_codec(choice=choice)
    result, partition = expressed(codec.at(1, number), drift)
    for name, labels in partition.labels.items():
        assert not result[name][labels == partition.clusters[name]].any()
        for cluster in range(partition.clusters[name]):
            rows = drift[name][labels == cluster]
            for row in result[name][labels == cluster]:
                np.testing.assert_allclose(row, rows.mean(0, dtype=np.float64), rtol=2**-11, atol=2**-20)
    np.testing.assert_allclose(result["bias"], drift["bias"].astype(np.float16).astype(np.float32), atol=2**-20)


@pytest.mark.parametrize("choice", CHOICES)
def test_coding_is_a_projection_to_fp16(choice):
    """What was expressed is expressed again unchanged, and what is left over is expressed as nothing."""
    exchange, drift = make_codec(choice=choice).at(1, 4), make_weights(4)
    once, _ = expressed(exchange, drift)
    twice, _ = expressed(exchange, once)
    left, _ = expressed(exchange, {name: drift[name] - once[name] for name in drift})
    for name in drift:
        np.testing.assert_allclose(twice[name], once[name], rtol=2**-10, atol=2**-20)
        assert np.abs(left[name]).max() <= 2**-10 * np.abs(drift[name]).max()


def test_with_as_many_clusters_as_rows_the_message_is_the_dense_drift_in_fp16():
    codec, weights, common = make_codec(1.0), make_weights(1), make_weights(2)
    dense = DriftCodec(dense_layout(codec.tensors, "float16"), dense_layout(codec.tensors, "float16"))
    assert body_size(codec.upload) == body_size(dense.upload)
    body, plain = (each.encode(weights, common, RNG) for each in (codec.at(1, 1), dense))
    ours, theirs = codec.at(1, 1).adopt(weights, common, body, body), dense.adopt(weights, common, plain, plain)
    for left, right in zip(ours, theirs, strict=True):
        for name, values in left.items():
            np.testing.assert_array_equal(values, right[name])


@given(ratio=ratios, number=st.integers(1, 50), choice=st.sampled_from(CHOICES))
@settings(max_examples=40, deadline=None)
def test_length_depends_on_the_ratio_alone(ratio, number, choice):
    codec, common = make_codec(ratio, choice), make_weights(0)
    rows = {spec.name: codec.clusters(spec) for spec in codec.matrices}
    floats = sum(rows[name] * int(np.prod(SHAPES[name][1:])) for name in rows) + SHAPES["bias"][0]
    for weights in (common, make_weights(number)):
        assert len(codec.at(3, number).encode(weights, common, RNG)) == 2 * floats == body_size(codec.upload)


def test_the_digest_is_of_the_common_model_and_of_the_partition():
    codec, common = make_codec(), make_weights(0)
    mine = codec.at(1, 1).digest(common)
    assert mine == codec.at(1, 1).digest(dict(reversed(common.items())))
    others = {codec.at(1, 2).digest(common), codec.at(2, 1).digest(common), codec.at(1, 1).digest(make_weights(1))}
    others |= {make_codec(choice="random").at(1, 1).digest(common), weights_digest(common)}
    assert len(others | {mine}) == 6


@pytest.mark.parametrize("choice", ["drift", "history"])
def test_the_history_is_part_of_the_digest_through_the_labels(choice):
    """Two that hold one G but disagree on G_0 form other clusters, and the enclave can tell."""
    common = make_weights(7)
    one, other = (make_codec(choice=choice, start=start).at(1, 40) for start in (0, 1))
    assert one.digest(common) != other.digest(common)
    assert one.digest(common) == make_codec(choice=choice).at(1, 40).digest(dict(reversed(common.items())))


def test_a_client_that_was_not_combined_keeps_its_drift():
    weights, common = make_weights(1), make_weights(2)
    exchange = make_codec().at(1, 1)
    answer = exchange.encode(make_weights(3), common, RNG)
    after, moved = exchange.adopt(weights, common, answer, None)
    for name in weights:
        np.testing.assert_allclose(after[name] - moved[name], weights[name] - common[name], atol=1e-6)
