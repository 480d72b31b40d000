# SPDX-License-Identifier: Apache-2.0
"""Fields, layouts, updates: one form for one meaning, and nothing else is read."""

from __future__ import annotations

import pickle
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from enclave_kit import codebook_layout
from hypothesis import given, settings
from hypothesis import strategies as st

from trustformer.codec.rates import rated_layout
from trustformer.codec.weights import dense_layout, weights_digest
from trustformer.errors import MessageError
from trustformer.message import (
    MAX_ENTRIES,
    MAX_EXAMPLES,
    MAX_TENSORS,
    Aggregate,
    Codebook,
    Dense,
    Group,
    Layout,
    Reader,
    TensorSpec,
    Update,
    digest,
    enc,
)
from trustformer.vq import body_size, decode, encode

FIELDS = st.lists(st.one_of(st.binary(max_size=9), st.text(max_size=5), st.integers(0, 2**64 - 1)), max_size=6)


def wire(field: bytes | str | int) -> bytes:
    if isinstance(field, int):
        return struct.pack(">Q", field)
    return field.encode() if isinstance(field, str) else field


# ---- fields ----


def test_encoding_of_fields_is_the_documented_one() -> None:
    assert enc() == b""
    assert enc("ab", b"", 258).hex() == "00000002" + "6162" + "00000000" + "00000008" + "0000000000000102"


def test_digest_is_sha512_256() -> None:
    assert digest(b"abc").hex() == "53048e2681941ef99b2e29b76b4c7dabe4c2d0c634fc6d46e0e2f13107e7af23"


@given(FIELDS, FIELDS)
@settings(deadline=None)
def test_lists_of_other_fields_never_give_the_same_bytes(left: list[bytes], right: list[bytes]) -> None:
    assert (enc(*left) == enc(*right)) == ([wire(x) for x in left] == [wire(x) for x in right])


@given(FIELDS)
@settings(deadline=None)
def test_reader_returns_what_was_encoded(fields: list[bytes | str | int]) -> None:
    reader = Reader(enc(*fields), "test")
    for field in fields:
        assert reader.more()
        if isinstance(field, int):
            assert reader.integer(2**64 - 1) == field
        else:
            assert reader.text() == field if isinstance(field, str) else reader.raw(limit=9) == field
    reader.end()


@pytest.mark.parametrize(
    ("data", "read"),
    [
        (b"\0\0\0", lambda r: r.raw(limit=9)),
        (b"\0\0\0\2a", lambda r: r.raw(limit=9)),
        (enc(b"abc"), lambda r: r.raw(limit=2)),
        (enc(b"abc"), lambda r: r.raw(limit=9, exactly=4)),
        (enc(bytes(31)), lambda r: r.bytes32()),
        (enc(bytes(33)), lambda r: r.bytes32()),
        (enc(bytes(7)), lambda r: r.integer()),
        (enc(2**63), lambda r: r.integer()),
        (enc(5), lambda r: r.integer(4)),
        (enc(b"\xff\xfe"), lambda r: r.text()),
        (enc(b"\xed\xa0\x80"), lambda r: r.text()),
        (enc("x" * 129), lambda r: r.text()),
        (enc("tfl/2 update"), lambda r: r.label("tfl/1 update")),
        (enc("tfl/1 update "), lambda r: r.label("tfl/1 update")),
        (enc("x"), lambda r: r.end()),
    ],
)
def test_reader_refuses(data: bytes, read: Callable[[Reader], object]) -> None:
    with pytest.raises(MessageError, match="test"):
        read(Reader(data, "test"))


def test_claimed_lengths_are_refused_before_anything_is_allocated() -> None:
    data = b"\xff\xff\xff\xf0" + bytes(100)
    tracemalloc.start()
    for limit in (64, 2**32 - 1, 2**63):
        with pytest.raises(MessageError):
            Reader(data, "test").raw(limit=limit)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 1024


# ---- updates and aggregates ----


UPDATE = Update(3, bytes(range(32)), 77, b"\5" * 32, b"body" * 10)


