# SPDX-License-Identifier: Apache-2.0
"""Absent, late, repeated and far-behind clients: everyone ends with one G, and no drift is lost or counted twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from playground import Party

from trustformer.codec.weights import Weights, weights_digest
from trustformer.enclave.protocol import Manifest
from trustformer.errors import MessageError, NotReleasedError, ProtocolError, SealError
from trustformer.experiment.cohorts import make_cohorts
from trustformer.federation import channel
from trustformer.federation.channel import Position
from trustformer.federation.client import BehindError, Client
from trustformer.federation.common import CommonReply, CommonRequest, longest_answer
from trustformer.federation.host import Link
from trustformer.federation.round import greet
from trustformer.message import Aggregate
from trustformer.secure.identity import Identity


def mean_and_residual(party: Party, included: list[Client]) -> Weights:
    """Σ p_i W_i + s over the clients of one exchange (all have equally many pairs)."""
    enclave = party.host._enclave
    flat, at = np.frombuffer(enclave._state.residual, np.float32), 0
    total = {}
    for spec in enclave._config.answer.tensors:
        weights = np.mean([client.state.weights[spec.name].astype(np.float64) for client in included], axis=0)
        total[spec.name] = weights + (flat[at : at + spec.size].reshape(spec.shape) if len(flat) else 0)
        at += spec.size
    return total


def test_evidence_that_has_grown_old_while_a_client_trained_is_asked_for_again(
    party: Callable[..., Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    play = party()
    play.play(1)
    verified = [client.channel._verified_at for client in play.clients]
    greet(play.clients)
    assert [client.channel._verified_at for client in play.clients] == verified
    for client in play.clients:
        client.train(2)
    later = time.time() + channel.VERIFY_AGAIN
    monkeypatch.setattr(channel, "time", SimpleNamespace(time=lambda: later))
    assert [client.contribute() for client in play.clients] == ["accepted"] * 3
    assert [client.channel._verified_at for client in play.clients] == [later] * 3


@pytest.mark.parametrize("seed", [1, 2, 28])
def test_five_rounds_with_absence_end_in_one_common_model(party: Callable[..., Party], seed: int) -> None:
    play = party(f"seed={seed}", "clients.participation=0.7", "clients.late=0.3", "clients.duplicate=0.3")
    cohorts = make_cohorts(play.config, ["0", "1", "2"], 5)
    assert any(len(cohort.present) < 3 for cohort in cohorts)
    for number, cohort in enumerate(cohorts, 1):
        statuses = play.play(number, *map("".join, (cohort.present, cohort.late, cohort.duplicate)))
        accepted = {client for client, status in statuses.items() if status == "accepted"}
        assert accepted == set(cohort.present) - set(cohort.late)
        assert {client for client, _ in play.manifest(number).uploads} == accepted
        assert len(play.digests("".join(cohort.present))) == 1
    greet(play.clients)
    assert len(play.digests()) == 1
    assert {client.state.round for client in play.clients} == {5}


def test_the_mean_of_a_cohort_and_the_residual_are_unchanged_by_an_exchange(party: Callable[..., Party]) -> None:
    """With all of s; what a smaller `method.carry` takes from it is a property of its own (tests/properties)."""
    play = party("method.carry=1")
    play.play(1)
    for number, present in ((2, "02"), (3, "12"), (4, "012")):
        included = [play.clients[int(index)] for index in present]
        greet(included)
        for client in included:
            client.train(number)
        before = mean_and_residual(play, included)
        for client in included:
            assert client.contribute() == "accepted"
        play.host.close(number)
        for client in included:
            client.adopt()
        after = mean_and_residual(play, included)
        for name, values in before.items():
            np.testing.assert_allclose(after[name], values, rtol=0, atol=2e-6)


def drift_of(client: Client) -> Weights:
    return {name: values - client.state.common[name] for name, values in client.state.weights.items()}


def test_an_absent_and_a_late_client_keep_their_drift(party: Callable[..., Party]) -> None:
    play = party("clients.min_clients=1")
    play.play(1)
    late, absent = play.clients[1], play.clients[2]
    late.train(2)
    kept = [(late, drift_of(late)), (absent, drift_of(absent))]
    before = play.digests()
    assert play.play(2, "01", late="1") == {"0": "accepted", "1": "late"}
    greet(play.clients)
    assert len(play.digests()) == 1
    assert play.digests() != before
    for client, drift in kept:
        assert client.state.pending is None
        for name, values in drift_of(client).items():
            np.testing.assert_allclose(values, drift[name], rtol=0, atol=1e-6)


def test_a_repeated_upload_counts_once_and_a_late_one_not_at_all(party: Callable[..., Party]) -> None:
    play = party("clients.min_clients=1")
    assert play.play(1, "012", late="2", duplicate="02") == {"0": "accepted", "1": "accepted", "2": "late"}
    assert [client for client, _ in play.manifest(1).uploads] == ["0", "1"]
    sent = [client for client, direction, _ in play.sent("upload") if direction == "up"]
    assert sorted(sent) == ["0", "0", "1", "2", "2"]


def test_a_round_with_too_few_clients_releases_nothing_and_may_be_tried_again(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1)
    with pytest.raises(ProtocolError, match="1 updates in round 2, 2 are needed"):
        play.play(2, "0")
    assert play.host.round == 1
    assert play.play(2, "01") == {"0": "accepted", "1": "accepted"}
    assert play.manifest(2).attempt == 2


def test_a_client_beyond_max_lag_takes_the_dense_common_model_and_goes_on(party: Callable[..., Party]) -> None:
    play = party("clients.max_lag=1")
    for number in (1, 2):
        play.play(number, "01")
    assert not play.sent("common")
    statuses = play.play(3, "012")
    dense = 4 * sum(values.size for values in play.clients[0].state.common.values())
    lengths = {(client, direction): length for client, direction, length in play.sent("common")}
    assert lengths.keys() == {("2", "up"), ("0", "up"), ("2", "down")}
    assert lengths["0", "up"] == lengths["2", "down"]
    assert dense < lengths["2", "down"] < dense + 1000
    assert statuses["2"] == "accepted"
    assert play.play(4)["2"] == "accepted"
    assert len(play.digests()) == 1


def test_a_client_within_max_lag_catches_up_by_aggregates(party: Callable[..., Party]) -> None:
    play = party("clients.max_lag=3")
    for number in (1, 2, 3):
        play.play(number, "01")
    assert play.play(4)["2"] == "accepted"
    assert not play.sent("common")
    assert len(play.digests()) == 1
    client = play.clients[2]
    longest = longest_answer(client.channel.config, client.state.common, max_lag=3)
    assert max(length for id_, way, length in play.sent("sync") if (id_, way) == ("2", "down")) < longest


class Interrupted(Manifest):
    @property
    def hash(self) -> bytes:
        raise KeyboardInterrupt


def test_a_catch_up_interrupted_in_a_later_round_goes_on_where_it_was(
    party: Callable[..., Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the second manifest is hashed: the state on disk is that of one round, and is caught up with."""
    play = party("clients.max_lag=3")
    for number in (1, 2, 3):
        play.play(number, "01")
    channel = play.clients[2].channel
    sync = channel.sync

    def interrupted(position: Position, acknowledged: bytes) -> Iterator[tuple[Manifest, Aggregate]]:
        for manifest, aggregate in sync(position, acknowledged):
            yield (Interrupted(**vars(manifest)) if manifest.round == 2 else manifest), aggregate

    monkeypatch.setattr(channel, "sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        greet(play.clients[2:])
    again = play.restarted()
    assert again.clients[2].state.round == 1
    greet(again.clients)
    assert len(again.digests()) == 1


def behind(party: Callable[..., Party]) -> Party:
    """Client 2 needs the dense common model, and clients 0 and 1 hold it."""
    play = party("clients.max_lag=1")
    for number in (1, 2):
        play.play(number, "01")
    greet(play.clients[:2])
    return play


def test_on_a_tie_nobodys_common_model_is_the_one_most_clients_hold(party: Callable[..., Party]) -> None:
    play = party("clients.max_lag=1")
    honest, liar, late = play.clients
    for number in (1, 2):
        play.play(number, "01")
    liar.state.common = {name: values + 1 for name, values in liar.state.common.items()}
    liar._next = None
    for client in (honest, liar):
        client.greet()
    with pytest.raises(BehindError):
        late.greet()
    for sponsor in (honest, liar):
        with pytest.raises(ProtocolError, match="too few clients have said yet which"):
            late.ask_common(sponsor)
    assert late.state.round == 0


def test_a_client_that_is_far_behind_lets_those_go_on_that_wait_for_one_more_to_know_the_round(
    party: Callable[..., Party],
) -> None:
    """Two of three clients are there, and one of them has not seen the round whose key waits for two."""
    play = party("enclave.release=acknowledged", "clients.max_lag=1")
    first, behind, _ = play.clients
    for number in (1, 2):
        play.play(number, "02")
    included = [play.clients[0], play.clients[2]]
    for client in included:
        client.greet()
        client.train(3)
        assert client.contribute() == "accepted"
    play.host.close(3)  # and client 2 is gone
    with pytest.raises(NotReleasedError):
        first.greet()
    with pytest.raises(BehindError):
        behind.greet()
    with pytest.raises(ProtocolError, match="too few clients have said yet"):
        behind.ask_common(first)
    first.greet()
    behind.ask_common(first)
    assert [client.state.round for client in (first, behind)] == [3, 3]
    assert len(play.digests("01")) == 1


def test_a_sponsor_with_another_model_is_refused(party: Callable[..., Party]) -> None:
    play = behind(party)
    liar, client = play.clients[0], play.clients[2]
    name = next(iter(liar.state.common))
    liar.state.common[name] = liar.state.common[name] + np.float32(1e-3)
    before = client.state.round
    with pytest.raises(ProtocolError, match="another common model"):
        client.ask_common(liar)
    assert client.state.round == before
    client.ask_common(play.clients[1])
    assert len(play.digests("12")) == 1


def test_a_sponsor_that_is_not_enrolled_or_is_somebody_else_is_refused(party: Callable[..., Party]) -> None:
    play = behind(party)
    stranger, client = play.clients[0], play.clients[2]
    stranger.channel.identity = Identity.generate()
    with pytest.raises(SealError, match="signature"):
        client.ask_common(stranger)
    stranger.id = stranger.channel.client_id = "9"
    with pytest.raises(ProtocolError, match="not on the roster"):
        client.ask_common(stranger)


def test_a_client_is_not_its_own_sponsor(party: Callable[..., Party]) -> None:
    play = behind(party)
    with pytest.raises((SealError, ProtocolError)):
        play.clients[2].ask_common(play.clients[2])


def test_a_stranger_gets_no_common_model(party: Callable[..., Party]) -> None:
    play = behind(party)
    play.clients[2].channel.identity = Identity.generate()
    with pytest.raises(SealError):
        play.clients[2].ask_common(play.clients[0])


def test_a_common_model_is_handed_on_bit_for_bit_however_large_its_entries(party: Callable[..., Party]) -> None:
    play = behind(party)
    sponsor, asking = play.clients[0].channel, play.clients[2].channel
    common = {name: values + np.float32(100) for name, values in play.clients[0].state.common.items()}
    request = CommonRequest.new(asking, 2)
    reply = CommonReply.make(request.signed, sponsor, common)
    opened = CommonReply.open(reply, request, "0", asking.config, common)
    assert {name: values.shape for name, values in opened.items()} == {n: v.shape for n, v in common.items()}
    assert weights_digest(opened) == weights_digest(common)


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, -np.inf])
def test_a_common_model_that_is_not_finite_is_neither_sent_nor_taken(
    party: Callable[..., Party], monkeypatch: pytest.MonkeyPatch, spoilt: float
) -> None:
    play = behind(party)
    sponsor, asking = play.clients[0].channel, play.clients[2].channel
    common = dict(play.clients[0].state.common)
    name = max(common)
    common[name] = np.full_like(common[name], spoilt)
    request = CommonRequest.new(asking, 2)
    with pytest.raises(MessageError, match=f"common model: the tensor {name!r} holds NaN or infinity") as refused:
        CommonReply.make(request.signed, sponsor, common)
    assert refused.value.hint
    with monkeypatch.context() as liar:
        liar.setattr("trustformer.federation.common._finite", lambda _, values: values)
        reply = CommonReply.make(request.signed, sponsor, common)
    with pytest.raises(MessageError, match=f"common model: the tensor {name!r} holds NaN or infinity"):
        CommonReply.open(reply, request, "0", asking.config, common)


