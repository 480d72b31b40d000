# SPDX-License-Identifier: Apache-2.0
"""The tensors of a run: how each travels, how many bytes it takes, and how much of its drift arrives."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any

from torch import nn

from trustformer.codec.partition import BODY, PartitionCodec
from trustformer.codec.rates import whole_name
from trustformer.codec.weights import Weights
from trustformer.federation.client import Client
from trustformer.message import Layout
from trustformer.methods import Codec
from trustformer.vq import body_size


def embeddings_of(model: Any) -> set[str]:
    """Return the names of a model's vocabulary matrices: those that read tokens and the one that writes them."""
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    alike = [m for m in model.modules() if isinstance(m, nn.Embedding) and m.num_embeddings == read.num_embeddings]
    matrices = {id(module.weight) for module in (read, written, *alike) if module is not None}
    return {name for name, parameter in model.named_parameters() if id(parameter) in matrices}


def describe_layers(weights: Weights, codec: Codec | None, embeddings: Collection[str]) -> list[dict[str, Any]]:
    """Return one entry a tensor, in the model's order; `layers.json` of a run.

    Args:
        weights: the model's trainable tensors.
        codec: what is exchanged; None for no exchange.
        embeddings: names of the vocabulary matrices, from `embeddings_of`.

    Returns:
        `name`, `shape`, `parameters`, `embedding`, and for `up` and `down` its `group` (tensors of one group share a
        codebook), `coding` and `bytes` of one message; None and 0 where it does not travel. What a group shares is
        counted to its tensors by their entries, so the bytes add up to the message's body. Of a tensor that travels in
        pieces, group and coding are those of the last; of variant `partition`, the budget of a matrix is counted.
    """
    layouts = {"up": codec.upload, "down": codec.answer} if codec is not None else {}
    inside = {BODY: codec.contents} if isinstance(codec, PartitionCodec) else {}
    travels = {way: _travelling(layout, inside) for way, layout in layouts.items()}
    absent = {"group": None, "coding": None, "bytes": 0}
    return [
        {
            "name": name,
            "shape": list(values.shape),
            "parameters": values.size,
            "embedding": name in embeddings,
            **{way: travels.get(way, {}).get(name, absent) for way in ("up", "down")},
        }
        for name, values in weights.items()
    ]


def _travelling(layout: Layout, inside: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number, group in enumerate(layout.groups, 1):
        size, entries = body_size(Layout((group,))), sum(spec.size for spec in group.tensors)
        fields = {name: getattr(group.coding, name) for name in group.coding.__slots__}
        coding = " ".join([type(group.coding).__name__.lower(), *(f"{key}={value}" for key, value in fields.items())])
        parts = [inside.get(spec.name, {spec.name: spec.size}).items() for spec in group.tensors]
        for part, held in chain.from_iterable(parts):
            name, share = whole_name(part), round(size * held / entries, 1)
            earlier = found.get(name, {"bytes": 0.0})["bytes"]
            found[name] = {"group": number, "coding": coding, "bytes": round(earlier + share, 1)}
    return found


def without_embeddings(
    layers: Sequence[Mapping[str, Any]], total: int, messages: int, models: int, rounds: int, way: str
) -> float | None:
    """Return how many times fewer bytes than dense fp32 the model without its embeddings takes.

    What is not a message's body (quotes, keys, manifests, seals) counts in full.

    Args:
        layers: from `describe_layers`.
        total: bytes of all clients in all rounds.
        messages: how many updates or aggregates are among them.
        models: how many dense common models, from one client to another, are among them.
        rounds: client rounds of training, over which they are spread.
        way: `up` or `down`.
    """
    embedded = sum(layer[way]["bytes"] for layer in layers if layer["embedding"])
    dense = 4 * sum(layer["parameters"] for layer in layers if not layer["embedding"])
    everything = 4 * sum(layer["parameters"] for layer in layers)
    rest = total - messages * embedded - models * (everything - dense)
    return round(dense * rounds / rest, 3) if total and rest > 0 else None


def exchanged(clients: Sequence[Client]) -> dict[str, Any]:
    """Return the part of a round's record that says how much of the drift its messages expressed.

    Returns:
        `drift` and `residual`: |x_i| and |x_i - decode(e_i)| of each client whose update was combined; `layers`: the
        same two of each tensor over all these clients. A share 1 - residual² / drift² was captured. Empty where there
        is no common model to drift from, or the process was killed between the exchange and the record.
    """
    known = {client.id: client.exchanged for client in clients if client.exchanged}
    if not known:
        return {}
    names = next(iter(known.values()))
    pooled = {name: [sum(energy[name][side] for energy in known.values()) for side in (0, 1)] for name in names}
    drift, residual = (
        {client: _norm(sum(pair[side] for pair in energy.values())) for client, energy in known.items()}
        for side in (0, 1)
    )
    layers = {name: [_norm(energy) for energy in pair] for name, pair in pooled.items()}
    return {"drift": drift, "residual": residual, "layers": layers}


def _norm(energy: float) -> float:
    return float(f"{math.sqrt(energy):.6g}")