def test_update_and_aggregate_come_back() -> None:
    assert Update.from_bytes(UPDATE.to_bytes(), 40) == UPDATE
    assert Update.from_bytes(memoryview(UPDATE.to_bytes()), 40) == UPDATE
    assert len(UPDATE.to_bytes()) == Update.length(40)
    answer = Aggregate(3, b"x" * 9)
    assert Aggregate.from_bytes(answer.to_bytes(), 9) == answer


def test_commitment_covers_every_field() -> None:
    changes = [{"round": 4}, {"common_digest": bytes(32)}, {"num_examples": 78}, {"salt": bytes(32)}, {"body": b""}]
    fields = {name: getattr(UPDATE, name) for name in ("round", "common_digest", "num_examples", "salt", "body")}
    assert len({UPDATE.commitment, *(Update(**(fields | change)).commitment for change in changes)}) == 6


@pytest.mark.parametrize("message", [UPDATE, Aggregate(1, b"y" * 40)], ids=["update", "aggregate"])
def test_truncated_at_any_byte_or_longer_is_refused(message: Update | Aggregate) -> None:
    data = message.to_bytes()
    for cut in range(len(data)):
        with pytest.raises(MessageError):
            type(message).from_bytes(data[:cut], 40)
    for more in (b"\0", enc(b""), data):
        with pytest.raises(MessageError):
            type(message).from_bytes(data + more, 40)


@pytest.mark.parametrize("size", [0, 39, 41, 2**40])
def test_body_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(MessageError):
        Update.from_bytes(UPDATE.to_bytes(), size)
    with pytest.raises(MessageError):
        Aggregate.from_bytes(Aggregate(1, b"y" * 40).to_bytes(), size)


