# SPDX-License-Identifier: Apache-2.0
"""DP-SGD at a client: clipping, noise and sampling are what the accountant is told."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trustformer.data.batches import Example, collate
from trustformer.models.seq2seq import Model, ModelConfig, build_model, get_weights, set_weights
from trustformer.training import OptimizerState, RecordTrainer, TrainConfig, sampling

pytest.importorskip("opacus")

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


def test_the_noise_of_every_trainer_has_a_seed_of_its_own_from_128_bits(model: Model) -> None:
    """torch's generator on a CPU looks at 32 bits of a seed: so many can be tried."""
    seeds = [trainer(model)._rng.bit_generator.seed_seq.entropy for _ in range(3)]
    assert len(set(seeds)) == 3
    assert min(seed.bit_length() for seed in seeds) > 64


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
