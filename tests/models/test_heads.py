# SPDX-License-Identifier: Apache-2.0
"""A continued classifier keeps its head only for the labels that it was trained for."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trustformer.codec.weights import Weights
from trustformer.data.hub_tokenizer import HubTokenizer
from trustformer.models.families import make_model
from trustformer.models.seq2seq import ModelConfig, get_weights

LABELS = ("health", "law", "sport")
HEAD = ("classifier.weight", "classifier.bias")


@pytest.fixture(params=["bert", "distilbert"])
def folder(request: pytest.FixtureRequest, mini_model: None, tmp_path: Path) -> Path:
    """A classifier of `LABELS`, whose head's rows all differ."""
    tokenizer = HubTokenizer.train_bpe([f"example number {i * 7}." for i in range(60)], 300)
    config = ModelConfig(task="classification", architecture=request.param, max_length=48)
    model = make_model(config, tokenizer, LABELS, 1)
    model.classifier.bias.data.copy_(model.classifier.weight.data[:, 0])
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    return tmp_path


def names(folder: Path, *labels: str) -> None:
    """Write labels in the place of those of a folder, as another program may have; none: as one without names."""
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8"))
    del config["id2label"], config["label2id"]
    if labels:
        config["id2label"] = {str(row): label for row, label in enumerate(labels)}
    path.write_text(json.dumps(config), "utf-8")


def continued(folder: Path, *labels: str, seed: int = 1) -> Weights:
    """Weights of the model of `folder`, continued for these labels."""
    config = ModelConfig(preset=str(folder), task="classification", max_length=48)
    model = make_model(config, HubTokenizer.of_folder(folder), labels, seed)
    assert model.config.id2label == dict(enumerate(labels))
    return get_weights(model)


def test_labels_in_another_order_take_their_rows_with_them(folder: Path) -> None:
    same, other = continued(folder, *LABELS), continued(folder, "sport", "health", "law")
    names(folder, "law", "sport", "health")
    renamed = continued(folder, *LABELS)
    for name in HEAD:
        np.testing.assert_array_equal(other[name], same[name][[2, 0, 1]])
        np.testing.assert_array_equal(renamed[name], same[name][[2, 0, 1]])
    assert all(np.array_equal(same[name], other[name]) for name in same.keys() - set(HEAD))


@pytest.mark.parametrize("stored", [("health", "law", "music"), ("LABEL_0", "LABEL_1", "LABEL_2"), ("a", "a", "a")])
def test_other_labels_get_a_new_head_by_the_seed(folder: Path, stored: tuple[str, ...]) -> None:
    same = continued(folder, *LABELS)
    names(folder, *stored)
    one, again, other = (continued(folder, *LABELS, seed=seed) for seed in (1, 1, 2))
    for name in same:
        assert np.array_equal(one[name], again[name])
        assert np.array_equal(one[name], same[name]) == (name not in HEAD)
    assert not np.array_equal(one["classifier.weight"], other["classifier.weight"])
    assert one["classifier.weight"].std() == pytest.approx(0.02, rel=0.5)
    assert not one["classifier.bias"].any()


def test_two_labels_without_names_are_other_labels(folder: Path) -> None:
    """Of two labels that nobody named transformers writes nothing."""
    make_model(ModelConfig(preset=str(folder), task="classification", max_length=48), HubTokenizer.of_folder(folder),
               ("law", "sport"), 5).save_pretrained(folder)  # fmt: skip
    named = continued(folder, "law", "sport", seed=6)
    names(folder)
    assert not np.array_equal(
        continued(folder, "law", "sport", seed=6)["classifier.weight"], named["classifier.weight"]
    )
    placed = continued(folder, "LABEL_0", "LABEL_1", seed=6)
    assert np.array_equal(placed["classifier.weight"], named["classifier.weight"])
