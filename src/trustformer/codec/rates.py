# SPDX-License-Identifier: Apache-2.0
"""Which part of a model travels how finely.

The same error costs some parts of a Transformer far more than others: bits go where they count. On a translation model
(`benchmarks/screening/sensitivity.py`), noise on the embeddings of the 250 most frequent tokens costs five to eleven
times what it costs on a decoder's matrices, and on an encoder's a half to an eighth of that.

    the first 1/16 of a vocabulary matrix's rows, and one-dimensional parameters     blocks of half of `block` entries
    an encoder that stands beside a decoder          twice `block`
    everything else                                  `block`

Tokenizers number frequent tokens first, so the first rows are theirs. Parts of one kind share a codebook: drifts
divided by their scale look alike all over the model, and a codebook of its own for every matrix would be a large part
of a small model's message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trustformer.codec.weights import Weights
from trustformer.message import Codebook, Group, Layout, TensorSpec

_TALL = 8
"""A matrix with more rows than so many times its columns is a vocabulary's; feed-forward ones have about four times."""
_FREQUENT = 16
"""One in so many rows of it travels more finely."""
_ADAPTER = "lora_"
"""How peft's names of an adapter's tensors begin: its B (outputs, rank) is tall, and no vocabulary's."""


def rated_layout(tensors: Sequence[TensorSpec], coding: Codebook) -> Layout:
    """Return codebook groups; tall matrices are cut in two pieces, named `NAME[0:n]` and `NAME[n:R]`.

    Args:
        tensors: of the model.
        coding: of most matrices.
    """
    fine = Codebook(max(1, coding.block // 2), coding.clusters)
    coarse = Codebook(2 * coding.block, coding.clusters)
    paired = all(any(_in_layers(spec.name, side) for spec in tensors) for side in ("encoder", "decoder"))
    groups: dict[str, tuple[Codebook, list[TensorSpec]]] = {
        "frequent": (fine, []),
        "vectors": (fine, []),
        "encoder": (coarse, []),
        "rest": (coding, []),
    }
    for spec in tensors:
        first, rest = _cut(spec)
        if first is not None:
            groups["frequent"][1].append(first)
        encoder = paired and "encoder" in spec.name.split(".")
        groups["vectors" if len(spec.shape) == 1 else "encoder" if encoder else "rest"][1].append(rest)
    return Layout(tuple(Group(kind, tuple(members)) for kind, members in groups.values() if members))


def _in_layers(name: str, side: str) -> bool:
    """Whether a tensor is of a numbered layer of a side; the `decoder` of BERT's head is a single matrix."""
    parts = name.split(".")
    return side in parts and any(part.isdecimal() for part in parts[parts.index(side) :])


def _cut(spec: TensorSpec) -> tuple[TensorSpec | None, TensorSpec]:
    rows, *others = spec.shape
    adapter = any(part.startswith(_ADAPTER) for part in spec.name.split("."))
    if adapter or len(spec.shape) != 2 or rows <= _TALL * others[0]:
        return None, spec
    at = -(-rows // _FREQUENT)
    return (
        TensorSpec(f"{spec.name}[0:{at}]", (at, *others)),
        TensorSpec(f"{spec.name}[{at}:{rows}]", (rows - at, *others)),
    )


def whole_name(name: str) -> str:
    """Name of the tensor that a piece is of."""
    return name.partition("[")[0]


def pieces(layout: Layout, tensors: Mapping[str, np.ndarray]) -> Weights:
    """Return the tensors of a layout, whose names may ask for some rows of a model's tensor only."""
    parts = {}
    for spec in layout.tensors:
        name, _, rows = spec.name.partition("[")
        values = tensors[name]
        if rows:
            first, end = rows.rstrip("]").split(":")
            values = values[int(first) : int(end)]
        parts[spec.name] = values
    return parts


def join(parts: Weights) -> Weights:
    """Return whole tensors from the pieces of a layout."""
    found: dict[str, dict[int, np.ndarray]] = {}
    for name, values in parts.items():
        rows = name.partition("[")[2]
        found.setdefault(whole_name(name), {})[int(rows.partition(":")[0] or 0)] = values
    return {
        name: next(iter(rows.values())) if len(rows) == 1 else np.concatenate([rows[at] for at in sorted(rows)])
        for name, rows in found.items()
    }
