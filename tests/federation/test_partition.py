# SPDX-License-Identifier: Apache-2.0
"""The variant `partition` among real clients and a real enclave: what an exchange keeps, shrinks and refuses."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from playground import Party

from trustformer.codec.partition import PartitionCodec
from trustformer.errors import ProtocolError
from trustformer.federation.client import Client
from trustformer.federation.round import greet

PARTITION = ("method.variant=partition", "method.ratio=0.25", "train.warmup_steps=1")
CHOICES = ["rotating", "drift", "history", "random"]
HALF = 2.0**-11
"""Half a unit in the last place of fp16, relative."""
TINY = 2.0**-23
"""Half the smallest step of fp16, and the roundings of weights of at most 1 in fp32."""

Sums = dict[str, np.ndarray]


@pytest.fixture
def play(party: Callable[..., Party]) -> Callable[..., Party]:
    return lambda *overrides: party(*PARTITION, *overrides)


def mean(clients: list[Client]) -> Sums:
    """Σ p_i W_i in double precision (all have equally many pairs)."""
    return {
        name: np.mean([client.state.weights[name].astype(np.float64) for client in clients], axis=0)
        for name in clients[0].state.weights
    }


def spread(clients: list[Client]) -> float:
    """Σ p_i ||W_i - mean||²."""
    centre = mean(clients)
    return float(np.mean([sum(((c.state.weights[n] - centre[n]) ** 2).sum() for n in centre) for c in clients]))


def largest_drift(clients: list[Client]) -> float:
    return max(float(np.abs(c.state.weights[n] - c.state.common[n]).max()) for c in clients for n in c.state.common)


def exchange(run: Party, number: int, included: list[Client], *, train: bool = True) -> tuple[Sums, float, float]:
    """One exchange; returns the mean, the spread and the largest drift just before it."""
    greet(included)
    for client in included:
        client.train(number, epochs=train)
    before = mean(included), spread(included), largest_drift(included)
    for client in included:
        assert client.contribute() == "accepted"
    run.host.close(number)
    for client in included:
        client.adopt()
    return before


@pytest.mark.parametrize("choice", CHOICES)
def test_the_mean_of_a_cohort_is_unchanged_and_its_spread_never_grows(play: Callable[..., Party], choice: str) -> None:
    run = play(f"method.partition={choice}")
    for number, present in enumerate(("012", "02", "12", "012"), 1):
        included = [run.clients[int(index)] for index in present]
        centre, apart, drift = exchange(run, number, included)
        after = mean(included)
        for name, values in centre.items():
            # the answer rounds a mean of drifts to fp16, and s holds what the one before left over
            np.testing.assert_allclose(after[name], values, rtol=0, atol=2 * HALF * drift + TINY)
        assert spread(included) <= apart * (1 + 1e-6) + 1e-9
        assert spread(included) < apart * 0.95  # and a quarter of the rows is really exchanged


def test_one_turn_of_rotating_exchanges_makes_all_clients_equal(play: Callable[..., Party]) -> None:
    run = play("method.ratio=0.4")
    _, apart, drift = exchange(run, 1, run.clients)
    for number in range(2, 1 + math.ceil(1 / 0.4)):
        exchange(run, number, run.clients, train=False)
    assert spread(run.clients) < 1e-6 * apart  # fp16: 2**-22
    for client in run.clients:
        for name, values in client.state.common.items():
            np.testing.assert_allclose(client.state.weights[name], values, atol=4 * HALF * drift + TINY)


def test_with_all_rows_it_is_federated_averaging_to_fp16(play: Callable[..., Party]) -> None:
    run = play("method.ratio=1")
    centre, _, drift = exchange(run, 1, run.clients)
    for client in run.clients:
        for name, values in centre.items():
            np.testing.assert_allclose(client.state.weights[name], values, atol=2 * HALF * drift + TINY)
            np.testing.assert_allclose(client.state.common[name], values, atol=2 * HALF * drift + TINY)


@pytest.mark.parametrize("choice", CHOICES)
def test_after_absence_and_catch_up_all_hold_one_model_and_one_partition(
    play: Callable[..., Party], choice: str
) -> None:
    run = play(f"method.partition={choice}", "clients.max_lag=3")
    for number, present in enumerate(("01", "12", "01", "012"), 1):
        statuses = run.play(number, present)
        assert set(statuses.values()) == {"accepted"}
    run.play(5, "01")
    run = run.restarted()
    greet(run.clients)
    assert not run.sent("common")
    assert len(run.digests()) == 1
    assert len({client.position.common_digest for client in run.clients}) == 1
    assert run.play(6) == dict.fromkeys("012", "accepted")


@pytest.mark.parametrize("choice", CHOICES)
def test_beyond_max_lag_the_dense_model_is_taken_and_the_partition_follows(
    play: Callable[..., Party], choice: str
) -> None:
    """With ratio 0.25 exchange 5 is the first of `drift` that looks at the history: the newcomer has it through G."""
    run = play("clients.max_lag=1", f"method.partition={choice}")
    for number in (1, 2, 3, 4, 5):
        run.play(number, "01")
    assert run.play(6)["2"] == "accepted"
    assert [client for client, direction, _ in run.sent("common") if direction == "down"] == ["2"]
    assert len({client.position.common_digest for client in run.clients}) == 1


class Shifted(PartitionCodec):
    """A client that counts exchanges from another number, and so forms other clusters."""

    def at(self, seed: int, number: int):  # type: ignore[no-untyped-def]
        return super().at(seed, number + 1)


@pytest.mark.parametrize("choice", CHOICES)
def test_an_update_under_another_partition_is_refused(play: Callable[..., Party], choice: str) -> None:
    run = play(f"method.partition={choice}")
    liar = run.clients[2]
    codec = liar._codec
    liar._codec = Shifted(codec.tensors, codec.ratio, codec.choice, codec.start)
    greet(run.clients)
    for client in run.clients:
        client.train(1)
    bodies = {len(client.state.pending.body) for client in run.clients}
    assert len(bodies) == 1  # nothing but the digest tells them apart
    assert [client.contribute() for client in run.clients] == ["accepted", "accepted", "refused"]
    run.host.close(1)
    assert [client for client, _ in run.manifest(1).uploads] == ["0", "1"]
    with pytest.raises(ProtocolError, match="another common model or partition"):
        liar.adopt()


def test_as_few_as_agree_on_a_partition_cannot_outvote_most_clients(play: Callable[..., Party]) -> None:
    """After the first round the enclave goes by what most clients say they hold."""
    run = play()
    run.play(1)
    liar = run.clients[0]
    codec = liar._codec
    liar._codec, liar._next = Shifted(codec.tensors, codec.ratio, codec.choice, codec.start), None
    greet(run.clients)
    for client in run.clients:
        client.train(2)
    assert [client.contribute() for client in run.clients] == ["refused", "accepted", "accepted"]
