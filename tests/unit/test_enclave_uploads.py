# SPDX-License-Identifier: Apache-2.0
"""What the enclave refuses of an upload; the numbers are those of the list of negative tests of the protocol."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from enclave_kit import (
    Federation,
    Member,
    dense_codec,
    hello,
    hello_request,
    make_config,
    new_update,
    seal,
    send,
    signed_upload,
    start_weights,
    train,
    upload,
)

from trustformer.codec.weights import dense_layout, specs_of, weights_digest
from trustformer.enclave.protocol import SealedUpdate, UploadHeader
from trustformer.errors import MessageError, ProtocolError, SealError
from trustformer.message import MAX_EXAMPLES, digest, enc
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import CHUNK, WRAP_SIZE, encrypt_chunks, new_content_key, wrap_key
from trustformer.vq import body_size, decode


class Case:
    """Three clients greeted in round 1, each with an honest update; nothing uploaded yet."""

    def __init__(self, folder: Path) -> None:
        start = start_weights()
        self.run = Federation(folder, dense_codec(start), start)
        train(self.run.members.values(), 1)
        self.a, self.b, self.c = self.run.members.values()
        self.enclave = self.run.enclave
        self.honest = {}
        for member in self.run.members.values():
            hello(self.enclave, member)
            body = self.run.codec.encode(member.weights, member.common, np.random.default_rng(0))
            self.honest[member.id] = new_update(member, body)

    def body(self, **entries: np.ndarray) -> bytes:
        """The honest body of `a` with some tensors replaced, not checked by an encoder."""
        tensors = self.a.drift | entries
        return b"".join(values.astype("<f4").tobytes() for values in tensors.values())


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    """The enclave must take the next honest round as if nothing had happened."""
    case = Case(tmp_path)
    yield case
    run = case.run
    for member in run.members.values():
        member.welcome, member.pending = None, case.honest[member.id]
    run.greet("abc")
    if run.enclave.round == 0:
        assert run.contribute("abc") == ["accepted"] * 3
        run.close()
    run.adopt("abc")
    mean = decode(run.codec.answer, run.answers[1])
    for name, values in mean.items():
        honest = [decode(run.codec.upload, update.body)[name].astype(np.float64) for update in case.honest.values()]
        np.testing.assert_allclose(values, np.mean(honest, 0), rtol=0, atol=2.0**-28)
    assert [client for client, _ in run.manifests[1].uploads] == ["a", "b", "c"]


# ---- who ----


def test_28_unknown_client_is_refused(case: Case) -> None:
    stranger = Member("x", Identity.generate(), case.run.config, case.a.weights, case.a.common)
    with pytest.raises(ProtocolError, match="'x' is not on the roster"):
        hello(case.enclave, stranger)
    stranger.welcome = case.a.welcome
    with pytest.raises(ProtocolError, match="'x' is not on the roster"):
        upload(case.enclave, stranger, case.honest["a"])
    assert case.enclave.accepted == ()


def test_29_known_client_with_anothers_key_is_refused(case: Case) -> None:
    for signer in (case.b.identity, Identity.generate()):
        with pytest.raises(SealError, match="upload"):
            upload(case.enclave, case.a, case.honest["a"], signer=signer)
        with pytest.raises(SealError, match="hello"):
            case.enclave.hello(hello_request(replace(case.a, identity=signer)))
    assert case.enclave.accepted == ()


def test_30_ciphertext_signed_again_by_another_client_is_refused(case: Case) -> None:
    stolen = seal(case.a, case.honest["a"])
    header = replace(UploadHeader.from_bytes(stolen.header), client_id="b").to_bytes()
    assert (
        send(case.enclave, case.b, signed_upload(header, stolen.wrap, stolen.chunks, case.b.identity)).status
        == "refused"
    )
    with pytest.raises(SealError):
        send(case.enclave, case.b, signed_upload(stolen.header, stolen.wrap, stolen.chunks, case.b.identity))
    assert case.enclave.accepted == ()


def test_31_swapped_client_id_in_the_header_is_refused(case: Case) -> None:
    sealed = seal(case.a, case.honest["a"])
    header = replace(UploadHeader.from_bytes(sealed.header), client_id="b").to_bytes()
    for swapped in (
        replace(sealed, header=header),
        signed_upload(header, sealed.wrap, sealed.chunks, case.a.identity),
        seal(case.a, case.honest["a"], client_id="b"),
    ):
        with pytest.raises(SealError, match="upload"):
            case.enclave.upload(swapped.to_bytes())
    assert case.enclave.accepted == ()


# ---- once ----


def test_32_replayed_upload_gets_the_same_receipt_and_counts_once(case: Case) -> None:
    sealed = seal(case.a, case.honest["a"]).to_bytes()
    first = case.enclave.upload(sealed)
    assert [case.enclave.upload(sealed) for _ in range(3)] == [first] * 3
    assert case.enclave.accepted == ("a",)


def test_32_the_same_update_sealed_again_counts_once(case: Case) -> None:
    assert [upload(case.enclave, case.a, case.honest["a"]) for _ in range(3)] == ["accepted"] * 3
    assert case.enclave.accepted == ("a",)


def test_33_second_and_different_update_is_a_duplicate(case: Case) -> None:
    assert upload(case.enclave, case.a, case.honest["a"]) == "accepted"
    salted = replace(case.honest["a"], salt=os.urandom(32))
    other = replace(case.honest["a"], body=case.honest["b"].body)
    assert [upload(case.enclave, case.a, update) for update in (salted, other)] == ["duplicate"] * 2
    assert upload(case.enclave, case.a, case.honest["a"]) == "accepted"


# ---- when ----


def test_34_previous_round_is_late(case: Case) -> None:
    for member in (case.a, case.b, case.c):
        upload(case.enclave, member, case.honest[member.id])
    late = seal(case.a, replace(case.honest["a"], salt=os.urandom(32)))
    case.run.close()
    assert send(case.enclave, case.a, late).status == "late"
    assert upload(case.enclave, case.b, case.honest["b"]) == "late"
    assert upload(case.enclave, case.b, case.honest["b"], round=0) == "late"
    assert case.enclave.accepted == ()


def test_34_future_round_is_stale(case: Case) -> None:
    for number in (2, 3, 2**63 - 1):
        assert upload(case.enclave, case.a, replace(case.honest["a"], round=number), round=number) == "stale"


def test_34_another_round_inside_than_outside_is_refused(case: Case) -> None:
    for number in (0, 2):
        assert upload(case.enclave, case.a, replace(case.honest["a"], round=number)) == "refused"


@pytest.mark.parametrize("change", [{"run_id": bytes(16)}, {"boot_id": bytes(16)}, {"cfg": bytes(32)}])
def test_34_another_run_boot_or_terms_are_refused(case: Case, change: dict[str, bytes]) -> None:
    with pytest.raises(ProtocolError, match="another run or boot"):
        upload(case.enclave, case.a, case.honest["a"], **change)
    with pytest.raises(ProtocolError, match="another run"):
        hello(case.enclave, case.a, run_id=bytes(16))


def test_34_old_attempt_is_stale(case: Case) -> None:
    old = seal(case.a, case.honest["a"])
    with pytest.raises(ProtocolError, match="0 updates in round 1"):
        case.enclave.close(1)
    assert send(case.enclave, case.a, old).status == "stale"
    assert upload(case.enclave, case.a, case.honest["a"], attempt=3) == "stale"
    assert upload(case.enclave, case.a, case.honest["a"], attempt=2) == "accepted"


# ---- ciphertext ----


def big_case(folder: Path) -> tuple[Federation, SealedUpdate, list[bytes]]:
    """One client whose sealed update is three chunks long."""
    start = {"w": np.zeros(600_000, np.float32)}
    run = Federation(folder, dense_codec(start), start)
    member = run.members["a"]
    hello(run.enclave, member)
    sealed = seal(member, new_update(member, bytes(body_size(run.config.upload))))
    size = CHUNK + 16
    return run, sealed, [sealed.chunks[at : at + size] for at in range(0, len(sealed.chunks), size)]


def test_35_truncated_or_rearranged_chunks_are_refused(tmp_path: Path) -> None:
    run, sealed, (first, second, third) = big_case(tmp_path)
    member = run.members["a"]
    arrangements = {
        "truncated": first + second + third[:-1],
        "nothing": b"",
        "dropped": first + third,
        "first removed": second + third,
        "swapped": second + first + third,
        "duplicated": first + first + third,
        "last flag removed": first + second,
    }
    for name, chunks in arrangements.items():
        altered = signed_upload(sealed.header, sealed.wrap, chunks, member.identity)
        assert send(run.enclave, member, altered).status == "refused", name
    for chunks in (first + second + third + third, first + second + third + b"\0"):
        with pytest.raises(MessageError):
            send(run.enclave, member, signed_upload(sealed.header, sealed.wrap, chunks, member.identity))
    assert run.enclave.accepted == ()
    assert send(run.enclave, member, sealed).status == "accepted"


def test_35_flipped_bits_are_refused(case: Case) -> None:
    sealed = seal(case.a, case.honest["a"])
    for at in (0, 100, len(sealed.chunks) - 1):
        chunks = bytearray(sealed.chunks)
        chunks[at] ^= 1
        altered = signed_upload(sealed.header, sealed.wrap, bytes(chunks), case.a.identity)
        assert send(case.enclave, case.a, altered).status == "refused"
        with pytest.raises(SealError):  # without a new signature it is nobody's
            case.enclave.upload(replace(sealed, chunks=bytes(chunks)).to_bytes())


@pytest.mark.parametrize("lie", [1, -1, 16, 2**20, 2**62, "0", 2**63, 2**64 - 1])
def test_36_lying_payload_length_is_refused_before_any_allocation(case: Case, lie: int | str) -> None:
    honest = len(case.honest["a"].to_bytes())
    claimed = 0 if lie == "0" else int(lie) if int(lie) >= 2**62 else honest + int(lie)
    sealed = seal(case.a, case.honest["a"], payload_length=claimed)
    tracemalloc.start()
    try:
        if claimed >= 2**63:
            with pytest.raises(MessageError):
                case.enclave.upload(sealed.to_bytes())
        else:
            assert send(case.enclave, case.a, sealed).status == "refused"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6 * len(sealed.to_bytes()) + 128 * 1024


def test_36_payload_of_another_length_than_the_header_says_is_refused(case: Case) -> None:
    payload = case.honest["a"].to_bytes()
    for wrong in (payload[:-1], payload + b"\0", b"", payload[:-4]):
        statuses = set()
        for claimed in (len(payload), len(wrong)):
            try:
                statuses.add(upload(case.enclave, case.a, wrong, payload_length=claimed))
            except MessageError:
                assert len(wrong) > len(payload)  # too long for this run, whatever it says
        assert statuses <= {"refused"}


def test_36_field_lengths_of_gigabytes_are_refused_before_any_allocation(case: Case) -> None:
    sealed = seal(case.a, case.honest["a"])
    fields = (sealed.header, sealed.wrap, sealed.signature, sealed.chunks)
    tracemalloc.start()
    for index in range(4):
        data = enc(*fields[:index]) + struct.pack(">I", 2**32 - 1) + fields[index]
        with pytest.raises(MessageError):
            case.enclave.upload(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(sealed.to_bytes()) + 64 * 1024


def test_37_wrapped_key_with_a_zero_point_or_of_another_size_is_refused(case: Case) -> None:
    sealed = seal(case.a, case.honest["a"])
    zero = signed_upload(sealed.header, bytes(32) + sealed.wrap[32:], sealed.chunks, case.a.identity)
    assert send(case.enclave, case.a, zero).status == "refused"
    assert (
        send(
            case.enclave, case.a, signed_upload(sealed.header, bytes(WRAP_SIZE), sealed.chunks, case.a.identity)
        ).status
        == "refused"
    )
    for size in (0, 31, WRAP_SIZE - 1):
        with pytest.raises(MessageError):
            case.enclave.upload(
                signed_upload(sealed.header, sealed.wrap[:size], sealed.chunks, case.a.identity).to_bytes()
            )


def test_37_key_wrapped_under_another_context_is_refused(case: Case) -> None:
    header = UploadHeader.from_bytes(seal(case.a, case.honest["a"]).header)
    assert case.a.welcome is not None
    for info in (b"", replace(header, attempt=2).info, replace(header, round=2).info, header.info + b"\0"):
        key = new_content_key()
        wrap = wrap_key(key, case.a.welcome.recipient, info)
        chunks = encrypt_chunks(key, case.honest["a"].to_bytes())
        assert (
            send(case.enclave, case.a, signed_upload(header.to_bytes(), wrap, chunks, case.a.identity)).status
            == "refused"
        )


# ---- plaintext ----


class _Marker:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def payload_from(case: Case, data: bytes) -> bytes:
    """`data` filled up, or cut, to the one length that a payload may have."""
    length = len(case.honest["a"].to_bytes())
    return (data + bytes(length))[:length]


def test_38_pickle_bytes_are_refused_and_not_run(case: Case, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bomb = pickle.dumps(_Marker(marker), protocol)
        assert upload(case.enclave, case.a, payload_from(case, bomb)) == "refused"
        with pytest.raises(MessageError):
            case.enclave.upload(bomb)
        with pytest.raises(MessageError):
            case.enclave.hello(bomb)
        with pytest.raises(MessageError):
            case.enclave.sync(bomb)
    assert not marker.exists()


def test_39_other_serialisations_are_refused(case: Case) -> None:
    """safetensors with an honest and with a 101 MB header, npy, JSON: only this run's own form is read."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    npy = io.BytesIO()
    np.save(npy, case.a.weights["w"])
    for data in (
        struct.pack("<Q", len(header)) + header + bytes(8),
        struct.pack("<Q", 101 * 2**20) + header,
        npy.getvalue(),
        json.dumps({"round": 1}).encode(),
        bytes(10),
        b"\xff" * 5000,
    ):
        assert upload(case.enclave, case.a, payload_from(case, data)) == "refused"


