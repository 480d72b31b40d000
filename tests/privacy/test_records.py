# SPDX-License-Identifier: Apache-2.0
"""DP-SGD at a client: clipping, noise and sampling are what the accountant is told."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from trustformer.codec import clipped
from trustformer.data.batches import Example, collate
from trustformer.models.seq2seq import Model, ModelConfig, build_model, get_weights, set_weights
from trustformer.training import OptimizerState, RecordTrainer, Rule, TrainConfig, records, sampling
from trustformer.training.records import add_clipped
from trustformer.training.rules import LossOf

opacus = pytest.importorskip("opacus")

EXAMPLES = [Example([5 + i, 9, *[7 + i] * (i % 3), 3], [6, 8 + i, *[4 + i] * (i % 2), 3]) for i in range(24)]
CONFIG = TrainConfig(learning_rate=1.0, warmup_steps=1)


@pytest.fixture(scope="module")
def model() -> Model:
    return build_model(ModelConfig(preset="micro", dropout=0.0), 64, 1)


def trainer(model: Model, noise: float = 0.0, clip: float = 0.1, pairs: int = 8) -> RecordTrainer:
    return RecordTrainer(model, CONFIG, noise_multiplier=noise, clipping_norm=clip, batch_pairs=pairs)


def moved(model: Model, private: RecordTrainer, indexes: list[int]) -> np.ndarray:
    """What one step of plain gradient descent at rate 1 changes: the private gradient, negative."""
    start = get_weights(model)
    descent = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    private._batches(EXAMPLES, (1,))  # as in training: sets the expected size
    private._step(descent, collate(EXAMPLES, indexes, model.config.pad_token_id))
    after = get_weights(model)
    set_weights(model, start)
    return np.concatenate([(after[name] - start[name]).reshape(-1) for name in start])


def test_every_pair_is_clipped_by_itself_and_the_sum_divided_by_the_expected_size(model: Model) -> None:
    alone = [moved(model, trainer(model, clip=1e6), [index]) * 8 for index in (0, 1, 2)]
    norms = [np.linalg.norm(one) for one in alone]
    limit = float(np.mean([min(norms), max(norms)]))  # some are clipped, some are not
    together = moved(model, trainer(model, clip=limit), [0, 1, 2])
    expected = sum(one * min(1, limit / size) for one, size in zip(alone, norms, strict=True)) / 8
    np.testing.assert_allclose(together, expected, atol=1e-5)
    assert min(norms) < limit < max(norms)


def test_leaving_one_pair_out_changes_the_sum_by_at_most_the_norm(model: Model) -> None:
    clip = 0.05
    full, less = (moved(model, trainer(model, clip=clip), rows) * 8 for rows in ([0, 1, 2, 3], [0, 1, 2]))
    assert 0.9 * clip < np.linalg.norm(full - less) <= clip * (1 + 1e-4)


SHAPES = ((3, 4), (5,), (2, 2, 2))


def summed(gradients: Sequence[Sequence[torch.Tensor | None]], clip: float) -> np.ndarray:
    sums = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
    for gradient in gradients:
        add_clipped(sums, gradient, clip)
    return np.concatenate([total.numpy().reshape(-1) for total in sums])


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    count=st.integers(0, 12),
    clip=st.floats(1e-3, 100),
    size=st.sampled_from([1e-20, 1e-3, 1.0, 1e25]),
)
def test_the_clipped_sum_is_that_of_all_gradients_held_at_once(seed: int, count: int, clip: float, size: float) -> None:
    """By Opacus, which holds them all, and by one pair at a time: the order of floating-point sums aside."""
    generator = torch.Generator().manual_seed(seed)
    held = [size * torch.randn(count, *shape, generator=generator) for shape in SHAPES]
    scale = torch.rand(count, generator=generator)
    held = [values * scale.view(-1, *(1 for _ in shape)) for values, shape in zip(held, SHAPES, strict=True)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]
    for parameter, values in zip(parameters, held, strict=True):
        parameter.grad_sample = values.double()  # type: ignore[attr-defined]
    private = opacus.optimizers.DPOptimizer(
        torch.optim.SGD(parameters, lr=1.0), noise_multiplier=0.0, max_grad_norm=clip, expected_batch_size=1
    )
    private.clip_and_accumulate()
    expected = np.concatenate([p.summed_grad.numpy().reshape(-1) for p in parameters])  # type: ignore[attr-defined]
    one_by_one = [[values[row] for values in held] for row in range(count)]
    found = summed(one_by_one, clip)
    np.testing.assert_allclose(found, expected, atol=clip * count * 2e-3 if clip < 1e-2 else clip * count * 1e-5)
    np.testing.assert_allclose(found, sum((summed([one], clip) for one in one_by_one), np.zeros(25)), atol=1e-12 * clip)
    assert all(np.linalg.norm(summed([one], clip)) <= clip * (1 + 1e-12) for one in one_by_one)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_no_clipping_bounds_counts_for_nothing(bad: float) -> None:
    good = [torch.ones(shape) for shape in SHAPES]
    wrong = [torch.ones(shape) for shape in SHAPES]
    wrong[1][2] = bad
    sums = [torch.zeros(shape, dtype=torch.float64) for shape in SHAPES]
    assert not add_clipped(sums, wrong, 1.0)
    assert not any(total.any() for total in sums)
    np.testing.assert_array_equal(summed([good, wrong, [None, *good[1:]]], 1.0), summed([good, [None, *good[1:]]], 1.0))


class Watching(Rule):
    """Plain training; `held` is how many bytes all tensors hold when the gradient of the last of `count` is there."""

    def __init__(self, count: int) -> None:
        self.__dict__.update(left=count, held=0)  # a frozen dataclass

    def backward(self, loss_of: LossOf, parameters: Sequence[torch.Tensor], start: Sequence[torch.Tensor]) -> float:
        loss = super().backward(loss_of, parameters, start)
        self.__dict__["left"] -= 1
        if not self.__dict__["left"]:
            tensors = [thing for thing in gc.get_objects() if type(thing) in (torch.Tensor, nn.Parameter)]
            tensors += [parameter.grad for parameter in parameters if parameter.grad is not None]
            stores = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
            self.__dict__["held"] = sum(stores.values())
        return loss


def test_memory_does_not_grow_with_the_pairs_of_a_step(model: Model) -> None:
    held = []
    for count in (2, 12):
        private = trainer(model)
        private._rule = rule = Watching(count)
        moved(model, private, list(range(count)))
        held.append(rule.__dict__["held"])
    weights = 4 * sum(values.size for values in get_weights(model).values())
    assert held[0] > weights
    assert held[1] - held[0] < weights  # a gradient for each pair would be ten times that


def test_a_pair_changes_nothing_of_the_others_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """From one stream of random numbers the masks of a pair would depend on how long those before it are."""
    monkeypatch.setattr(records, "_dropout_seed", lambda: 5)  # the draw of each pair, whatever it is
    model, clip = build_model(ModelConfig(preset="micro", dropout=0.5), 64, 1), 0.05
    model.train()
    full, less = (moved(model, trainer(model, clip=clip), rows) * 8 for rows in ([4, 1, 2, 3], [1, 2, 3]))
    assert 0.9 * clip < np.linalg.norm(full - less) <= clip * (1 + 1e-4)
    monkeypatch.undo()
    first, second = (moved(model, trainer(model, clip=clip), [4]) for _ in range(2))
    assert np.linalg.norm(first - second) > 0.01 * clip


def test_an_empty_batch_is_a_step_of_noise_alone(model: Model) -> None:
    first, second = (moved(model, trainer(model, noise=3.0, clip=0.5), []) for _ in range(2))
    count = len(first)
    for values in (first, second, (first - second) / np.sqrt(2)):
        z = values / (3.0 * 0.5 / 8)
        assert abs(z.std() - 1) < 6 / np.sqrt(2 * count)  # half the noise would be over 80 of these away
        assert abs(z.mean()) < 6 / np.sqrt(count)


def test_noise_on_a_batch_is_that_of_the_sum_in_every_tensor(model: Model) -> None:
    quiet = moved(model, trainer(model, clip=0.5), [0, 1, 2])
    loud = moved(model, trainer(model, noise=3.0, clip=0.5), [0, 1, 2])
    z, at = (loud - quiet) / (3.0 * 0.5 / 8), 0
    for values in get_weights(model).values():
        part = z[at : (at := at + values.size)]
        assert abs(part.std() - 1) < 6 / np.sqrt(2 * part.size)
        assert abs(part.mean()) < 6 / np.sqrt(part.size)
    assert at == len(z)


def test_the_noise_of_every_entry_comes_from_the_system(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a generator with a seed, entries whose sum is known would tell the others' noise."""
    asked, system = [], os.urandom
    monkeypatch.setattr(os, "urandom", lambda count: asked.append(count) or system(count))
    entries = len(moved(model, trainer(model, noise=1.0), [0, 1]))
    assert sum(asked) >= 8 * entries


