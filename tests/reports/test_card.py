# SPDX-License-Identifier: Apache-2.0
"""The card of an exported model says what really travels."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from results_kit import make_result

from trustformer.experiment.config import load_config
from trustformer.message import Codebook, TensorSpec
from trustformer.methods import build
from trustformer.reports.card import BEAMS, model_card

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


def private_card(epsilon: float, known: float, delta: float, *values: str) -> str:
    config = load_config(None, ["method.name=dp_fedavg", "privacy.mechanism=enclave", *values])
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


def plain_card(values: list[str], method: str = "fedavg", languages: tuple[str, ...] = (), **more: Any) -> str:
    config = load_config(None, [f"method.name={method}", *values])
    result = make_result(method, 1, 20.0, 3.0, None if method == "local" else 1.0, chrf_common=None, nll_common=None)
    result |= {"common_digest": None, "chrf_per_client": [40.0], "nll_per_client": [3.0], "chrf_signature": "c"}
    return model_card(config, result | more, ENVIRONMENT, None, languages)


@pytest.mark.parametrize(("beams", "said"), [(1, "Translated greedily"), (5, "Translated with a beam of 5")])
def test_it_says_how_its_scores_were_decoded_and_that_the_exported_model_does_otherwise(beams: int, said: str) -> None:
    card = plain_card([f"evaluation.beams={beams}"])
    assert f"{said}; this folder's generation_config.json has a beam of {BEAMS}.\n" in card
    assert f"Translated with a beam of {BEAMS}.\n" in plain_card([f"evaluation.beams={BEAMS}"])


def test_what_does_not_translate_has_no_beam() -> None:
    scores: dict[str, Any] = {"metrics": ["accuracy"], "accuracy_common": 0.5, "accuracy_per_client": [0.5]}
    card = plain_card(["model.task=classification"], task="classification", **scores)
    assert "Macro F1" in card
    assert "Translated" not in card
    assert "beam" not in card


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("fedavg", "traces of the training text and of the model that the run started from"),
        ("local", "the training text of those who held it and from the model that the run started from"),
    ],
)
def test_it_names_the_model_that_the_run_continued_and_nothing_else_of_its_path(method: str, said: str) -> None:
    card = plain_card(["model.preset=/home/somebody/opus-mt|<b>_ru_"], method)
    row = "| started from | opus-mt&#124;&#60;b&#62;&#95;ru&#95;; its licence is not known to the program |"
    assert row in card
    assert said in card
    assert "somebody" not in card
    assert "started from" not in plain_card([], method)


def test_a_file_of_any_name_stays_in_its_row() -> None:
    card = plain_card([], data="a|b<i>.tsv, 9,000 pairs")
    assert "| data, as declared | a&#124;b&#60;i&#62;.tsv, 9,000 pairs; its licence" in card


def test_a_guarantee_is_not_said_of_the_model_that_the_run_continued() -> None:
    card = private_card(8.0, 8.0, 1e-3, "model.preset=/home/somebody/opus-mt")
    assert "said of the weights, not of the model that the run started from" in card


def test_languages_of_the_header_are_text() -> None:
    header = plain_card([], languages=("no", "en")).split("---\n")[1]
    assert yaml.safe_load(header)["language"] == ["no", "en"]
