# SPDX-License-Identifier: Apache-2.0
"""Layers of a run: bytes add up to the messages, and drifts to what the exchange leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustformer.enclave.config import RunConfig
from trustformer.experiment.config import load_config
from trustformer.experiment.layers import embeddings_of
from trustformer.experiment.prepare import prepare
from trustformer.models.seq2seq import PRESETS
from trustformer.vq import body_size

Run = tuple[Path, dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="module")
def runs(tiny_run: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    known: dict[str, Run] = {}

    def go(method: str) -> Run:
        if method not in known:
            out = tmp_path_factory.mktemp("layers") / method
            more = {"centroid": "clients.late=0.3", "partition": "method.variant=partition"}
            name = "centroid" if method in more else method
            result = tiny_run(out, f"method.name={name}", more.get(method, "seed=1"))
            layers = json.loads((out / "layers.json").read_text("utf-8"))
            rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text("utf-8").splitlines()]
            known[method] = out, result, layers, rounds
        return known[method]

    return go


@pytest.mark.parametrize("method", ["fedavg", "centroid", "partition"])
def test_bytes_of_layers_add_up_to_a_message(runs: Callable[[str], Run], method: str) -> None:
    out, result, layers, _ = runs(method)
    terms = RunConfig.from_bytes((out / "terms.bin").read_bytes())
    for way, layout in (("up", terms.upload), ("down", terms.answer)):
        assert sum(layer[way]["bytes"] for layer in layers) == pytest.approx(body_size(layout), abs=len(layers) / 10)
    assert sum(layer["parameters"] for layer in layers) == result["parameters"]
    embeddings = [layer for layer in layers if layer["embedding"]]
    assert [layer["name"] for layer in embeddings] == ["model.shared.weight"]
    assert result["embedding_parameters"] == embeddings[0]["parameters"]


@pytest.mark.parametrize("method", ["fedavg", "centroid", "partition"])
def test_the_factor_without_embeddings_follows_from_ledger_and_layers(runs: Callable[[str], Run], method: str) -> None:
    out, result, layers, rounds = runs(method)
    ledger = [json.loads(line) for line in (out / "ledger.jsonl").read_text("utf-8").splitlines()]
    client_rounds = sum(len(record["present"]) for record in rounds if record["training"])
    for way, kind in (("up", "upload"), ("down", "sync")):
        sent = [entry["bytes"] for entry in ledger if entry["direction"] == way]
        bodies = [e for e in ledger if (e["direction"], e["kind"]) == (way, kind) and e["bytes"] > 2000]
        embedded = sum(layer[way]["bytes"] for layer in layers if layer["embedding"])
        rest = (sum(sent) - len(bodies) * embedded) / client_rounds
        dense = 4 * (result["parameters"] - result["embedding_parameters"])
        assert result[f"compression_{way}_without_embeddings"] == pytest.approx(dense / rest, rel=1e-3)


@pytest.mark.parametrize(("max_lag", "aggregates", "models"), [(8, 12, 0), (1, 10, 1)])
def test_the_factor_without_embeddings_knows_what_a_client_that_was_away_received(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, max_lag: int, aggregates: int, models: int
) -> None:
    """Client 2 misses two of four rounds: it catches up by aggregates, or takes the dense model of another."""
    lines = [json.dumps({"present": present}) + "\n" for present in ("012", "01", "01", "012")]
    (tmp_path / "cohorts.jsonl").write_text("".join(lines))
    settings = (
        "method.name=fedavg",
        "rounds=4",
        f"clients.max_lag={max_lag}",
        f"clients.cohorts={tmp_path / 'cohorts.jsonl'}",
    )
    result = tiny_run(tmp_path / "run", *settings)
    layers = json.loads((tmp_path / "run" / "layers.json").read_text("utf-8"))
    embedded = sum(layer["down"]["bytes"] for layer in layers if layer["embedding"])
    dense_embedded = 4 * result["embedding_parameters"]
    for way, messages in (("up", 10), ("down", aggregates)):
        rest = result[f"bytes_{way}_total"] - messages * embedded - models * dense_embedded
        dense = 4 * (result["parameters"] - result["embedding_parameters"]) * 10  # client rounds
        assert result[f"compression_{way}_without_embeddings"] == pytest.approx(dense / rest, rel=1e-3)


def test_clients_that_have_not_trained_have_no_loss_to_be_averaged(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Client 2 comes for the closing exchange alone."""
    lines = [json.dumps({"present": present}) + "\n" for present in ("01", "01", "012")]
    (tmp_path / "cohorts.jsonl").write_text("".join(lines))
    settings = ("method.closing_exchanges=1", f"clients.cohorts={tmp_path / 'cohorts.jsonl'}")
    tiny_run(tmp_path / "run", "rounds=2", *settings)
    records = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text("utf-8").splitlines()]
    assert records[2]["loss"] == records[1]["loss"] > 0


def test_fedavg_leaves_no_residual_and_the_centroid_exchange_some(runs: Callable[[str], Run]) -> None:
    for record in runs("fedavg")[3]:
        for client, drift in record["drift"].items():
            assert drift > 0
            assert record["residual"][client] < 1e-4 * drift
    records = runs("centroid")[3]
    assert any(record["late"] for record in records)
    for record in records:
        assert set(record["drift"]) == {c for c, status in record["status"].items() if status == "accepted"}
        for client, drift in record["drift"].items():
            assert 0 < record["residual"][client] < drift
        total = sum(drift**2 for drift in record["drift"].values())
        assert sum(drift**2 for drift, _ in record["layers"].values()) == pytest.approx(total, rel=1e-3)


def test_runs_without_an_exchange_have_layers_that_do_not_travel(runs: Callable[[str], Run]) -> None:
    _, result, layers, rounds = runs("local")
    assert {layer[way]["bytes"] for layer in layers for way in ("up", "down")} == {0}
    assert result["compression_up_without_embeddings"] is None
    assert not any("drift" in record for record in rounds)


def test_a_feed_forward_matrix_as_wide_as_the_vocabulary_is_no_embedding(
    settings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", {"d_model": 32, "layers": 1, "heads": 2, "ffn": 150})
    prepared = prepare(load_config(None, settings))
    wide = {name for name, values in prepared.start.items() if prepared.tokenizer.vocab_size in values.shape}
    assert {"model.shared.weight"} == embeddings_of(prepared.model) < wide