def test_40_entries_of_another_type_or_size_are_refused(case: Case) -> None:
    drift = np.concatenate([values.reshape(-1) for values in case.a.drift.values()])
    for other in (drift.astype("<f8"), drift.astype("<f2"), np.ones(drift.size, "<i8"), drift[:-1], drift[:0]):
        update = replace(case.honest["a"], body=other.tobytes())
        try:
            assert upload(case.enclave, case.a, update) == "refused"
        except MessageError:
            assert other.nbytes > drift.nbytes  # longer than any upload of this run
        padded = payload_from(case, update.to_bytes())
        assert upload(case.enclave, case.a, padded) == "refused"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 32.001, -33.0])
def test_41_entries_that_are_not_finite_or_too_large_are_refused(case: Case, value: float) -> None:
    for name, values in case.a.drift.items():
        bad = values.copy()
        bad.reshape(-1)[-1] = value
        update = replace(case.honest["a"], body=case.body(**{name: bad}))
        assert upload(case.enclave, case.a, update) == "refused"
    assert case.enclave.accepted == ()


def test_41_denormals_are_accepted(tmp_path: Path) -> None:
    case = Case(tmp_path)
    tiny = np.full(case.a.drift["b"].shape, 1e-42, np.float32)
    update = replace(case.honest["a"], body=case.body(b=tiny))
    assert upload(case.enclave, case.a, update) == "accepted"


