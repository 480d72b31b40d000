# SPDX-License-Identifier: Apache-2.0
"""What attacks are scored against: who is a member, who was combined, and what a view computes from a record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trustformer.attacks.membership import losses, shadow_losses
from trustformer.attacks.view import Record, as_enclave, difference
from trustformer.codec.drift import DriftCodec
from trustformer.codec.weights import dense_layout, specs_of
from trustformer.data.batches import Example, to_examples
from trustformer.data.corpus import Pair
from trustformer.data.toy import toy_corpus
from trustformer.experiment.attack import _unseen
from trustformer.experiment.attack_text import first_share
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import Prepared, prepare
from trustformer.experiment.recorded import _other_text, load_audited
from trustformer.models.seq2seq import ModelConfig, build_model, get_weights
from trustformer.training import LocalTrainer, OptimizerState, TrainConfig

Run = Callable[..., dict[str, Any]]
PUBLIC, USED = 50, 30


def written(path: Path, pairs: Sequence[Pair]) -> Path:
    path.write_text("".join(f"{pair.source}\t{pair.target}\n" for pair in pairs), "utf-8")
    return path


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Pair]]:
    """A training file of 250 pairs, and the pairs; the last repeats one that is used."""
    pairs = list(toy_corpus(5, train=249, valid=1, test=1, public=0)[0].train)
    pairs.append(pairs[PUBLIC])
    return written(tmp_path_factory.mktemp("training") / "train.tsv", pairs), pairs


def other_text(settings: list[str], *more: str) -> tuple[Prepared, list[Example], list[Example]]:
    config = load_config(None, [*settings, 'data.train_domains=""', f"data.limit={USED}", *more])
    prepared = prepare(config)
    return prepared, *_other_text(config, prepared)


def keys(examples: Sequence[Example]) -> set[tuple[tuple[int, ...], tuple[int, ...]]]:
    return {(tuple(example.source), tuple(example.target)) for example in examples}


def test_non_members_come_from_the_training_file_after_what_was_used(
    mini_model: None, settings: list[str], training: tuple[Path, list[Pair]]
) -> None:
    """The test and validation sets have fewer pairs here, in other runs more: it makes no difference."""
    path, pairs = training
    prepared, outside, known = other_text(settings, f"data.train={path}", "tokenizer.public_share=0.2")
    assert outside == to_examples(pairs[PUBLIC + USED : -1], prepared.tokenizer, 24)
    assert known == to_examples(pairs[:PUBLIC], prepared.tokenizer, 24)
    assert not keys(outside) & {key for held in prepared.clients.values() for key in keys(held)}


def test_a_larger_test_set_makes_no_difference(
    mini_model: None, settings: list[str], training: tuple[Path, list[Pair]], tmp_path: Path
) -> None:
    path, pairs = training
    test = written(tmp_path / "test.tsv", toy_corpus(6, train=400, valid=1, test=1, public=0)[0].train)
    more = (f"data.train={path}", "tokenizer.public_share=0.2", f"data.test={test}", 'data.test_domains=""')
    prepared, outside, _ = other_text(settings, *more)
    assert outside == to_examples(pairs[PUBLIC + USED : -1], prepared.tokenizer, 24)


def test_non_members_come_from_the_test_set_where_the_training_file_has_too_few_left(
    mini_model: None, settings: list[str], training: tuple[Path, list[Pair]], tmp_path: Path
) -> None:
    path, pairs = training
    more = [f"data.train={path}", "tokenizer.public_share=0.2", "data.limit=150"]
    test = [*toy_corpus(6, train=9, valid=1, test=1, public=0)[0].train, pairs[PUBLIC]]
    more += [f"data.test={written(tmp_path / 'test.tsv', test)}", 'data.test_domains=""']
    prepared, outside, _ = other_text(settings, *more)
    held_out = [*test[:-1], *prepared.corpus.valid]
    assert outside == to_examples(held_out, prepared.tokenizer, 24), "a test pair that a client has is no non-member"


def test_no_shadow_model_learns_from_what_is_scored(
    mini_model: None, settings: list[str], training: tuple[Path, list[Pair]], tmp_path: Path
) -> None:
    path, _ = training
    text = tmp_path / "public.txt"
    text.write_text("\n".join(path.read_text("utf-8").replace("\t", "\n").splitlines()), "utf-8")
    prepared, outside, known = other_text(settings, f"tokenizer.train_on={text}", "data.limit=80")
    assert known == to_examples(prepared.corpus.valid, prepared.tokenizer, 24), "nothing else is public"
    assert outside == to_examples(prepared.corpus.test, prepared.tokenizer, 24)
    assert not keys(outside) & keys(known)
    member = Example(*map(list, (known[0].source, known[0].target)))
    assert _unseen([member, *outside], known) == known[1:]


def test_shadow_models_train_in_the_rounds_of_a_run() -> None:
    """Which are counted from one: by the last one the learning rate has begun to fall."""
    rng = np.random.default_rng(0)
    one, other = (Example([*rng.integers(3, 99, 5).tolist(), 1], [*rng.integers(3, 99, 4).tolist(), 1]) for _ in "ab")
    model = build_model(ModelConfig(preset="micro", max_length=8), 100, 1)
    trainer, start = LocalTrainer(model, TrainConfig(warmup_steps=1, cooldown=1.0), rounds=2), get_weights(model)
    found = shadow_losses(trainer, model, start, [one], [one, other], count=1, size=1, rounds=2, seed=3)
    weights, optimizer = start, OptimizerState()
    for number in (1, 2):
        result = trainer.train(weights, optimizer, [one], seed=(3, 1000, number))
        weights, optimizer = result.weights, result.optimizer
    np.testing.assert_array_equal(found[0], losses(model, weights, [one, other]))


def test_a_reference_is_all_aggregates_before_it_however_many() -> None:
    """And whichever was asked for before."""
    start = {"w": np.zeros((2, 2), np.float32)}
    layout = dense_layout(specs_of(start))
    codec, count = DriftCodec(layout, layout), 1500
    body = codec.coded({"w": np.ones((2, 2), np.float32)}, np.random.default_rng(0))
    aggregates = dict.fromkeys(range(1, count + 1), body)
    view = as_enclave(Record((), {}, {}, aggregates, {}, start, codec, common=True, seed=1))
    assert [int(view.reference(number)["w"][0, 0]) for number in (5, 9, 2, 1)] == [4, 8, 1, 0]
    assert int(view.final["w"][0, 0]) == count


@pytest.mark.parametrize(
    ("present", "late", "more"),
    [
        ("012", "", ["clients.max_share=1"]),
        ("012", "", ["clients.max_share=0.5"]),
        ("12", "", []),
        ("012", "0", []),
        ("012", "", ["enclave.rule=trimmed_mean", "enclave.trim=0"]),
        ("012", "", ["privacy.mechanism=enclave"]),
    ],
    ids=["by examples", "capped", "absent", "late", "equal", "fixed"],
)
def test_the_first_aggregate_is_the_sum_of_the_shares(
    tiny_run: Run, tmp_path: Path, present: str, late: str, more: list[str]
) -> None:
    """Of the updates combined; a client whose update was not has none. The clients have 20, 7 and 3 pairs."""
    values = ["clients.split=dirichlet", "clients.alpha=0.3", "seed=4", "rounds=1", "record_messages=true", *more]
    if "privacy.mechanism=enclave" in more:
        values += ["method.name=dp_fedavg"]
    else:
        cohort = json.dumps({"present": list(present), "late": list(late)})
        (tmp_path / "cohorts.jsonl").write_text(f"{cohort}\n", "utf-8")
        values += ["method.name=fedavg", f"clients.cohorts={tmp_path / 'cohorts.jsonl'}"]
    tiny_run(tmp_path / "run", *values)
    audited = load_audited(tmp_path / "run")
    combined = sorted(set(present) - set(late))
    assert sorted(audited.record.combined[1]) == combined
    shares = {client: first_share(audited, client) for client in audited.prepared.clients}
    assert [client for client, share in shares.items() if share] == combined
    assert sum(shares.values()) == pytest.approx(1)
    assert (max(shares.values()) == 0.5) == ("clients.max_share=0.5" in more)
    view = as_enclave(audited.record)
    drifts = {client: view.drift(1, client) for client in combined}
    for name, step in difference(view.reference(2), view.reference(1)).items():
        total = sum(shares[client] * drift[name] for client, drift in drifts.items())
        np.testing.assert_allclose(step, total, rtol=0, atol=1e-6)
