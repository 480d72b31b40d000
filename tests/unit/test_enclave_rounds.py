# SPDX-License-Identifier: Apache-2.0
"""Rounds, restarts, lost state and catching up; the numbers are those of the list of negative tests."""

from __future__ import annotations

import os
import shutil
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from enclave_kit import (
    Federation,
    attester,
    codebook_codec,
    codebook_layout,
    dense_codec,
    hello,
    hello_request,
    new_update,
    open_released,
    seal,
    send,
    start_weights,
    sync,
    sync_request,
    train,
    upload,
)

from trustformer.aggregation import WeightedMean
from trustformer.codec.drift import DriftCodec
from trustformer.codec.weights import dense_layout, specs_of, weights_digest
from trustformer.enclave import session
from trustformer.enclave.protocol import NO_HASH, Manifest, Synced, signed_body, split_signed
from trustformer.enclave.session import Enclave
from trustformer.enclave.state import Released, State, StateStore
from trustformer.errors import MessageError, ProtocolError, SealError
from trustformer.message import digest
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import RecipientKey
from trustformer.vq import body_size


def federation(folder: Path, ids: Sequence[str] = ("a", "b", "c"), **terms: object) -> Federation:
    """A run whose answers leave a residual."""
    start = start_weights()
    upload, answer = codebook_layout(specs_of(start), 4, 16), codebook_layout(specs_of(start), 4, 4)
    return Federation(folder, DriftCodec(upload, answer), start, ids, **terms)


def rounds(run: Federation, cohorts: Sequence[str], first: int = 0) -> None:
    for number, cohort in enumerate(cohorts, first):
        run.greet(cohort)
        train([run.members[client] for client in cohort], number)
        run.exchange(cohort)


# ---- close ----


def test_44_too_few_updates_release_nothing_and_the_next_attempt_succeeds(tmp_path: Path) -> None:
    run = federation(tmp_path)
    train(run.members.values(), 0)
    run.greet("abc")
    assert run.contribute("a") == ["accepted"]
    for attempt in (1, 2):
        with pytest.raises(ProtocolError, match="updates in round 1, 2 are needed") as failure:
            run.enclave.close(1)
        assert "nothing was released" in failure.value.hint
        assert (run.enclave.round, run.enclave.accepted) == (0, ())
        assert not (tmp_path / "state.sealed").exists()
        with pytest.raises(ProtocolError):
            run.enclave.close(0)
        assert run.contribute("abc") == ["stale"] * 3  # until they say hello again
        assert hello(run.enclave, run.members["a"]).attempt == attempt + 1
    run.greet("abc")
    assert run.contribute("abc") == ["accepted"] * 3  # the same updates as before
    run.close()
    run.adopt("abc")
    assert run.manifests[1].attempt == 3
    assert hello(run.enclave, run.members["a"]).attempt == 1


def test_44_what_an_aborted_attempt_accepted_is_not_counted_in_the_next(tmp_path: Path) -> None:
    run = Federation(tmp_path, dense_codec(start_weights()), start_weights())
    train(run.members.values(), 0)
    run.greet("abc")
    run.contribute("c")
    with pytest.raises(ProtocolError):
        run.enclave.close(1)
    run.greet("ab")
    run.contribute("ab")
    run.close()
    run.adopt("ab")
    assert [client for client, _ in run.manifests[1].uploads] == ["a", "b"]
    for name, values in run.members["a"].weights.items():
        np.testing.assert_array_equal(values.round(5), run.members["b"].weights[name].round(5))


def test_closing_again_gives_the_same_bytes_and_other_rounds_are_refused(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "ab"])
    assert run.enclave.close(2) == run.kept[2] == run.enclave.close(2)
    for number in (-1, 0, 1, 4, 2**63):
        with pytest.raises(ProtocolError, match="the last round closed is 2"):
            run.enclave.close(number)


