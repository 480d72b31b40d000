# SPDX-License-Identifier: Apache-2.0
"""Tensors to the body of a message and back, in the form a `Layout` gives.

A codebook group travels as

    scale    fp32: by what centroids are multiplied to be read
    C_KD     K x D fp16 centroids, each the exact mean of its blocks divided by their root mean square, rounded
    codes    ceil(log2 K) bits a block, most significant bit first, padded to a byte

Means of many blocks are shorter than the blocks: of the energy of x they keep a share f. So the scale is the root mean
square of the group times a gain g = min(f^-1/2, 3/2), with which a message is as long as what it describes (where f is
at least 4/9, shorter below) and says g f of it in place of f; what it leaves out is 1 - f (2 g - g²), little more than
1 - f, and never more than x itself.
One scale for the group, not one a tensor, so that what was decoded once is coded again exactly where blocks divide
every tensor (a last block cut short makes more blocks than K).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from trustformer.errors import MessageError
from trustformer.message import Codebook, Dense, Group, Layout, TensorSpec
from trustformer.vq.kmeans import Array, Codes, Nearest, assign, cluster_means, kmeans

MAX_ABS = 32.0
"""Largest magnitude of an entry that may travel. A drift of one round is about 1e-2, a weight about 1."""
_MAX_GAIN = 1.5
"""Largest gain. A gain of 2 would send back the mirror image of what a message left out, which then never shrinks."""


def body_size(layout: Layout) -> int:
    """Length in bytes of a message body: depends on the layout alone, never on the data."""
    return sum(_group_size(group) for group in layout.groups)


def encode(layout: Layout, tensors: Mapping[str, Array], rng: np.random.Generator, nearest: Nearest = assign) -> bytes:
    """Code the tensors of `layout`, float32 of the stated shapes; at most one pooled copy of a group is held.

    Another `nearest` than numpy's may decide near ties otherwise, and then gives another message, as good.

    Raises:
        MessageError: an entry is NaN, infinite or larger than `MAX_ABS`; names the tensor.
    """
    parts = []
    for group in layout.groups:
        for spec in group.tensors:
            _check(spec, tensors[spec.name])
        if isinstance(group.coding, Dense):
            parts += [tensors[spec.name].astype(_wire_dtype(group.coding)).tobytes() for spec in group.tensors]
        else:
            parts.append(_encode_codebook(group, group.coding, tensors, rng, nearest))
    body = b"".join(parts)
    assert len(body) == body_size(layout)
    return body


def decode(layout: Layout, body: bytes | memoryview) -> dict[str, Array]:
    """Return the tensors a body stands for, float32; the same bits on every machine.

    Raises:
        MessageError: wrong length, a code that is no centroid, or an entry NaN, infinite or over `MAX_ABS`.
    """
    view = memoryview(body)
    if len(view) != body_size(layout):
        raise MessageError(f"body: {len(view)} bytes where the layout gives {body_size(layout)}")
    tensors: dict[str, Array] = {}
    at = 0
    for group in layout.groups:
        size = _group_size(group)
        part = view[at : at + size]
        at += size
        slack = 1.0
        if isinstance(group.coding, Dense):
            _decode_dense(group, group.coding, part, tensors)
        else:
            _decode_codebook(group, group.coding, part, tensors)
            slack += 2**-9  # a centroid may have been rounded up
        for spec in group.tensors:
            _check(spec, tensors[spec.name], slack)
    return tensors


def _check(spec: TensorSpec, values: npt.NDArray[np.floating], slack: float = 1.0) -> None:
    if values.shape != spec.shape:
        raise MessageError(f"tensor {spec.name!r} has the shape {values.shape}, the layout says {spec.shape}")
    if not (values.max() <= MAX_ABS * slack and values.min() >= -MAX_ABS * slack):  # also true for NaN
        raise MessageError(
            f"tensor {spec.name!r} holds NaN, infinity or an entry over {MAX_ABS:g}",
            "local training has probably diverged: lower train.learning_rate",
        )


def _wire_dtype(coding: Dense) -> str:
    return "<f4" if coding.dtype == "float32" else "<f2"


def _blocks_of(spec: TensorSpec, block: int) -> int:
    return -(-spec.size // block)


def _code_bits(n_clusters: int) -> int:
    return (n_clusters - 1).bit_length()


def _codebook_sizes(group: Group, coding: Codebook) -> tuple[int, int, int]:
    """Number of blocks N, of centroids K and of bits a code."""
    n_blocks = sum(_blocks_of(spec, coding.block) for spec in group.tensors)
    n_clusters = min(coding.clusters, n_blocks)
    return n_blocks, n_clusters, _code_bits(n_clusters)


def _group_size(group: Group) -> int:
    coding = group.coding
    if isinstance(coding, Dense):
        return sum(spec.size for spec in group.tensors) * (4 if coding.dtype == "float32" else 2)
    n_blocks, n_clusters, bits = _codebook_sizes(group, coding)
    return 4 + 2 * n_clusters * coding.block + -(-n_blocks * bits // 8)


def _encode_codebook(
    group: Group, coding: Codebook, tensors: Mapping[str, Array], rng: np.random.Generator, nearest: Nearest
) -> bytes:
    n_blocks, n_clusters, bits = _codebook_sizes(group, coding)
    X_ND = np.zeros((n_blocks, coding.block), np.float32)
    energy, row = 0.0, 0
    for spec in group.tensors:
        count = _blocks_of(spec, coding.block)
        X_ND[row : row + count].reshape(-1)[: spec.size] = tensors[spec.name].reshape(-1)
        energy += float(np.sum(np.square(tensors[spec.name], dtype=np.float64)))
        row += count
    entries = sum(spec.size for spec in group.tensors)
    scale = np.array(np.sqrt(energy / entries), "<f4")
    if scale > 0:
        X_ND /= scale
    codes = nearest(X_ND, kmeans(X_ND, n_clusters, rng, nearest))
    C_KD, counts_K = cluster_means(X_ND, codes, n_clusters)
    kept = float((counts_K * np.einsum("kd,kd->k", C_KD, C_KD, dtype=np.float64)).sum())
    if kept > 0 and scale > 0:  # energy of subnormal entries alone has none
        room = MAX_ABS / (float(scale) * float(np.abs(C_KD).max()))
        scale *= np.float32(min((entries / kept) ** 0.5, _MAX_GAIN, max(room, 1.0)))
    return scale.tobytes() + C_KD.astype("<f2").tobytes() + _pack(codes, bits)


def _decode_dense(group: Group, coding: Dense, part: memoryview, tensors: dict[str, Array]) -> None:
    dtype = np.dtype(_wire_dtype(coding))
    at = 0
    for spec in group.tensors:
        values = np.frombuffer(part, dtype, spec.size, at)
        tensors[spec.name] = values.astype(np.float32).reshape(spec.shape)
        at += spec.size * dtype.itemsize


def _decode_codebook(group: Group, coding: Codebook, part: memoryview, tensors: dict[str, Array]) -> None:
    n_blocks, n_clusters, bits = _codebook_sizes(group, coding)
    scale = np.frombuffer(part, "<f4", 1)
    C_KD = np.frombuffer(part, "<f2", n_clusters * coding.block, 4).astype(np.float32)
    codes = _unpack(part[4 + 2 * C_KD.size :], bits, n_blocks)
    if codes.max() >= n_clusters:
        raise MessageError(f"body: code {codes.max()} where there are {n_clusters} centroids")
    with np.errstate(over="ignore", invalid="ignore"):  # refused by _check, which names the tensor
        C_KD = C_KD.reshape(n_clusters, coding.block) * scale
    row = 0
    for spec in group.tensors:
        count = _blocks_of(spec, coding.block)
        tensors[spec.name] = C_KD[codes[row : row + count]].reshape(-1)[: spec.size].reshape(spec.shape)
        row += count


def _pack(codes: Codes, bits: int) -> bytes:
    if bits == 8:
        return codes.astype(np.uint8).tobytes()
    flags = np.empty((len(codes), bits), np.uint8)
    for column in range(bits):  # a column at a time: all at once would take 8 bytes a bit
        flags[:, column] = codes >> (bits - 1 - column) & 1
    return np.packbits(flags).tobytes()


def _unpack(data: memoryview, bits: int, count: int) -> Codes:
    raw = np.frombuffer(data, np.uint8)
    if bits == 8:
        return raw.astype(np.int64)
    flags = np.unpackbits(raw)
    if flags[count * bits :].any():
        raise MessageError("body: the padding after the codes is not zero")
    codes = np.zeros(count, np.int64)
    for column in flags[: count * bits].reshape(count, bits).T:
        codes <<= 1
        codes |= column
    return codes
