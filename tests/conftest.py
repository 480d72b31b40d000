# SPDX-License-Identifier: Apache-2.0
"""Runs small enough to make by the dozen: a few dozen real pairs, and `tiny` cut to a twentieth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

MINI = {"d_model": 32, "layers": 1, "heads": 2, "ffn": 64}
"""What stands for `tiny` where a test asks for `mini_model`."""


@pytest.fixture(scope="session")
def corpus_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a corpus of three domains: {train,valid,test}.tsv and .domain."""
    from trustformer.data.toy import toy_corpus

    folder = tmp_path_factory.mktemp("corpus")
    corpus, _ = toy_corpus(3, train=90, valid=6, test=6, public=0)
    for name in ("train", "valid", "test"):
        pairs = getattr(corpus, name)
        (folder / f"{name}.tsv").write_text("".join(f"{p.source}\t{p.target}\n" for p in pairs), "utf-8")
        (folder / f"{name}.domain").write_text("".join(f"{p.domain}\n" for p in pairs), "utf-8")
    return folder


@pytest.fixture(scope="session")
def settings(corpus_files: Path) -> list[str]:
    """`--set` values of a run of three clients with ten pairs each, two rounds and one closing exchange."""
    files = {f"data.{name}": corpus_files / f"{name}.tsv" for name in ("train", "valid", "test")}
    labels = {f"data.{name}_domains": corpus_files / f"{name}.domain" for name in ("train", "valid", "test")}
    values = {
        "data.source": "tsv",
        **files,
        **labels,
        "data.limit": 30,
        "tokenizer.public_share": 0.6,
        "tokenizer.vocab_size": 150,
        "model.max_length": 24,
        "evaluation.test_pairs": 4,
        "evaluation.valid_pairs": 4,
        "method.clusters": 16,
        "enclave.process": "false",  # tests of the process set it themselves: starting one takes a second
        "rounds": 2,
    }
    return [f"{key}={value}" for key, value in values.items()]


@pytest.fixture(scope="module")
def mini_model() -> Iterator[None]:
    """`model.preset = "tiny"` gives a model of some 26,000 parameters."""
    from trustformer.models.seq2seq import PRESETS

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "tiny", MINI)
        yield


@pytest.fixture(scope="module")
def tiny_run(mini_model: None, settings: list[str]) -> Callable[..., dict[str, Any]]:
    """Run into a folder with further `--set` values, as the command line does."""
    from trustformer.experiment.config import load_config
    from trustformer.experiment.reporter import PlainReporter
    from trustformer.experiment.runner import run

    def go(out: Path, *overrides: str, resume: bool = False) -> dict[str, Any]:
        return run(load_config(None, [*settings, *overrides]), out, PlainReporter(), resume=resume)

    return go
