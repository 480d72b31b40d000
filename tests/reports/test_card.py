# SPDX-License-Identifier: Apache-2.0
"""The card of an exported model says what really travels."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_kit import make_result

from trustformer.experiment.config import load_config
from trustformer.message import Codebook, TensorSpec
from trustformer.methods import build
from trustformer.reports.card import model_card

ENVIRONMENT = {"packages": {"trustformer": "1"}, "processor": "p"}
TENSORS = (TensorSpec("matrix", (8, 8)), TensorSpec("bias", (8,)))


@pytest.mark.parametrize("variant", ["codebook", "partition"])
def test_it_says_how_one_dimensional_parameters_travel(variant: str) -> None:
    config = load_config(None, [f"method.variant={variant}"])
    codec = build(config.method, TENSORS).codec
    assert codec is not None
    (coding,) = (group.coding for group in codec.upload.groups if "bias" in [spec.name for spec in group.tensors])
    result = make_result("centroid", 1, 20.0, 3.0, 25.0, variant=variant, chrf_common=None, nll_common=None)
    result |= {"common_digest": None, "chrf_per_client": [40.0], "nll_per_client": [3.0], "chrf_signature": "c"}
    card = model_card(config, result, ENVIRONMENT, None, ())
    assert ("16-bit floats" in card) != isinstance(coding, Codebook)
    assert ("one-dimensional parameters likewise" in card) == isinstance(coding, Codebook)


def private_card(epsilon: float, known: float, delta: float) -> str:
    config = load_config(None, ["method.name=dp_fedavg", "privacy.mechanism=enclave"])
    result = make_result("dp_fedavg", 1, 20.0, 3.0, 25.0, variant=None, chrf_common=40.0, nll_common=3.0)
    result |= {"common_digest": "c0", "chrf_per_client": [], "nll_per_client": [], "chrf_signature": "c"}
    result |= {"bleu_common": 20.0, "signature": "dp_fedavg|eps:8|data:0123abcd|cfg:4567cdef|seed:1|tf:1"}
    promise = {"mechanism": "enclave", "unit": "client", "epsilon": epsilon, "epsilon_known_cohorts": known}
    promise |= {"delta": delta, "noise_multiplier": 1.234, "clipping_norm": 0.5, "steps": 12}
    return model_card(config, result | {"privacy": promise}, ENVIRONMENT, None, ())


@given(
    epsilon=st.floats(0.001, 100),
    factor=st.floats(1, 3),
    delta=st.floats(1e-12, 0.1),
)
def test_it_states_no_guarantee_that_is_better_than_the_run_gives(epsilon: float, factor: float, delta: float) -> None:
    """Whoever has the card has the seed, by which the cohorts were drawn: nothing is gained from sampling."""
    card = private_card(epsilon, epsilon * factor, delta)
    said = re.search(r"Differentially private: epsilon ([\d.]+), delta ([\d.e-]+), for one client", card)
    assert said
    assert float(said[1]) >= epsilon * factor
    assert float(said[2]) >= delta
    assert "seed 1" in card


def test_no_checksum_of_the_text_is_on_the_card_of_a_private_run() -> None:
    """With one, whoever knows all pairs but one could try what that one is."""
    card = private_card(8.0, 8.0, 1e-3)
    assert "0123abcd" not in card
    assert "4567cdef" not in card
    assert "Run: `dp_fedavg|eps:8|seed:1|tf:1`" in card