class AlteringLink(Link):
    """A host that changes one byte of the dense model on its way."""

    position = -1

    def _down(self, kind: str, data: bytes) -> bytes:
        if kind == "common":
            changed = bytearray(data)
            changed[self.position] ^= 1
            data = bytes(changed)
        return super()._down(kind, data)


@pytest.mark.parametrize("position", [0, 10, 100, 5000, -1])
def test_a_dense_model_altered_on_its_way_is_refused(party: Callable[..., Party], position: int) -> None:
    play = behind(party)
    client = play.clients[2]
    client.channel.link = AlteringLink(play.host, "2", play.federation.ledger)
    client.channel.link.position = position
    with pytest.raises((SealError, MessageError)):
        client.ask_common(play.clients[0])
    assert client.state.round == 0


def test_when_everyone_present_is_too_far_behind_it_says_so(party: Callable[..., Party]) -> None:
    play = behind(party)
    with pytest.raises(ProtocolError, match="too far behind"):
        play.play(3, "2")


@pytest.mark.parametrize("beside", [0, 3])
def test_a_host_attaches_the_rounds_that_were_asked_for_under_signature(
    party: Callable[..., Party], monkeypatch: pytest.MonkeyPatch, beside: int
) -> None:
    play = party()
    play.play(1)
    play.play(2)
    greet(play.clients)
    client, read = play.clients[0], list[int]()
    link, channel = client.channel.link, client.channel
    sync = link.sync
    monkeypatch.setattr(link, "sync", lambda request, after, **named: sync(request, beside, **named))
    monkeypatch.setattr(play.host, "kept", read.append)
    with pytest.raises(MessageError, match=f"rounds after {beside}, but is signed for those after 2"):
        list(channel.sync(client.position))
    assert not read


def test_without_a_common_model_a_client_beyond_max_lag_keeps_its_weights(party: Callable[..., Party]) -> None:
    play = party("clients.max_lag=1", "method.variant=paper", "method.ratio=0.2")
    play.play(1)
    before = weights_digest(play.clients[2].state.weights)
    for number in (2, 3, 4):
        play.play(number, "01")
    greet(play.clients[2:])  # nobody up to date is there, and nobody is needed
    assert (play.clients[2].state.round, weights_digest(play.clients[2].state.weights)) == (4, before)
    assert not play.sent("common")
    assert play.play(5) == dict.fromkeys("012", "accepted")
