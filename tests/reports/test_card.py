# SPDX-License-Identifier: Apache-2.0
"""The card of an exported model says what really travels."""

from __future__ import annotations

import pytest
from results_kit import make_result

from trustformer.experiment.config import load_config
from trustformer.message import Codebook, TensorSpec
from trustformer.methods import build
from trustformer.reports.card import model_card

TENSORS = (TensorSpec("matrix", (8, 8)), TensorSpec("bias", (8,)))


@pytest.mark.parametrize("variant", ["codebook", "partition"])
def test_it_says_how_one_dimensional_parameters_travel(variant: str) -> None:
    config = load_config(None, [f"method.variant={variant}"])
    codec = build(config.method, TENSORS).codec
    assert codec is not None
    (coding,) = (group.coding for group in codec.upload.groups if "bias" in [spec.name for spec in group.tensors])
    result = make_result("centroid", 1, 20.0, 3.0, 25.0, variant=variant, chrf_common=None, nll_common=None)
    result |= {"common_digest": None, "chrf_per_client": [40.0], "nll_per_client": [3.0], "chrf_signature": "c"}
    environment = {"packages": {"trustformer": "1"}, "processor": "p"}
    card = model_card(config, result, environment, None, ())
    assert ("16-bit floats" in card) != isinstance(coding, Codebook)
    assert ("one-dimensional parameters likewise" in card) == isinstance(coding, Codebook)