@pytest.mark.parametrize("count", [0, MAX_EXAMPLES + 1, 2**63 - 1, 2**63, 2**64 - 5])
def test_42_sample_counts_of_zero_huge_or_negative_are_refused(case: Case, count: int) -> None:
    assert upload(case.enclave, case.a, replace(case.honest["a"], num_examples=count)) == "refused"
    assert case.enclave.accepted == ()


def test_42_a_cohort_cannot_overflow_the_sum(tmp_path: Path) -> None:
    start = {"w": np.zeros(3, np.float32)}
    ids = [f"{index:02d}" for index in range(33)]
    run = Federation(tmp_path, dense_codec(start), start, ids)
    statuses = []
    for member in run.members.values():
        member.examples = MAX_EXAMPLES
        member.weights = {"w": np.array([32, -32, 32], np.float32)}
        hello(run.enclave, member)
        body = run.codec.encode(member.weights, member.common, np.random.default_rng(0))
        member.pending = new_update(member, body)
        statuses.append(upload(run.enclave, member, member.pending))
    assert statuses == ["accepted"] * 33  # whom one came after is no reason to refuse it
    run.close()
    run.adopt(["00"])
    np.testing.assert_array_equal(decode(run.codec.answer, run.answers[1])["w"], [32, -32, 32])