def test_manifests_form_a_chain_that_says_who_took_part(tmp_path: Path) -> None:
    run = federation(tmp_path)
    cohorts = ["abc", "ab", "bc", "ac"]
    commons = []
    for number, cohort in enumerate(cohorts):
        run.greet(cohort)
        commons.append(weights_digest(run.members[cohort[0]].common))
        rounds(run, [cohort], number)
    previous = NO_HASH
    for number, cohort in enumerate(cohorts, 1):
        manifest = run.manifests[number]
        assert (manifest.round, manifest.previous, manifest.attempt) == (number, previous, 1)
        assert manifest.common_digest == commons[number - 1]
        assert [client for client, _ in manifest.uploads] == list(cohort)
        assert (manifest.cfg, manifest.run_id) == (run.config.digest, run.config.run_id)
        assert manifest.aggregate_digest == digest(run.kept[number].aggregate)
        assert not manifest.residual_reset
        previous = manifest.hash


@pytest.mark.parametrize("claim", [b"\xff" * 32, NO_HASH])
def test_a_hello_after_the_uploads_does_not_change_what_they_started_from(tmp_path: Path, claim: bytes) -> None:
    """Ties of claims are broken by value: a client that has sent could else make the manifest one nobody can adopt."""
    run = federation(tmp_path)
    rounds(run, ["abc"])
    run.greet("ab")
    assert run.contribute("ab") == ["accepted"] * 2
    common = weights_digest(run.members["a"].common)
    hello(run.enclave, run.members["b"], common_digest=claim)
    if claim == NO_HASH:
        hello(run.enclave, run.members["a"], common_digest=claim)
    run.close()
    run.adopt("abc")
    assert run.manifests[2].common_digest == common


