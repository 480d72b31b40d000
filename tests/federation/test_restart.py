# SPDX-License-Identifier: Apache-2.0
"""The enclave or the host loses or swaps files: the run goes on from what clients hold, or stops with a reason."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from playground import Party

from trustformer.errors import NotReleasedError, ProtocolError, SealError, TrustformerError
from trustformer.federation.round import greet


def test_a_restart_with_its_state_changes_nothing(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1)
    play = play.restarted()
    play.play(2)
    assert not play.manifest(2).residual_reset
    assert play.manifest(2).previous == play.manifest(1).hash
    assert len(play.digests()) == 1


def test_without_its_state_the_run_goes_on_by_quorum_and_the_manifest_says_so(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1)
    play.play(2)
    play.state_file.unlink()
    play = play.restarted()
    assert set(play.play(3).values()) == {"accepted"}
    assert play.manifest(3).residual_reset
    assert play.manifest(3).previous == play.manifest(2).hash
    play.play(4)
    assert not play.manifest(4).residual_reset
    assert len(play.digests()) == 1


def test_a_client_that_missed_rounds_whose_keys_are_gone_takes_the_dense_model(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1)
    play.play(2, "01")
    play.state_file.unlink()
    play = play.restarted()
    assert set(play.play(3).values()) == {"accepted"}
    assert {client for client, direction, _ in play.sent("common") if direction == "down"} == {"2"}
    assert len(play.digests()) == 1


def test_too_few_clients_cannot_confirm_a_history(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1, "01")
    play.play(2, "01")
    play.state_file.unlink()
    play = play.restarted()
    with pytest.raises(ProtocolError, match="clients are at round 2, the enclave's state at 0") as caught:
        play.play(3, "02")
    assert "1 of 2" in caught.value.hint
    assert [client.state.round for client in play.clients] == [2, 2, 0]
    assert set(play.play(3, "012").values()) == {"accepted"}
    assert len(play.digests()) == 1


@pytest.mark.parametrize("absent", ["0", "1", "2"])
def test_an_older_state_put_back_goes_on_by_quorum(party: Callable[..., Party], absent: str) -> None:
    play = party()
    play.play(1)
    old = play.state_file.read_bytes()
    present = "012".replace(absent, "")
    play.play(2, present)
    play.play(3, present)
    play.state_file.write_bytes(old)
    play = play.restarted()
    assert set(play.play(4).values()) == {"accepted"}
    assert play.manifest(4).residual_reset
    assert play.manifest(4).previous == play.manifest(3).hash
    assert len(play.digests()) == 1


def test_two_histories_of_one_round_are_never_joined(party: Callable[..., Party]) -> None:
    play = party("clients.min_clients=1")
    play.play(1)
    old = play.state_file.read_bytes()
    play.play(2, "0")
    play.state_file.write_bytes(old)
    play.host_file(2).unlink()
    play = play.restarted()
    play.play(2, "1")
    with pytest.raises(ProtocolError, match="another history of round 2"):
        play.play(3)
    play.state_file.unlink()
    play = play.restarted()
    with pytest.raises(ProtocolError, match="another history of round 2"):
        play.play(3, "01")


@pytest.mark.parametrize("release", ["immediate", "acknowledged"])
def test_a_client_that_knows_a_round_of_another_history_is_not_taken_along(
    party: Callable[..., Party], release: str
) -> None:
    """It has adopted round 1, or stored its manifest; the host has it done again without it, and goes on."""
    play = party("clients.count=4", "clients.min_clients=3", "clients.max_lag=1", f"enclave.release={release}")
    knows = play.clients[0]
    for client in play.clients[:3]:
        client.greet()
        client.train(1)
        client.contribute()
    play.host.close(1)
    with suppress(NotReleasedError):
        knows.greet()
    assert max(knows.state.round, knows.state.acknowledged) == 1
    play.state_file.unlink()
    play.host_file(1).unlink()
    play = play.restarted()
    for number in (1, 2, 3):
        play.play(number, "123")
    with pytest.raises(ProtocolError, match="another history of round 1"):
        play.clients[0].greet()
    assert play.clients[0].state.round == knows.state.round


def test_an_altered_state_is_refused(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1)
    data = bytearray(play.state_file.read_bytes())
    data[len(data) // 2] ^= 1
    play.state_file.write_bytes(bytes(data))
    with pytest.raises(SealError):
        play.restarted()


def test_a_state_of_another_run_is_refused(party: Callable[..., Party]) -> None:
    play = party()
    play.play(1)
    (play.folder / "terms.bin").unlink()
    with pytest.raises(SealError):
        play.restarted()


def lose(path: Path, damaged: bool) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1])) if damaged else path.unlink()


@pytest.mark.parametrize("damaged", [False, True])
def test_a_released_round_the_host_lost_is_given_again_by_the_enclave(
    party: Callable[..., Party], damaged: bool
) -> None:
    play = party()
    play.play(1)
    play.play(2, "01")
    kept = play.host_file(2).read_bytes()
    lose(play.host_file(2), damaged)
    play = play.restarted()
    greet(play.clients)
    assert play.host_file(2).read_bytes() == kept
    assert len(play.digests()) == 1


@pytest.mark.parametrize("damaged", [False, True])
def test_without_an_older_round_a_client_takes_the_dense_model(party: Callable[..., Party], damaged: bool) -> None:
    play = party()
    for number in (1, 2, 3):
        play.play(number, "01")
    lose(play.host_file(2), damaged)
    assert play.play(4)["2"] == "accepted"
    assert {client for client, direction, _ in play.sent("common") if direction == "down"} == {"2"}
    assert len(play.digests()) == 1


def test_a_client_alone_with_a_lost_round_is_told(party: Callable[..., Party]) -> None:
    play = party()
    for number in (1, 2, 3):
        play.play(number, "01")
    play.host_file(2).unlink()
    with pytest.raises(ProtocolError, match="too far behind to catch up"):
        play.play(4, "2")


def test_rounds_the_host_swapped_or_altered_are_refused_and_not_papered_over(
    party: Callable[..., Party], monkeypatch: pytest.MonkeyPatch
) -> None:
    play = party()
    for number in (1, 2, 3):
        play.play(number, "01")
    first, second, third = (play.host_file(number).read_bytes() for number in (1, 2, 3))
    for wrong in (second, first[:-1] + bytes([first[-1] ^ 1]), first[:100]):
        given = {1: wrong, 2: second, 3: third}
        monkeypatch.setattr(play.host, "kept", given.__getitem__)
        with pytest.raises(TrustformerError):
            play.play(4)
        assert play.clients[2].state.round == 0
    assert not play.sent("common")
    monkeypatch.undo()
    assert play.play(4)["2"] == "accepted"
    assert len(play.digests()) == 1