def test_43_compressed_payloads_are_refused_unopened(case: Case) -> None:
    bomb = gzip.compress(bytes(50 * 2**20), 9)[: len(case.honest["a"].to_bytes())]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w", bytes(2**20))
    sealed = [seal(case.a, payload_from(case, data)) for data in (bomb, archive.getvalue())]
    tracemalloc.start()
    statuses = {send(case.enclave, case.a, upload).status for upload in sealed}
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert statuses == {"refused"}
    assert peak < 256 * 1024


def test_a_different_common_model_is_refused(case: Case) -> None:
    moved = {name: values + np.float32(2.0**-20) for name, values in case.a.common.items()}
    for common in (weights_digest(moved), bytes(32)):
        assert upload(case.enclave, case.a, replace(case.honest["a"], common_digest=common)) == "refused"
    assert case.enclave.accepted == ()


def test_the_common_model_of_later_rounds_is_the_one_most_clients_hold(tmp_path: Path) -> None:
    start = start_weights()
    run = Federation(tmp_path, dense_codec(start), start)
    train(run.members.values(), 0)
    run.exchange("abc")
    odd = run.members["a"]
    odd.common = {name: values + np.float32(1) for name, values in odd.common.items()}
    run.greet("bca")
    assert run.contribute("abc") == ["refused", "accepted", "accepted"]
    run.close()
    run.adopt("bc")
    assert [client for client, _ in run.manifests[2].uploads] == ["b", "c"]


