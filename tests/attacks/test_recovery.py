# SPDX-License-Identifier: Apache-2.0
"""Gradients give away tokens and sentences; noise gives chance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from trustformer.attacks.dager import TOLERANCES, Dager
from trustformer.attacks.probe import gradient
from trustformer.attacks.rows import embedding_of, silent, token_scores
from trustformer.attacks.scores import ranking
from trustformer.attacks.sources import TOLERANCE, SourceSearch, _to_simplex
from trustformer.attacks.spans import NOISE
from trustformer.data.batches import Example
from trustformer.models.seq2seq import ModelConfig, build_model, get_weights

VOCABULARY = 300
RECORD = Path(__file__).parents[2] / "benchmarks" / "results" / "screening" / "tolerances.json"


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


def test_a_message_about_some_rows_is_judged_by_these() -> None:
    """As `partition` sends them: over the whole vocabulary the same message looks like chance."""
    few, vocabulary = sentences(10, 9, 12, 14), 2000
    model = build_model(ModelConfig(max_length=16), vocabulary, 1)
    drift_VD = embedding_of(gradient(model, get_weights(model), few, 0.1), vocabulary)
    sent = np.arange(0, vocabulary, 5)
    told_VD = np.zeros_like(drift_VD)
    told_VD[sent] = drift_VD[sent]
    assert silent(told_VD) == set(range(vocabulary)) - set(sent.tolist())
    present = {t for e in few for t in (*e.source, *e.target)} - {1}
    assert ranking(token_scores(told_VD), present, {0, 1} | silent(told_VD)).auc > 0.95
    assert ranking(token_scores(told_VD), present, {0, 1}).auc < 0.7


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


def test_tolerances_stand_between_what_was_measured_of_true_and_wrong_inputs() -> None:
    """At least a factor of three to each side, in every recorded size of batch."""
    record = json.loads(RECORD.read_text("utf-8"))
    tolerances = TOLERANCES | {"source 2": TOLERANCE}
    assert record["tolerances"] == tolerances | {"singular values": NOISE}
    assert len(record["by tokens of the sources"]) == 5
    for spaces in record["by tokens of the sources"].values():
        for space, tolerance in tolerances.items():
            assert 3 * spaces[space]["kept"] < tolerance < spaces[space]["refused"] / 3
        for space in ("source 2", "target", "target 2"):
            assert spaces[f"singular values, {space}"]["refused"] > 100 * NOISE


def test_one_wrong_token_takes_a_source_out_of_the_span() -> None:
    few = sentences(10, 13, 10, 8)
    dager = attacked(few)
    tokens = sorted({token for one in few for token in one.source})
    search = SourceSearch(dager._model, 1, dager._spaces["source 2"], tokens, np.random.default_rng(0))
    for one in few:
        right_L = torch.tensor([tokens.index(token) for token in one.source])
        changed_NL = right_L.repeat(len(right_L) - 1, 1)
        for place in range(len(right_L) - 1):
            changed_NL[place, place] = (changed_NL[place, place] + 1) % len(tokens)
        distances_NL = dager._spaces["source 2"].distances(search._trace(torch.cat([right_L[None], changed_NL]))[1])
        assert distances_NL[0].max() < TOLERANCE / 3
        assert distances_NL[1:].max(1).values.min() > 3 * TOLERANCE


def test_a_matrix_that_no_step_uses_hides_no_token() -> None:
    moved = np.ones((5, 2), np.float32)
    assert embedding_of({"shared": np.zeros((5, 2), np.float32), "encoder": moved}, 5) is moved