def test_all_updates_of_a_round_start_from_one_common_model_whatever_most_clients_say_later(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc"])
    a, b, c = run.members.values()
    train((a, b), 1)
    run.greet("a")
    assert run.contribute("a") == ["accepted"]
    claim = bytes(range(32))
    for member in (b, c):
        hello(run.enclave, member, common_digest=claim)
    update = new_update(b, run.codec.encode(b.weights, b.common, np.random.default_rng(0)))
    assert upload(run.enclave, b, replace(update, common_digest=claim)) == "refused"
    assert upload(run.enclave, b, update) == "accepted"
    assert run.enclave.accepted == ("a", "b")


def test_an_update_of_no_common_model_is_refused(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc"])
    member = run.members["a"]
    run.greet("a")
    hello(run.enclave, member, common_digest=NO_HASH)
    update = new_update(member, run.codec.encode(member.weights, member.common, np.random.default_rng(0)))
    assert upload(run.enclave, member, replace(update, common_digest=NO_HASH)) == "refused"
    run.greet("abc")
    assert run.contribute("abc") == ["accepted"] * 3


@pytest.mark.parametrize(
    ("clients", "needed", "others"), [("abc", 2, 1), ("abc", 3, 2), ("abcde", 4, 3), ("abcdef", 4, 2)]
)
def test_a_client_that_is_behind_is_told_a_digest_that_enough_others_vouch_for(
    tmp_path: Path, clients: str, needed: int, others: int
) -> None:
    """Else one client's claim before anybody else's hello would be the common model of whoever takes a dense one."""
    run = federation(tmp_path, clients, min_clients=needed)
    rounds(run, [clients])
    liar, *honest = clients
    behind = run.members[honest.pop()]
    behind.round, behind.manifest_hash = 0, NO_HASH
    planted = b"\xff" * 32
    hello(run.enclave, run.members[liar], common_digest=planted)
    assert hello(run.enclave, behind).common_digest == (planted if others == 1 else NO_HASH)
    for count, client in enumerate(honest, 1):
        hello(run.enclave, run.members[client])
        if others > 1:
            held = weights_digest(run.members[client].common)
            assert hello(run.enclave, behind).common_digest == (held if count >= others else NO_HASH)


def test_manifests_list_the_commitment_of_what_was_sent(tmp_path: Path) -> None:
    run = federation(tmp_path)
    run.greet("ab")
    run.contribute("ab")
    sent = tuple((client, run.members[client].pending.commitment) for client in "ab")  # type: ignore[union-attr]
    run.close()
    run.adopt("a")
    assert run.manifests[1].uploads == sent


def test_no_round_after_the_last(tmp_path: Path) -> None:
    run = federation(tmp_path, rounds=1)
    rounds(run, ["abc"])
    run.greet("ab")
    assert run.contribute("ab") == ["refused", "refused"]
    with pytest.raises(ProtocolError):
        run.enclave.close(2)


def test_a_round_whose_state_cannot_be_stored_is_not_released(tmp_path: Path) -> None:
    """A folder in the way of the state file: close fails, and succeeds when it is gone."""
    run, twin = federation(tmp_path / "a", seed=1), federation(tmp_path / "b", seed=1)
    twin.members["a"].examples = run.members["a"].examples = 200
    for each in (run, twin):
        train(each.members.values(), 0)
        each.greet("ab")
        each.contribute("ab")
    obstacle = tmp_path / "a" / "state.new"
    obstacle.mkdir()
    for _ in range(2):
        with pytest.raises(OSError, match=r"state\.new"):
            run.enclave.close(1)
        assert run.enclave.round == 0
        assert run.enclave.accepted == ("a", "b")
    obstacle.rmdir()
    for each in (run, twin):
        each.close()
        each.adopt("ab")
    assert run.answers == twin.answers
    assert run.boot().round == 1


# ---- histories ----


def test_46_another_history_of_the_same_round_is_refused(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "abc"])
    member = run.members["a"]
    for manifest_hash in (NO_HASH, run.manifests[1].hash, os.urandom(32)):
        with pytest.raises(ProtocolError, match="another history of round 2"):
            hello(run.enclave, member, manifest_hash=manifest_hash)
    hello(run.enclave, member)


def test_46_sync_from_another_history_is_refused(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "ab", "ab"])
    member = run.members["c"]
    hello(run.enclave, member)
    for number, manifest_hash in ((1, os.urandom(32)), (0, run.manifests[1].hash), (2, run.manifests[1].hash)):
        with pytest.raises(ProtocolError, match=f"another history of round {number}"):
            sync(run.enclave, member, run.kept, round=number, manifest_hash=manifest_hash)


def test_46_two_releases_of_one_round_differ_in_hash_and_only_one_opens(tmp_path: Path) -> None:
    """A host that runs a round twice, without one client, from a copied state: the chain tells them apart."""
    run = federation(tmp_path / "one")
    rounds(run, ["abc"])
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    rounds(run, ["abc"], 1)
    forked = Enclave(run.config, StateStore(tmp_path / "two", run.config.digest), attester())
    with pytest.raises(ProtocolError, match="clients are at round 2, the enclave's state at 1"):
        hello(forked, run.members["a"])
    with pytest.raises(ProtocolError, match="0 updates in round 2"):
        forked.close(2)


# ---- state ----