def test_sum_and_noise_are_rounded_once_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """As 32-bit floats before they are added, the noise would have steps of its own, which tell sums apart."""
    model = build_model(ModelConfig(preset="micro", dropout=0.0), 64, 1)  # its biases are zero

    def gradient(noise: float) -> np.ndarray:
        monkeypatch.setattr(clipped, "gaussian", lambda count: np.full(count, noise))
        return -moved(model, trainer(model, noise=2.0, clip=0.5), [0]) * 8

    start = np.concatenate([values.reshape(-1) for values in get_weights(model).values()])
    noise = 100 / 3
    quiet, loud = gradient(0.0)[start == 0], gradient(noise)[start == 0]  # elsewhere the step itself is rounded
    assert len(loud) > 500
    assert (loud == (quiet + np.float64(noise)).astype(np.float32)).mean() > 0.99
    assert (loud == quiet + np.float32(noise)).mean() < 0.9


def test_pairs_are_drawn_independently_and_not_from_the_seed(model: Model) -> None:
    private = trainer(model, pairs=6)
    batches = [batch for _ in range(400) for batch in private._batches(EXAMPLES, (1,))]
    assert len(batches) == 1600
    sizes = np.array([len(batch) for batch in batches])
    assert sizes.mean() == pytest.approx(6, abs=6 * np.sqrt(4.5 / 1600))
    assert sizes.var() == pytest.approx(24 * 0.25 * 0.75, rel=0.25)  # of a fixed size it would be 0
    assert private._batches(EXAMPLES, (1,)) != private._batches(EXAMPLES, (1,))