def test_refusals_tell_nothing_about_what_was_inside(case: Case) -> None:
    """Receipts of unlike refusals differ in nothing but the digest of what was sent."""
    nan = case.body(b=np.full(case.a.drift["b"].shape, np.nan, np.float32))
    update = case.honest["a"]
    bad = [
        seal(case.a, payload_from(case, b"")),
        seal(case.a, replace(update, body=nan)),
        seal(case.a, replace(update, num_examples=0)),
        seal(case.a, replace(update, common_digest=bytes(32))),
    ]
    receipts = [send(case.enclave, case.a, sealed) for sealed in bad]
    assert len({replace(receipt, upload_digest=b"") for receipt in receipts}) == 1
    assert len({len(sealed.to_bytes()) for sealed in [*bad, seal(case.a, update)]}) == 1


def test_receipts_name_what_they_are_for_and_verify_under_this_boot_only(case: Case) -> None:
    sealed = seal(case.a, case.honest["a"])
    receipt = send(case.enclave, case.a, sealed)
    assert (receipt.run_id, receipt.boot_id) == (case.run.config.run_id, case.enclave.boot_id)
    assert (receipt.round, receipt.client_id, receipt.status) == (1, "a", "accepted")
    assert receipt.upload_digest == digest(SealedUpdate.to_sign(sealed.header, sealed.wrap, sealed.chunks))


# ---- terms ----


def test_terms_come_back_and_their_digest_covers_every_one(tmp_path: Path) -> None:
    start = start_weights()
    keys = {client: Identity.generate() for client in "abc"}
    terms = make_config(keys, dense_codec(start), start)
    assert type(terms).from_bytes(terms.to_bytes()) == terms
    layout = dense_layout(specs_of(start), "float16")
    changes: list[dict[str, Any]] = [
        *({"run_id": bytes(16)}, {"provider": "gramine-dcap"}, {"experiment": bytes([1] * 32)}),
        *({"common_digest": bytes(32)}, {"roster": terms.roster[:2]}, {"min_clients": 1}),
        *({"max_share_ppm": 500_000}, {"rounds": 19}, {"seed": 4}, {"upload": layout}, {"answer": layout}),
        *({"trained": 1, "carry_ppm": 0}, {"trained": 2, "carry_ppm": 0}, {"trained": 1, "carry_ppm": 1}),
    ]
    assert len({terms.digest, *(replace(terms, **change).digest for change in changes)}) == len(changes) + 1


KEYS = [bytes([index]) * 32 for index in range(4)]


@pytest.mark.parametrize(
    "change",
    [
        {"roster": ()},
        {"roster": (("b", KEYS[0]), ("a", KEYS[1]))},
        {"roster": (("a", KEYS[0]), ("a", KEYS[1]))},
        {"roster": (("a", KEYS[0]), ("b", KEYS[0]))},
        {"roster": (("a", KEYS[0]), ("b", KEYS[1][:31]))},
        {"roster": tuple((f"{index:05d}", index.to_bytes(32, "big")) for index in range(10_001))},
        {"min_clients": 0},
        {"min_clients": 4},
        {"max_share_ppm": 499_999},
        {"max_share_ppm": 1_000_001},
        {"answer": dense_layout(specs_of(start_weights(0, {"w": (12, 10), "v": (10, 8)})))},
        {"answer": dense_layout(specs_of(start_weights(0, {"w": (10, 12), "v": (10, 8), "b": (9,)})))},
        {"answer": dense_layout(specs_of(start_weights(0, {"x": (12, 10), "v": (10, 8), "b": (9,)})))},
        {"upload": dense_layout([])},
        {"trained": 1},
        {"trained": 10_000, "carry_ppm": 0},
    ],
    ids=[
        *("no client", "unsorted", "a client twice", "a key twice", "a short key", "too long", "no minimum"),
        *("more than there are", "small share", "share over one", "a tensor less", "transposed", "another name"),
        *("nothing up", "nothing fades", "trained after the end"),
    ],
)
def test_terms_under_which_a_run_could_not_be_safe_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    start = start_weights()
    terms = make_config({client: Identity.generate() for client in "abc"}, dense_codec(start), start)
    terms.check()
    bad = replace(terms, **change)
    with pytest.raises(ProtocolError):
        bad.check()
    with pytest.raises((ProtocolError, MessageError)):
        type(terms).from_bytes(bad.to_bytes())