def test_49_restarts_at_any_point_give_the_answers_of_an_undisturbed_run(tmp_path: Path) -> None:
    """The enclave dies before, between and after uploads and after each close; s and every answer are the same."""
    calm, shaken = federation(tmp_path / "calm", seed=5), federation(tmp_path / "shaken", seed=5)
    cohorts = ["abc", "ab", "bc", "abc"]
    rounds(calm, cohorts)
    for number, cohort in enumerate(cohorts):
        shaken.greet(cohort)
        train([shaken.members[client] for client in cohort], number)
        shaken.boot()
        shaken.greet(cohort)
        shaken.contribute(cohort[:2])
        old = seal(shaken.members[cohort[0]], shaken.members[cohort[0]].pending)  # type: ignore[arg-type]
        dead = shaken.enclave.boot_id
        shaken.boot()
        assert (shaken.enclave.accepted, shaken.enclave.boot_id != dead) == ((), True)
        with pytest.raises(ProtocolError, match="another run or boot"):
            shaken.enclave.upload(old.to_bytes())
        shaken.greet(cohort)
        assert shaken.contribute(cohort) == ["accepted"] * len(cohort)
        released = shaken.close()
        shaken.boot()
        assert shaken.enclave.close(number + 1) == released
        shaken.greet(cohort)
        shaken.adopt(cohort)
    assert shaken.answers == calm.answers
    assert not any(manifest.residual_reset for manifest in shaken.manifests.values())
    for name, values in calm.residual.items():
        np.testing.assert_array_equal(values, shaken.residual[name])
        assert values.any()
    for client, member in calm.members.items():
        other = shaken.members[client]
        assert weights_digest(member.weights) == weights_digest(other.weights)
        assert weights_digest(member.common) == weights_digest(other.common)


def lose(run: Federation, how: str, older: bytes) -> None:
    """Lose the state, or put an older one back, and start the enclave again."""
    if how == "lost":
        (run.folder / "state.sealed").unlink()
    elif how == "lost with its key":
        (run.folder / "state.sealed").unlink()
        (run.folder / "sealing.key").unlink()
    else:
        (run.folder / "state.sealed").write_bytes(older)
    run.boot()


@pytest.mark.parametrize("how", ["lost", "lost with its key", "an older one put back"])
def test_47_without_its_newest_state_a_quorum_brings_the_run_forward_and_the_loss_is_recorded(
    tmp_path: Path, how: str
) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc"])
    older = (tmp_path / "state.sealed").read_bytes()
    rounds(run, ["abc", "abc"], 1)
    lose(run, how, older)
    stands = 1 if how == "an older one put back" else 0
    assert run.enclave.round == stands
    with pytest.raises(ProtocolError, match=f"clients are at round 3, the enclave's state at {stands}") as refused:
        hello(run.enclave, run.members["a"])
    assert "1 of 2 clients needed confirm round 3" in refused.value.hint
    with pytest.raises(ProtocolError):  # the same client twice is no quorum
        hello(run.enclave, run.members["a"])
    assert hello(run.enclave, run.members["b"]).round == 3
    run.greet("abc")
    train(run.members.values(), 9)
    run.exchange("abc")
    assert run.manifests[4].residual_reset
    assert run.manifests[4].previous == run.manifests[3].hash
    rounds(run, ["ab"], 10)
    assert not run.manifests[5].residual_reset
    assert run.boot().round == 5


def test_47_a_quorum_must_agree_on_one_history(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "abc"])
    lose(run, "lost", b"")
    for client, manifest_hash in (("a", run.manifests[2].hash), ("b", os.urandom(32)), ("c", run.manifests[2].hash)):
        with pytest.raises(ProtocolError, match="clients are at round 2"):
            hello(run.enclave, run.members[client], manifest_hash=manifest_hash)
    assert run.enclave.round == 0
    hello(run.enclave, run.members["b"])


def test_47_a_quorum_behind_the_newest_client_is_not_enough(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "ab"])
    lose(run, "lost", b"")
    for client in "ac":  # a at round 2, c at round 1
        with pytest.raises(ProtocolError, match="clients are at round 2"):
            hello(run.enclave, run.members[client])
    assert run.enclave.round == 0
    hello(run.enclave, run.members["b"])
    assert run.enclave.round == 2


def test_47_after_a_loss_clients_that_missed_rounds_need_a_dense_model(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "ab"])
    lose(run, "lost", b"")
    with pytest.raises(ProtocolError):
        hello(run.enclave, run.members["a"])
    run.greet("ba")
    behind = run.members["c"]
    assert hello(run.enclave, behind).common_digest == weights_digest(run.members["a"].common)
    with pytest.raises(ProtocolError, match="the keys of the rounds after 1 are gone"):
        sync(run.enclave, behind, run.kept)
    with pytest.raises(ProtocolError):
        run.enclave.close(2)  # what was released is gone too


