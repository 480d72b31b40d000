# SPDX-License-Identifier: Apache-2.0
"""Every method runs on the real corpora, named as in the README."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(os.environ.get("TRUSTFORMER_DATA", "nowhere"))
METHODS = ["centralized", "local", "fedavg", "centroid"]
SMALL = ("tokenizer.public_share=0.01", "tokenizer.vocab_size=500", "data.limit=60", "rounds=1")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not (FOLDER / "ruen" / "train.tsv.gz").is_file() or not (FOLDER / "multi30k" / "train.tsv.gz").is_file(),
        reason="TRUSTFORMER_DATA does not name the folder of Multi30k and ru-en",
    ),
]


def without_labels() -> list[str]:
    return [f"data.{name}_domains=" for name in ("train", "valid", "test")]


@pytest.mark.parametrize("method", METHODS)
def test_multi30k(tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, method: str) -> None:
    files = [f"data.{name}=multi30k/{name}.tsv.gz" for name in ("train", "valid", "test")]
    result = tiny_run(tmp_path / "run", *files, *without_labels(), *SMALL, f"method.name={method}")
    assert not result["synthetic"]
    assert result["domains"] == {}
    assert result["test_pairs"] == 4
    assert 0 < result["nll"] < 12


@pytest.mark.parametrize("method", METHODS)
def test_russian_english_by_domain(tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, method: str) -> None:
    files = [f"data.{name}=ruen/{name}.tsv.gz" for name in ("train", "valid", "test")]
    labels = [f"data.{name}_domains=ruen/{name}.domain.gz" for name in ("train", "valid", "test")]
    result = tiny_run(
        tmp_path / "run", *files, *labels, *SMALL, "clients.split=domain", "clients.count=2", f"method.name={method}"
    )
    assert sum(domain["pairs"] for domain in result["domains"].values()) == 4
    assert (result["compression_up"] is None) == (method in ("local", "centralized"))
    rounds = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text("utf-8").splitlines()]
    assert rounds[0]["loss"] > 0