@pytest.mark.parametrize("count", [0, MAX_EXAMPLES + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_a_count_of_zero_or_too_many_examples_is_refused(count: int) -> None:
    data = Update(1, bytes(32), count, bytes(32), b"").to_bytes()
    with pytest.raises(MessageError):
        Update.from_bytes(data, 0)
    assert Update.from_bytes(Update(1, bytes(32), MAX_EXAMPLES, bytes(32), b"").to_bytes(), 0)


def test_a_negative_count_cannot_be_written_and_its_bytes_are_refused() -> None:
    raw = struct.pack(">q", -5)
    with pytest.raises(MessageError):
        Update.from_bytes(enc("tfl/1 update", 1, bytes(32), raw, bytes(32), b""), 0)


# ---- layouts ----


def names() -> st.SearchStrategy[list[str]]:
    return st.lists(st.text(min_size=1, max_size=6), min_size=1, max_size=5, unique=True)


@given(names(), st.integers(0, 2**32))
@settings(deadline=None)
def test_layouts_come_back_and_equal_bytes_mean_equal_layouts(tensors: list[str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    specs = [TensorSpec(name, tuple(map(int, rng.integers(1, 9, rng.integers(1, 5))))) for name in tensors]
    layouts = [dense_layout(specs), dense_layout(specs, "float16"), codebook_layout(specs, 3, 7)]
    layouts += [rated_layout(specs, Codebook(8, 256)), codebook_layout(specs, 7, 3)]
    for layout in layouts:
        assert Layout.from_bytes(layout.to_bytes()) == layout
    assert len({layout.to_bytes() for layout in layouts}) == len(set(layouts))


@pytest.mark.parametrize(
    "coding",
    [
        ("dense", "float64", 0, 0),
        ("dense", "int64", 0, 0),
        ("dense", "float32", 1, 0),
        ("dense", "float32", 0, 1),
        ("codebook", "float32", 4, 8),
        ("codebook", "float16", 0, 8),
        ("codebook", "float16", 4, 0),
        ("codebook", "float16", 2**16 + 1, 8),
        ("codebook", "float16", 4, 2**16 + 1),
        ("pickle", "float16", 4, 8),
    ],
)
def test_unknown_codings_are_refused(coding: tuple[str, str, int, int]) -> None:
    with pytest.raises(MessageError):
        Layout.from_bytes(enc("tfl/1 layout", 1, *coding, 1, "w", 1, 4))


@pytest.mark.parametrize(
    "tensors",
    [
        (0,),
        (1, "w", 0),
        (1, "w", 9, *[1] * 9),
        (1, "w", 65, *[1] * 65),
        (1, "w", 2, 4, 0),
        (1, "w", 2, 2**40, 0),
        (1, "w", 1, MAX_ENTRIES + 1),
        (1, "w", 2, 2**20, 2**20),
        (1, "w" * 513, 1, 4),
        (2, "w", 1, 4, "w", 1, 4),
        (2, "w", 1, 4),
        (MAX_TENSORS + 1, *[part for i in range(MAX_TENSORS + 1) for part in (f"w{i}", 1, 1)]),
        (200_000,),
        (2**63,),
    ],
)
def test_malformed_tensors_are_refused(tensors: tuple[int | str, ...]) -> None:
    with pytest.raises(MessageError):
        Layout.from_bytes(enc("tfl/1 layout", 1, "dense", "float32", 0, 0, *tensors))


def test_too_many_tensors_over_several_groups_are_refused() -> None:
    first = [part for i in range(4096) for part in (f"w{i}", 1, 1)]
    with pytest.raises(MessageError, match="too many tensors"):
        Layout.from_bytes(
            enc("tfl/1 layout", 2, "dense", "float32", 0, 0, 4096, *first, "dense", "float32", 0, 0, 1, "x", 1, 1)
        )


def test_a_layout_truncated_at_any_byte_or_longer_is_refused() -> None:
    data = Layout(
        (
            Group(Codebook(4, 8), (TensorSpec("w", (3, 4)), TensorSpec("é", (4, 3)))),
            Group(Dense("float16"), (TensorSpec("b", (5,)),)),
        )
    ).to_bytes()
    for cut in range(len(data)):
        with pytest.raises(MessageError):
            Layout.from_bytes(data[:cut])
    with pytest.raises(MessageError):
        Layout.from_bytes(data + b"\0")


def test_digest_of_weights_ignores_order_and_sees_every_bit_name_and_shape() -> None:
    rng = np.random.default_rng(0)
    weights = {"a": rng.random((2, 3), np.float32), "b": rng.random(4, np.float32)}
    assert weights_digest(weights) == weights_digest(dict(reversed(weights.items())))
    flipped = {"a": weights["a"].copy(), "b": weights["b"]}
    flipped["a"][1, 2] = np.nextafter(flipped["a"][1, 2], np.float32(2))
    others = [flipped, {"a": weights["a"].T.copy(), "b": weights["b"]}, {"a": weights["a"], "c": weights["b"]}]
    assert weights_digest(weights) not in {weights_digest(other) for other in others}


# ---- bodies ----

SPEC = [TensorSpec("w", (4, 6))]
CODEBOOK = codebook_layout(SPEC, 4, 5)  # 6 blocks, 5 centroids, 3 bits: 18 bits of codes and 6 of padding


def body_with(*, scale: float = 1.0, centroid: float = 1.0, codes: bytes = bytes(3)) -> bytes:
    C_KD = np.full((5, 4), 0.5, "<f2")
    with np.errstate(over="ignore"):
        C_KD[0] = centroid
    return np.array([scale], "<f4").tobytes() + C_KD.tobytes() + codes


def test_a_body_made_by_hand_decodes() -> None:
    codes = int("000001010100000011000000", 2).to_bytes(3, "big")
    values = decode(CODEBOOK, body_with(scale=2.0, centroid=3.0, codes=codes))["w"].reshape(6, 4)
    np.testing.assert_array_equal(values[:, 0], [6, 1, 1, 1, 6, 1])


@pytest.mark.parametrize("size", [-1, 1])
def test_a_body_one_byte_off_is_refused(size: int) -> None:
    for layout in (CODEBOOK, dense_layout(SPEC), dense_layout(SPEC, "float16")):
        with pytest.raises(MessageError, match="bytes where the layout gives"):
            decode(layout, bytes(body_size(layout) + size))


@pytest.mark.parametrize("code", [5, 6, 7])
@pytest.mark.parametrize("block", [0, 3, 5])
def test_a_code_that_is_no_centroid_is_refused(code: int, block: int) -> None:
    codes = (code << (21 - 3 * block)).to_bytes(3, "big")
    with pytest.raises(MessageError, match=f"code {code} where there are 5 centroids"):
        decode(CODEBOOK, body_with(codes=codes))


@pytest.mark.parametrize("bit", range(6))
def test_padding_that_is_not_zero_is_refused(bit: int) -> None:
    with pytest.raises(MessageError, match="padding"):
        decode(CODEBOOK, body_with(codes=(1 << bit).to_bytes(3, "big")))


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 1e38, -1e38, 33.0])
def test_a_scale_that_is_not_finite_or_too_large_is_refused(scale: float) -> None:
    with pytest.raises(MessageError, match="'w'"):
        decode(CODEBOOK, body_with(scale=scale))


@pytest.mark.parametrize("bits", [0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFC01, 0x7BFF])
def test_a_centroid_that_is_not_finite_or_too_large_is_refused(bits: int) -> None:
    body = bytearray(body_with())
    body[4:6] = bits.to_bytes(2, "little")
    with pytest.raises(MessageError, match="'w'"):
        decode(CODEBOOK, bytes(body))


@pytest.mark.parametrize(
    ("dtype", "bits"),
    [
        *(
            ("<u4", bits)
            for bits in (0x7FC00000, 0x7F800001, 0xFF800001, 0x7F800000, 0xFF800000, 0x42000001, 0x7E967699)
        ),
        *(("<u2", bits) for bits in (0x7E00, 0x7C01, 0x7C00, 0xFC00, 0x5001, 0xD001)),
    ],
)
def test_dense_entries_that_may_not_travel_are_refused(dtype: str, bits: int) -> None:
    layout = dense_layout(SPEC, "float32" if dtype == "<u4" else "float16")
    raw = np.zeros(24, dtype)
    raw[13] = bits
    with pytest.raises(MessageError, match="'w'"):
        decode(layout, raw.tobytes())


def test_denormals_and_the_largest_magnitude_are_accepted() -> None:
    raw = np.zeros(24, "<u4")
    raw[:3] = (1, 0x80000001, 0x007FFFFF)
    raw[3:5] = np.array([32.0, -32.0], "<f4").view("<u4")
    assert decode(dense_layout(SPEC), raw.tobytes())["w"].astype("<f4").tobytes() == raw.tobytes()
    halves = np.array([1, 0x8001, 0x5000, 0xD000] * 6, "<u2")
    np.testing.assert_array_equal(
        decode(dense_layout(SPEC, "float16"), halves.tobytes())["w"].reshape(-1),
        halves.view("<f2").astype(np.float32),
    )


class _Marker:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_pickle_bytes_are_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        bomb = pickle.dumps(_Marker(marker), protocol)
        padded = bomb + b"\x7f" * (body_size(CODEBOOK) - len(bomb) % body_size(CODEBOOK))
        for data in (bomb, padded, padded[: body_size(CODEBOOK)]):
            with pytest.raises(MessageError):
                Update.from_bytes(data, len(data))
            with pytest.raises(MessageError):
                Layout.from_bytes(data)
            with pytest.raises(MessageError):
                decode(CODEBOOK, data)
        body = (bomb * 9)[: 4 * 24]
        with pytest.raises(MessageError):
            decode(dense_layout(SPEC), body[:-1] + b"\x7f")
    assert not marker.exists()


def test_encoding_and_decoding_read_nothing_but_the_layout() -> None:
    values = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    body = encode(CODEBOOK, {"w": values, "not in the layout": values}, np.random.default_rng(0))
    assert decode(CODEBOOK, memoryview(body)).keys() == {"w"}