def test_47_a_key_that_was_lost_is_never_handed_out(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["ab"])
    lose(run, "lost", b"")
    with pytest.raises(ProtocolError):
        hello(run.enclave, run.members["a"])
    hello(run.enclave, run.members["b"])
    run.greet("ab")
    run.exchange("ab")
    newcomer = run.members["c"]
    hello(run.enclave, newcomer)
    with pytest.raises(ProtocolError, match="the keys of the rounds after 0 are gone"):
        sync(run.enclave, newcomer, run.kept)


@pytest.mark.parametrize("at", [0, 31, 32, 40, -1])
def test_48_altered_state_is_refused(tmp_path: Path, at: int) -> None:
    run = federation(tmp_path)
    rounds(run, ["ab"])
    path = tmp_path / "state.sealed"
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    for content in (bytes(data), bytes(data[:100]), b"", bytes(5)):
        path.write_bytes(content)
        with pytest.raises(SealError):
            run.boot()


def test_48_state_of_another_run_is_refused_even_with_its_key(tmp_path: Path) -> None:
    one, two = federation(tmp_path / "one"), federation(tmp_path / "two")
    rounds(one, ["ab"])
    for name in ("state.sealed", "sealing.key"):
        shutil.copy(tmp_path / "one" / name, tmp_path / "two" / name)
    with pytest.raises(SealError):
        two.boot()


def test_48_state_under_another_key_is_refused(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["ab"])
    (tmp_path / "sealing.key").write_bytes(os.urandom(32))
    with pytest.raises(SealError):
        run.boot()


@pytest.mark.parametrize("size", [0, 31, 33])
def test_48_a_sealing_key_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    run = federation(tmp_path)
    (tmp_path / "sealing.key").write_bytes(bytes(size))
    with pytest.raises(SealError, match=f"has {size} bytes, not 32"):
        run.boot()


def test_state_is_sealed_and_its_key_is_private(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc"])
    key, sealed = (tmp_path / "sealing.key").read_bytes(), (tmp_path / "state.sealed").read_bytes()
    assert (tmp_path / "sealing.key").stat().st_mode & 0o777 == 0o600
    state = StateStore(tmp_path, run.config.digest).load()
    assert state is not None
    assert {file.name for file in tmp_path.iterdir()} == {"sealing.key", "state.sealed"}
    planted = next(iter(run.residual.values())).tobytes()[:16]
    assert planted in state.residual
    for secret in (key, planted, state.keys[0][0], state.keys[0][1], run.answers[1][:16]):
        assert secret not in sealed
        assert secret not in run.kept[1].aggregate


def test_states_come_back() -> None:
    for state in (
        State(0, (), b"", None),
        State(2, ((b"h" * 32, b"k" * 32), (b"i" * 32, b"l" * 32)), bytes(12), Released(b"m", b"a")),
    ):
        assert State.from_bytes(state.to_bytes()) == state
        for cut in range(len(state.to_bytes())):
            with pytest.raises(MessageError):
                State.from_bytes(state.to_bytes()[:cut])


# ---- catching up ----


def test_a_client_that_missed_rounds_catches_up_to_the_same_common_model(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "ab", "ab", "ab"])
    member = run.members["c"]
    before = {name: values.copy() for name, values in member.drift.items()}
    hello(run.enclave, member)
    opened = sync(run.enclave, member, run.kept)
    assert [manifest.round for manifest, _ in opened] == [2, 3, 4]
    run.adopt("c")
    assert weights_digest(member.common) == weights_digest(run.members["a"].common)
    for name, values in member.drift.items():  # it kept what it had not sent
        np.testing.assert_allclose(values, before[name], rtol=0, atol=1e-5)
    assert sync(run.enclave, member, run.kept) == []