@pytest.mark.parametrize(("pairs", "batch", "plan"), [(100, 10, (0.1, 10)), (5, 10, (1.0, 1)), (24, 9, (0.375, 3))])
def test_the_plan_of_a_pass(pairs: int, batch: int, plan: tuple[float, int]) -> None:
    assert sampling(pairs, batch) == plan


@pytest.mark.parametrize(("passes", "steps"), [(3, 30), (0.5, 5), (0.25, 2), (0.01, 1)])
def test_the_plan_of_a_round_is_that_of_its_passes(passes: float, steps: int, model: Model) -> None:
    assert sampling(100, 10, passes) == (0.1, steps)
    config = TrainConfig(local_epochs=passes)
    trainer = RecordTrainer(model, config, noise_multiplier=1.0, clipping_norm=1.0, batch_pairs=10)
    assert len(trainer._batches(EXAMPLES[:1] * 100, (1, 0, 1))) == steps


def test_training_is_noised_whatever_the_seed(model: Model) -> None:
    start = get_weights(model)
    config = TrainConfig(learning_rate=0.01, warmup_steps=1)
    runs = [
        RecordTrainer(model, config, noise_multiplier=1.0, clipping_norm=0.1, batch_pairs=12).train(
            start, OptimizerState(), EXAMPLES, seed=(1, 2, 3)
        )
        for _ in range(2)
    ]
    assert runs[0].optimizer.steps == 2
    assert any(not np.array_equal(runs[0].weights[name], runs[1].weights[name]) for name in start)
