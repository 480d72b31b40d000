# SPDX-License-Identifier: Apache-2.0
"""Which part of a model travels how finely."""

from __future__ import annotations

import numpy as np
import pytest

from trustformer.codec.rates import join, pieces, rated_layout, whole_name
from trustformer.codec.weights import specs_of
from trustformer.message import Codebook, Layout, TensorSpec

SHAPES = {
    "model.shared.weight": (401, 8),
    "model.encoder.layers.0.fc1.weight": (32, 8),
    "model.encoder.layers.0.fc1.bias": (32,),
    "model.decoder.layers.0.encoder_attn.q_proj.weight": (8, 8),
    "model.decoder.layers.0.fc2.weight": (8, 32),
}


def weights(names: tuple[str, ...] = tuple(SHAPES)) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(SHAPES[name]).astype(np.float32) for name in names}


def codings(layout: Layout) -> dict[str, tuple[int, int]]:
    return {s.name: (g.coding.block, g.coding.clusters) for g in layout.groups for s in g.tensors}  # type: ignore[union-attr]


def test_pieces_of_a_layout_come_together_again() -> None:
    tensors = weights()
    layout = rated_layout(specs_of(tensors), Codebook(8, 64))
    parts = pieces(layout, tensors)
    assert {spec.name: spec.shape for spec in layout.tensors} == {name: part.shape for name, part in parts.items()}
    again = join(dict(reversed(parts.items())))
    assert again.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(again[name], values)
    assert sum(spec.size for spec in layout.tensors) == sum(values.size for values in tensors.values())


def test_frequent_tokens_travel_finely_and_the_encoder_coarsely() -> None:
    assert codings(rated_layout(specs_of(weights()), Codebook(8, 64))) == {
        "model.shared.weight[0:26]": (4, 64),
        "model.shared.weight[26:401]": (8, 64),
        "model.encoder.layers.0.fc1.bias": (4, 64),
        "model.encoder.layers.0.fc1.weight": (16, 64),
        "model.decoder.layers.0.encoder_attn.q_proj.weight": (8, 64),
        "model.decoder.layers.0.fc2.weight": (8, 64),
    }


def test_an_encoder_without_a_decoder_is_no_exception() -> None:
    found = codings(rated_layout(specs_of(weights(("model.encoder.layers.0.fc1.weight",))), Codebook(8, 64)))
    assert found == {"model.encoder.layers.0.fc1.weight": (8, 64)}


def test_the_decoder_of_a_head_makes_no_exception_of_an_encoder() -> None:
    """An untied BERT: what it calls its decoder is the matrix that writes tokens."""
    shapes = {"bert.encoder.layer.0.output.dense.weight": (8, 32), "cls.predictions.decoder.weight": (64, 8)}
    found = codings(rated_layout([TensorSpec(*item) for item in shapes.items()], Codebook(8, 64)))
    assert found == dict.fromkeys(shapes, (8, 64))


@pytest.mark.parametrize("coding", [Codebook(1, 1), Codebook(1, 3), Codebook(1024, 65536)])
def test_the_ends_of_what_a_config_allows_give_a_layout(coding: Codebook) -> None:
    layout = rated_layout(specs_of(weights()), coding)
    assert Layout.from_bytes(layout.to_bytes()) == layout


@pytest.mark.parametrize(
    ("name", "rows", "cut"), [("w", 64, False), ("w", 65, True), ("layer.0.q.lora_B.default.weight", 65, False)]
)
def test_only_matrices_much_taller_than_wide_are_cut_and_no_adapters(name: str, rows: int, cut: bool) -> None:
    names = [spec.name for spec in rated_layout([TensorSpec(name, (rows, 8))], Codebook(8, 4)).tensors]
    assert (len(names) == 2) == cut
    assert {whole_name(found) for found in names} == {name}