def test_catching_up_across_a_restart(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "ab"])
    run.boot()
    rounds(run, ["ab"], 2)
    run.boot()
    run.greet("c")
    assert weights_digest(run.members["c"].common) == weights_digest(run.members["a"].common)


def test_a_client_whose_update_counted_but_which_died_before_adopting_subtracts_it(tmp_path: Path) -> None:
    run, calm = federation(tmp_path / "a"), federation(tmp_path / "b")
    for each in (run, calm):
        train(each.members.values(), 0)
        each.greet("abc")
        each.contribute("abc")
        each.close()
    calm.adopt("abc")
    run.adopt("ab")
    run.greet("c")
    assert weights_digest(run.members["c"].weights) == weights_digest(calm.members["c"].weights)


def test_keys_are_kept_for_a_bounded_number_of_rounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "KEPT_ROUNDS", 3)
    run = federation(tmp_path)
    rounds(run, ["abc", "ab", "ab", "ab"])
    member = run.members["c"]
    hello(run.enclave, member)
    with pytest.raises(ProtocolError, match="the keys of the rounds after 1 are gone"):
        sync(run.enclave, member, run.kept)
    at_two = {"round": 2, "manifest_hash": run.manifests[2].hash}
    member.round, member.manifest_hash = 2, run.manifests[2].hash
    assert [manifest.round for manifest, _ in sync(run.enclave, member, run.kept, **at_two)] == [3, 4]
    newcomer = replace(member, round=0, manifest_hash=NO_HASH)
    with pytest.raises(ProtocolError, match="are gone"):
        sync(run.enclave, newcomer, run.kept)


def test_sync_is_refused_to_strangers_forgers_and_other_boots(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "ab"])
    member = run.members["c"]
    hello(run.enclave, member)
    with pytest.raises(ProtocolError, match="not on the roster"):
        sync(run.enclave, member, run.kept, client_id="x")
    with pytest.raises(SealError, match="sync"):
        sync(run.enclave, member, run.kept, client_id="b")
    with pytest.raises(SealError, match="sync"):
        sync(run.enclave, replace(member, identity=Identity.generate()), run.kept)
    for change in ({"run_id": bytes(16)}, {"boot_id": bytes(16)}):
        with pytest.raises(ProtocolError, match="another run or boot"):
            sync(run.enclave, member, run.kept, **change)
    for ahead in (3, 2**63 - 1):
        with pytest.raises(ProtocolError, match="more rounds than this boot knows"):
            sync(run.enclave, member, run.kept, round=ahead)
    for point in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(SealError):
            sync(run.enclave, member, run.kept, recipient=point)


