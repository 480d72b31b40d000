# SPDX-License-Identifier: Apache-2.0
"""The properties that define an exchange, played through a real enclave in its own bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from enclave_kit import (
    Federation,
    Member,
    codebook_codec,
    codebook_layout,
    dense_codec,
    new_update,
    start_weights,
    train,
)
from enclave_kit import upload as upload_to
from hypothesis import given, settings
from hypothesis import strategies as st

from trustformer.codec.drift import DriftCodec
from trustformer.codec.rates import rated_layout
from trustformer.codec.weights import Weights, dense_layout, specs_of, weights_digest
from trustformer.message import Codebook
from trustformer.vq import decode

Sums = dict[str, npt.NDArray[np.float64]]

FIXED = 2.0**-29
"""Half a step of the enclave's fixed-point sum: the most that rounding moves a weighted mean."""
EPS = 2.0**-24
"""Half a unit in the last place of fp32, relative."""
HALF = 2.0**-11
"""The same of fp16."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def shares(members: list[Member], max_share: float) -> list[float]:
    """p_i by the definition: shares of the examples; the largest capped, the others scaled to the rest."""
    total = sum(member.examples for member in members)
    plain = [member.examples / total for member in members]
    if len(members) == 1 or max(plain) <= max_share:
        return plain
    return [max_share if p == max(plain) else p * (1 - max_share) / (1 - max(plain)) for p in plain]


def conserved(members: list[Member], max_share: float, residual: Mapping[str, npt.NDArray[np.floating]]) -> Sums:
    """Σ p_i W_i + s in double precision."""
    parts = zip(shares(members, max_share), members, strict=True)
    sums = {name: values.astype(np.float64) for name, values in residual.items()}
    for p, member in parts:
        for name, values in member.weights.items():
            sums[name] = sums[name] + p * values.astype(np.float64)
    return sums


def largest(weights: Mapping[str, npt.NDArray[np.floating]]) -> float:
    return max(float(np.abs(values).max()) for values in weights.values())


def assert_close(left: Mapping[str, npt.NDArray], right: Mapping[str, npt.NDArray], tolerance: float) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        assert np.abs(values.astype(np.float64) - right[name]).max() <= tolerance, name


def norm(weights: Weights) -> float:
    return float(np.sqrt(sum(np.square(values, dtype=np.float64).sum() for values in weights.values())))


def codecs(start: Weights) -> dict[str, DriftCodec]:
    shared = rated_layout(specs_of(start), Codebook(4, 8))
    coarse = codebook_layout(specs_of(start), 5, 3)
    return {
        "dense": dense_codec(start),
        "codebook": codebook_codec(start),
        "shared": DriftCodec(shared, shared),
        "coarse up, fine down": DriftCodec(coarse, shared),
        "fine up, coarse down": DriftCodec(shared, coarse),
    }


CODECS = list(codecs(start_weights()))


# ---- 1: the identity coder ----


@given(
    examples=st.lists(st.integers(1, 2**24), min_size=1, max_size=5),
    size=st.floats(2.0**-20, 2.0),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=15, deadline=None)
def test_identity_coder_is_federated_averaging(examples: list[int], size: float, seed: int) -> None:
    start = start_weights(1)
    with tempfile.TemporaryDirectory() as name:
        run = Federation(Path(name), dense_codec(start), start, [str(i) for i in range(len(examples))])
        members = list(run.members.values())
        for member, count in zip(members, examples, strict=True):
            member.examples = count
        train(members, seed, size)
        expected = conserved(members, 1.0, run.residual)
        magnitude = max(largest(member.weights) for member in members)
        run.exchange(list(run.members))
    # drift, mean, G + step, step - sent, W + that: five roundings to fp32, and the fixed-point sum
    for member in members:
        assert_close(member.weights, expected, FIXED + 5 * EPS * 2 * magnitude)
        assert_close(member.weights, member.common, 3 * EPS * 2 * magnitude)
    assert not largest(run.residual)


# ---- 2: identical clients, and one ----


@pytest.mark.parametrize("ids", [("a",), ("a", "b", "c")])
@pytest.mark.parametrize("answer", ["dense", "codebook"])
def test_exchange_among_identical_clients_changes_nothing_but_rounding(
    folder: Path, ids: tuple[str, ...], answer: str
) -> None:
    start = start_weights(2, {"w": (40, 16)})
    upload = codebook_layout(specs_of(start), 4, 8)
    codec = DriftCodec(upload, dense_layout(specs_of(start)) if answer == "dense" else upload)
    run = Federation(folder, codec, start, ids)
    trained = {name: values + np.float32(0.01) * values[::-1] for name, values in start.items()}
    body = codec.encode(trained, start, np.random.default_rng(0))  # equal drifts, coded alike
    sent = decode(codec.upload, body)
    run.greet(ids)
    for member in run.members.values():
        member.weights, member.pending = dict(trained), new_update(member, body)
        assert upload_to(run.enclave, member, member.pending) == "accepted"
    run.close()
    run.adopt(ids)
    rounding = FIXED + 2 * HALF * largest(sent) + 8 * EPS * largest(trained)
    for member in run.members.values():
        assert_close(member.weights, trained, rounding)
        assert_close(member.common, {n: start[n] + sent[n] for n in start}, rounding)


# ---- 3: what is conserved ----


@pytest.mark.parametrize("kind", CODECS)
@pytest.mark.parametrize("counts", [(100, 100, 100), (900, 50, 50), (1, 2, 4)])
def test_weighted_mean_plus_residual_is_unchanged_by_an_exchange(
    folder: Path, kind: str, counts: tuple[int, ...]
) -> None:
    start = start_weights(3)
    run = Federation(folder, codecs(start)[kind], start, max_share_ppm=600_000)
    members = list(run.members.values())
    for member, count in zip(members, counts, strict=True):
        member.examples = count
    for number in range(3):
        train(members, number)
        before = conserved(members, 0.6, run.residual)
        run.exchange(["a", "b", "c"])
        after = conserved(members, 0.6, run.residual)
        assert_close(after, before, FIXED + 16 * EPS * largest(before))


def test_what_is_left_of_the_residual_after_training_is_conserved(folder: Path) -> None:
    """With `carry` c: Σ p_i W_i + c s before an exchange after training, c = 1 before one without."""
    start = start_weights(3)
    run = Federation(folder, codebook_codec(start), start, trained=2, carry_ppm=250_000)
    members = list(run.members.values())
    for number in range(1, 4):
        if number <= 2:
            train(members, number)
        faded = {name: values * (0.25 if number <= 2 else 1) for name, values in run.residual.items()}
        assert (largest(run.residual) > 0) == (number > 1)
        before = conserved(members, 1.0, faded)
        run.exchange(["a", "b", "c"])
        assert_close(conserved(members, 1.0, run.residual), before, FIXED + 16 * EPS * largest(before))


@pytest.mark.parametrize("kind", CODECS)
def test_weighted_mean_plus_residual_is_unchanged_for_changing_cohorts(folder: Path, kind: str) -> None:
    start = start_weights(4)
    run = Federation(folder, codecs(start)[kind], start, ["a", "b", "c", "d"], max_share_ppm=600_000)
    for index, cohort in enumerate(["ab", "bcd", "cd", "abcd", "da"]):
        train(run.members.values(), index)
        present = [run.members[client] for client in cohort]
        run.greet(cohort)
        before = conserved(present, 0.6, run.residual)
        run.exchange(cohort)
        assert_close(conserved(present, 0.6, run.residual), before, FIXED + 16 * EPS * largest(before))
    run.greet("abcd")
    assert len({weights_digest(member.common) for member in run.members.values()}) == 1


@pytest.mark.parametrize(
    ("counts", "max_share", "expected"),
    [
        ((97, 2, 1), 0.6, (0.6, 0.4 * 2 / 3, 0.4 / 3)),
        ((60, 20, 20), 0.6, (0.6, 0.2, 0.2)),
        ((61, 20, 19), 0.6, (0.6, 0.4 * 20 / 39, 0.4 * 19 / 39)),
        ((5, 5), 0.5, (0.5, 0.5)),
        ((6, 5), 0.5, (0.5, 0.5)),
        ((7,), 0.5, (1.0,)),
        ((2**24, 1), 0.6, (0.6, 0.4)),
        ((3, 3, 3, 1), 0.5, (0.3, 0.3, 0.3, 0.1)),
    ],
)
def test_no_client_has_more_than_the_largest_share(
    folder: Path, counts: tuple[int, ...], max_share: float, expected: tuple[float, ...]
) -> None:
    start = {"w": np.zeros(len(counts), np.float32)}
    run = Federation(
        folder, dense_codec(start), start, [str(i) for i in range(len(counts))], max_share_ppm=int(max_share * 1e6)
    )
    for index, (member, count) in enumerate(zip(run.members.values(), counts, strict=True)):
        member.examples = count
        member.weights = {"w": np.eye(len(counts), dtype=np.float32)[index]}
    run.exchange(list(run.members))
    mean = decode(run.codec.answer, run.answers[1])["w"]
    np.testing.assert_allclose(mean, expected, rtol=0, atol=FIXED + EPS)
    np.testing.assert_allclose(shares(list(run.members.values()), max_share), expected)


# ---- 4: distance from the common model ----


@pytest.mark.parametrize("kind", ["codebook", "shared", "coarse up, fine down", "fine up, coarse down"])
def test_codebook_exchange_never_takes_an_included_client_further_from_the_common_model(
    folder: Path, kind: str
) -> None:
    start = start_weights(5)
    run = Federation(folder, codecs(start)[kind], start)
    for number in range(4):
        train(run.members.values(), number, size=10.0 ** -(number + 1))
        before = {client: norm(member.drift) for client, member in run.members.items()}
        run.exchange(["a", "b", "c"])
        for client, member in run.members.items():
            rounding = 4 * EPS * (norm(member.weights) + norm(member.common))
            assert norm(member.drift) <= before[client] * (1 + 4 * HALF) + rounding


# ---- 5: order ----


@pytest.mark.parametrize("kind", CODECS)
def test_order_of_clients_does_not_change_a_byte_of_the_answer(folder: Path, kind: str) -> None:
    start = start_weights(6)
    answers = []
    for order in ("abcd", "dcba", "cadb"):
        run = Federation(folder / order, codecs(start)[kind], start, ["a", "b", "c", "d"], max_share_ppm=500_000)
        for count, member in zip((900, 7, 3, 11), run.members.values(), strict=True):
            member.examples = count
        for number in range(2):
            train(run.members.values(), number)
            run.exchange(order)
        answers.append((run.answers[1], run.answers[2]))
    assert answers[0] == answers[1] == answers[2]


def test_too_large_a_mean_stays_in_the_residual_and_the_round_closes(folder: Path) -> None:
    """Two clients push one entry as far as an update may, round after round, against a coarse answer."""
    shapes = {f"t{index}": (16,) for index in range(5)}
    start = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    upload, answer = dense_layout(specs_of(start)), codebook_layout(specs_of(start), 1, 2)
    run = Federation(folder, DriftCodec(upload, answer), start, ["a", "b"])
    for _ in range(4):
        for member in run.members.values():
            drift = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
            drift["t0"][:] = 31.9
            for index in range(1, 5):
                drift[f"t{index}"][0] = 31.9
            member.weights = {name: member.common[name] + drift[name] for name in drift}
        before = conserved(list(run.members.values()), 1.0, run.residual)
        run.exchange(["a", "b"])
        after = conserved(list(run.members.values()), 1.0, run.residual)
        assert_close(after, before, FIXED + 16 * EPS * largest(before))
