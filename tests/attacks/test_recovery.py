# SPDX-License-Identifier: Apache-2.0
"""Gradients give away tokens and sentences; noise gives chance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trustformer.attacks.dager import Dager
from trustformer.attacks.probe import gradient
from trustformer.attacks.rows import embedding_of, token_scores
from trustformer.attacks.scores import ranking
from trustformer.attacks.sources import _to_simplex
from trustformer.data.batches import Example
from trustformer.models.seq2seq import ModelConfig, build_model, get_weights

VOCABULARY = 300


def sentences(*lengths: int) -> list[Example]:
    """Pairs of random tokens; sources of these lengths with their end token, targets one shorter."""
    rng = np.random.default_rng(1)
    return [
        Example(
            [*rng.integers(3, VOCABULARY, length - 1).tolist(), 1],
            [*rng.integers(3, VOCABULARY, length - 2).tolist(), 1],
        )
        for length in lengths
    ]


def attacked(examples: list[Example], preset: str = "tiny") -> Dager:
    model = build_model(ModelConfig(preset=preset, max_length=16), VOCABULARY, 1)
    weights = get_weights(model)
    return Dager(model, weights, gradient(model, weights, examples, 0.1))


def test_fedsgd_gives_away_every_token_and_sentence() -> None:
    few = sentences(10, 13, 10, 8)
    assert sum(len(e.source) for e in few) < 128
    dager = attacked(few)
    assert set(dager.tokens("source")) == {t for e in few for t in e.source}
    assert set(dager.tokens("target")) == {t for e in few for t in e.target[:-1]}
    targets = {tuple(e.target[:-1]) for e in few}
    assert set(dager.targets()) == targets
    assert set(dager.sources(len(targets), 4, np.random.default_rng(0))) == {tuple(e.source) for e in few}


def test_one_encoder_layer_is_enough_for_one_sentence() -> None:
    (one,) = sentences(12)
    dager = attacked([one], "micro")
    assert dager.sources(1, 4, np.random.default_rng(0)) == [tuple(one.source)]


def test_a_sentence_that_was_not_in_the_batch_is_never_claimed() -> None:
    """What is found has been checked against the gradient: too many wanted gives no more than there are."""
    few = sentences(9, 9)
    assert set(attacked(few).sources(3, 4, np.random.default_rng(0))) == {tuple(e.source) for e in few}


def test_shares_are_the_nearest_point_of_the_simplex() -> None:
    X_LK = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 4)))
    near_LK = _to_simplex(X_LK)
    assert torch.allclose(near_LK.sum(1), torch.ones(50, dtype=torch.float64))
    assert float(near_LK.min()) == 0
    corners_MK = torch.from_numpy(np.random.default_rng(1).dirichlet(np.ones(4), 2000))
    assert bool((torch.cdist(X_LK, corners_MK).min(1).values >= (X_LK - near_LK).norm(dim=1) - 1e-12).all())


def test_embedding_rows_of_a_gradient_rank_its_tokens_first() -> None:
    few = sentences(10, 9)
    model = build_model(ModelConfig(max_length=16), VOCABULARY, 1)
    weights = get_weights(model)
    present = {t for e in few for t in (*e.source, *e.target)} - {1}
    drift = embedding_of(gradient(model, weights, few, 0.1), VOCABULARY)
    assert ranking(token_scores(drift), present, {0, 1}).found > 0.95


def test_noise_gives_chance() -> None:
    model = build_model(ModelConfig(max_length=16), VOCABULARY, 1)
    weights, rng = get_weights(model), np.random.default_rng(0)
    noise = {name: rng.standard_normal(values.shape).astype("f4") for name, values in weights.items()}
    dager = Dager(model, weights, noise)
    assert (dager.tokens("source"), dager.targets()) == ([], [])
    assert dager.sources(2, 4, rng) == []
    present = set(range(3, 100))
    assert 0.4 < ranking(token_scores(embedding_of(noise, VOCABULARY)), present, {0, 1}).auc < 0.6


def test_one_client_cannot_be_told_from_the_sum_by_noise_alone() -> None:
    """A gradient with noise as large as itself has no null space left: nothing is claimed."""
    few = sentences(10, 9)
    model = build_model(ModelConfig(max_length=16), VOCABULARY, 1)
    weights, rng = get_weights(model), np.random.default_rng(0)
    exact = gradient(model, weights, few, 0.1)
    noisy = {
        name: values + values.std() * rng.standard_normal(values.shape).astype("f4") for name, values in exact.items()
    }
    dager = Dager(model, weights, noisy)
    assert (dager.tokens("source"), dager.targets(), dager.sources(2, 4, rng)) == ([], [], [])


@pytest.mark.parametrize("side", ["source", "target"])
def test_spans_tell_tokens_from_others_by_a_wide_margin(side: str) -> None:
    few = sentences(10, 9)
    distances_V = attacked(few).token_distances(side)
    present = {t for e in few for t in (e.source if side == "source" else e.target[:-1])}
    absent = [t for t in range(2, VOCABULARY) if t not in present]
    assert distances_V[list(present)].max() < 1e-3 < 0.03 < distances_V[absent].min()