def test_50_keys_wrapped_for_one_client_do_not_open_for_another(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc", "ab"])
    member, key = run.members["c"], RecipientKey()
    hello(run.enclave, member)
    reply = run.enclave.sync(sync_request(member, key))
    synced = Synced.from_bytes(signed_body(reply, member.welcome.signer, "synced"))  # type: ignore[union-attr]
    ((manifest_hash, wrapped),) = synced.rounds
    assert len(key.unwrap(wrapped, Synced.info(manifest_hash, "c"))) == 32
    for other, info in (
        (RecipientKey(), Synced.info(manifest_hash, "c")),
        (key, Synced.info(manifest_hash, "b")),
        (key, Synced.info(run.manifests[1].hash, "c")),
    ):
        with pytest.raises(SealError):
            other.unwrap(wrapped, info)


def test_50_an_altered_aggregate_does_not_open(tmp_path: Path) -> None:
    run = federation(tmp_path)
    rounds(run, ["abc"])
    state = StateStore(tmp_path, run.config.digest).load()
    assert state is not None
    _, round_key = state.keys[-1]
    open_released(run.config, run.kept[1], round_key)
    sealed = bytearray(run.kept[1].aggregate)
    sealed[9] ^= 1
    manifest = Manifest.from_bytes(split_signed(run.kept[1].manifest, "manifest")[0])
    assert manifest.aggregate_digest != digest(bytes(sealed))
    with pytest.raises(SealError):
        session.decrypt_chunks(round_key, bytes(sealed), len(sealed) - 16)


def test_every_message_of_a_round_has_one_length(tmp_path: Path) -> None:
    """Nothing about the data can be read off lengths: zero drifts, small ones and large ones."""
    lengths = set()
    for index, size in enumerate((0.0, 1e-6, 1.0)):
        run = federation(tmp_path / str(index))
        train(run.members.values(), index, size)
        run.greet("abc")
        sent = []
        for member in run.members.values():
            member.examples = 10**index
            body = run.codec.encode(member.weights, member.common, np.random.default_rng(0))
            sealed = seal(member, new_update(member, body))
            assert send(run.enclave, member, sealed).status == "accepted"
            sent.append(len(sealed.to_bytes()))
        released = run.close()
        lengths.add((*sent, len(released.manifest), len(released.aggregate)))
    assert len(lengths) == 1


def test_hello_names_the_keys_of_this_boot_and_answers_this_nonce(tmp_path: Path) -> None:
    run = federation(tmp_path)
    first, second = (hello(run.enclave, run.members["a"], nonce=bytes([index]) * 32) for index in (1, 2))
    assert (first.nonce, second.nonce) == (b"\1" * 32, b"\2" * 32)
    assert replace(first, nonce=second.nonce) == second
    assert first.boot_id == run.enclave.boot_id
    run.boot()
    third = hello(run.enclave, run.members["a"])
    assert not {third.boot_id, third.recipient, third.signer} & {first.boot_id, first.recipient, first.signer}
    with pytest.raises(MessageError):
        run.enclave.hello(hello_request(run.members["a"]) + b"\0")


# ---- memory ----


def test_the_mean_of_any_number_of_clients_takes_under_four_model_sizes() -> None:
    """Four million entries in one dense tensor, one client capped; the bodies themselves are counted."""
    entries = 4 * 2**20
    layout = dense_layout([*specs_of({"w": np.empty((2048, 2048), np.float32)})])
    model, slack = 4 * entries, 8 * 2**20
    body = np.full(entries, 0.25, "<f4").tobytes()
    tracemalloc.start()
    try:
        mean = WeightedMean(layout, 0.6, clients=3)
        for count in (900, 10, 10, 10, 10):
            mean.add(count, body)
        added = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        result = mean.result()
        combined = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (result["w"] == 0.25).all()
    assert added + len(body) < 4 * model + slack
    assert combined < 4 * model + slack


def test_an_enclave_with_codebooks_takes_under_four_model_sizes_while_it_collects(tmp_path: Path) -> None:
    """From the bytes of an upload to its receipt; closing takes two more for a moment."""
    start = {name: np.zeros((512, 1024), np.float32) for name in ("w", "v")}
    codec = codebook_codec(start, 8, 64)
    model, slack = 4 * 2**20, 2**20
    rng = np.random.default_rng(0)
    drift = {
        name: rng.standard_normal(values.shape).astype(np.float32) * np.float32(0.01) for name, values in start.items()
    }
    body = codec.encode(drift, start, rng)
    assert len(body) == body_size(codec.upload)
    tracemalloc.start()
    try:
        run = Federation(tmp_path, codec, start, ["a", "b"])
        for member in run.members.values():
            hello(run.enclave, member)
        idle = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for member in run.members.values():
            assert upload(run.enclave, member, new_update(member, body)) == "accepted"
        collecting = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        run.close()
        closing = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert idle < 2 * model + slack
    assert collecting < 4 * model + slack
    assert closing < 6 * model + slack
