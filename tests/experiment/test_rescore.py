# SPDX-License-Identifier: Apache-2.0
"""A finished run scored again: as if it had been run so, and never with models that are not its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from trustformer.errors import TrustformerError
from trustformer.federation.store import ClientStore


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "rescore.py"
    spec = importlib.util.spec_from_file_location("rescore", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_it_is_what_a_run_with_that_decoding_gives(
    tiny_run: Callable[..., dict[str, Any]], script: ModuleType, tmp_path: Path
) -> None:
    greedy = tiny_run(tmp_path / "greedy", "method.name=fedavg")
    wide = tiny_run(tmp_path / "wide", "method.name=fedavg", "evaluation.beams=3")
    again = script.rescore(tmp_path / "greedy", tmp_path / "again", ["beams=3"])
    of_its_own = {key for key in wide if key == "seconds" or "bytes" in key or "compression" in key}
    """Simulated certificates differ by some bytes from run to run."""
    assert {**again, **{key: greedy[key] for key in of_its_own}} == again
    assert {key: again[key] for key in again.keys() - of_its_own} == {
        key: wide[key] for key in wide.keys() - of_its_own
    }
    for name in ("config.toml", "translations/common.txt"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "wide" / name).read_bytes()
    assert not (tmp_path / "again" / "clients").exists()


def test_models_of_another_run_are_refused_and_nothing_is_left(
    tiny_run: Callable[..., dict[str, Any]], script: ModuleType, tmp_path: Path
) -> None:
    tiny_run(tmp_path / "run", "method.name=fedavg")
    tiny_run(tmp_path / "other", "method.name=fedavg", "train.learning_rate=1e-3")
    for client in sorted((tmp_path / "other" / "clients").iterdir()):
        client.rename(tmp_path / client.name)
        (tmp_path / client.name / "state.safetensors").replace(
            tmp_path / "run" / "clients" / client.name / "state.safetensors"
        )
    with pytest.raises(TrustformerError, match="not the one of its result"):
        script.rescore(tmp_path / "run", tmp_path / "out", ["beams=3"])
    assert not (tmp_path / "out").exists()


def test_another_common_model_is_refused(
    tiny_run: Callable[..., dict[str, Any]], script: ModuleType, tmp_path: Path
) -> None:
    tiny_run(tmp_path / "run", "method.name=fedavg", "rounds=1")
    store = ClientStore(tmp_path / "run" / "clients" / "0")
    state = store.load()
    assert state is not None
    store.save(replace(state, common={name: 2 * values for name, values in state.common.items()}))
    with pytest.raises(TrustformerError, match="common model is not the one of its result"):
        script.rescore(tmp_path / "run", tmp_path / "out", ["beams=3"])
    assert not (tmp_path / "out").exists()
