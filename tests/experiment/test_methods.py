# SPDX-License-Identifier: Apache-2.0
"""Every method on every split leaves the whole record; its bytes are what the layouts say."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.message import Codebook, Layout

Result = dict[str, Any]
PROMISED = {
    "method": str,
    "variant": (str, type(None)),
    "seed": int,
    "clients": int,
    "rounds": int,
    "local_epochs": (int, float),
    "parameters": int,
    "bytes_up_per_client_round": (int, float),
    "bytes_down_per_client_round": (int, float),
    "compression_up": (float, type(None)),
    "compression_down": (float, type(None)),
    "nll": float,
    "bleu": float,
    "chrf": float,
    "bleu_per_client": list,
    "bleu_common": (float, type(None)),
    "sacrebleu_signature": str,
    "signature": str,
    "seconds": float,
}
METHODS, SPLITS = ("centralized", "local", "fedavg", "centroid"), ("iid", "domain", "dirichlet")


@pytest.fixture(scope="module")
def runs(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Callable[..., Result]
) -> Callable[[str, str], tuple[Path, Result]]:
    """Run a method on a split, once."""
    done: dict[tuple[str, str], tuple[Path, Result]] = {}

    def get(method: str, split: str) -> tuple[Path, Result]:
        if (method, split) not in done:
            out = tmp_path_factory.mktemp("runs") / f"{method}-{split}"
            values = (f"method.name={method}", f"clients.split={split}", "clients.alpha=2")
            done[method, split] = out, tiny_run(out, *values)
        return done[method, split]

    return get


@pytest.mark.parametrize(("method", "split"), list(product(METHODS, SPLITS)))
def test_a_run_leaves_the_whole_record(
    runs: Callable[[str, str], tuple[Path, Result]], method: str, split: str
) -> None:
    out, result = runs(method, split)
    assert json.loads((out / "result.json").read_text("utf-8")) == result
    for key, kind in PROMISED.items():
        assert isinstance(result[key], kind), key
    count = 1 if method == "centralized" else 3
    assert result["clients"] == count
    assert len(result["bleu_per_client"]) == count
    assert result["variant"] == ("codebook" if method == "centroid" else None)
    assert (result["bleu_common"] is None) == (method in ("local", "centralized"))
    assert result["bleu"] == pytest.approx(sum(result["bleu_per_client"]) / count)
    assert 0 < result["nll"] < 10
    assert 0 <= result["bleu"] <= 100
    assert tomllib.loads((out / "config.toml").read_text("utf-8"))["method"]["name"] == method
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text("utf-8").splitlines()]
    closing = 1 if method == "centroid" else 0
    assert [record["round"] for record in rounds] == list(range(1, 3 + closing))
    assert [record["training"] for record in rounds] == [True, True] + [False] * closing
    for record in rounds:
        assert record["seconds"].keys() >= {"training", "encoding", "sealing", "aggregating"}
        assert record["loss"] > 0
    for name in ("environment.json", "ledger.jsonl", "model/config.json", "model/model.safetensors"):
        assert (out / name).is_file() or (name == "ledger.jsonl" and method in ("local", "centralized"))
    assert not list(out.rglob("*.new"))


def test_a_cooldown_is_of_the_run_for_every_method(tmp_path: Path, tiny_run: Callable[..., Result]) -> None:
    """It is part of the config and of the training; where it is not set, the config is as before."""
    ends = {}
    for method in ("centralized", "centroid"):
        for name, values in (("plain", ()), ("cooled", ("train.cooldown=1",))):
            out = tmp_path / f"{method}-{name}"
            ends[method, name] = tiny_run(out, f"method.name={method}", "train.warmup_steps=1", *values)
            assert ("cooldown" in (out / "config.toml").read_text("utf-8")) == (name == "cooled")
        assert ends[method, "plain"]["weights_digest"] != ends[method, "cooled"]["weights_digest"]


def test_an_exchange_after_every_half_epoch(tmp_path: Path, tiny_run: Callable[..., Result]) -> None:
    """Clients that never talk end where whole epochs do; who talks sends twice as many messages of the same length."""
    half, whole = ("train.local_epochs=0.5", "rounds=4", "train.batch_tokens=64"), ("rounds=2", "train.batch_tokens=64")
    same = ("method.name=local", "model.dropout=0")
    alone = [tiny_run(tmp_path / f"local-{len(v)}", *same, *v) for v in (half, whole)]
    assert alone[0]["weights_digest"] == alone[1]["weights_digest"]
    averaged = [tiny_run(tmp_path / f"fedavg-{len(v)}", "method.name=fedavg", *v) for v in (half, whole)]
    assert [result["local_epochs"] for result in averaged] == [0.5, 1]
    assert averaged[0]["weights_digest"] != averaged[1]["weights_digest"]
    often, seldom = (
        [e["bytes"] for e in entries(tmp_path / f"fedavg-{n}") if (e["kind"], e["direction"]) == ("upload", "up")]
        for n in (3, 2)
    )
    assert len(often) == 2 * len(seldom) == 12
    assert set(often) == set(seldom)


@pytest.mark.parametrize("method", ["local", "centralized"])
def test_without_an_exchange_bytes_are_zero_and_factors_null(
    runs: Callable[[str, str], tuple[Path, Result]], method: str
) -> None:
    _, result = runs(method, "iid")
    for way in ("up", "down"):
        assert result[f"bytes_{way}_per_client_round"] == 0
        assert result[f"compression_{way}"] is None


def entries(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "ledger.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("method", ["fedavg", "centroid"])
def test_the_byte_fields_are_the_sum_of_the_ledger(
    runs: Callable[[str, str], tuple[Path, Result]], method: str
) -> None:
    out, result = runs(method, "iid")
    rounds = [json.loads(line) for line in (out / "rounds.jsonl").read_text("utf-8").splitlines()]
    for way in ("up", "down"):
        total = sum(entry["bytes"] for entry in entries(out) if entry["direction"] == way)
        assert total == result[f"bytes_{way}_total"] == sum(sum(r[f"bytes_{way}"].values()) for r in rounds)
        mean = total / (3 * 2)  # closing exchanges are in the sum and not in the count
        assert result[f"bytes_{way}_per_client_round"] == pytest.approx(mean, abs=0.051)
        assert result[f"compression_{way}"] == pytest.approx(4 * result["parameters"] / mean, abs=0.001)


def body_length(layout: Layout) -> int:
    """The formula of the docs: a scale, centroids and codes, or plain entries."""
    length = 0
    for group in layout.groups:
        if isinstance(group.coding, Codebook):
            blocks = sum(-(-tensor.size // group.coding.block) for tensor in group.tensors)
            clusters = min(group.coding.clusters, blocks)
            bits = (clusters - 1).bit_length()
            length += 4 + 2 * clusters * group.coding.block + -(-blocks * bits // 8)
        else:
            width = 4 if group.coding.dtype == "float32" else 2
            length += width * sum(tensor.size for tensor in group.tensors)
    return length


def field(*lengths: int) -> int:
    """Every field of a message has four bytes of length before it."""
    return sum(4 + length for length in lengths)


def upload_length(layout: Layout, client: str) -> int:
    number = 8
    payload = field(len("tfl/1 update"), number, 32, number, 32, body_length(layout))
    sealed = payload + 16 * -(-payload // 2**20)
    header = field(len("tfl/1 up"), 16, 16, 32, number, number, len(client), number)
    wrapped_key, signature = 32 + 32 + 16, 64
    return field(header, wrapped_key, signature, sealed)


@pytest.mark.parametrize(("method", "split"), list(product(("fedavg", "centroid"), SPLITS)))
def test_an_upload_is_as_long_as_the_formula_says_whatever_the_data(
    runs: Callable[[str, str], tuple[Path, Result]], settings: list[str], method: str, split: str
) -> None:
    out, _ = runs(method, split)
    prepared = prepare(load_config(None, [*settings, f"method.name={method}"]))
    assert prepared.method.codec is not None
    uploads = [e for e in entries(out) if (e["kind"], e["direction"]) == ("upload", "up")]
    assert len(uploads) == 3 * (3 if method == "centroid" else 2)
    for entry in uploads:
        assert entry["bytes"] == upload_length(prepared.method.codec.upload, entry["client"])


@pytest.mark.parametrize("method", ["fedavg", "centroid"])
def test_answers_are_equally_long_for_every_client_and_round(
    runs: Callable[[str, str], tuple[Path, Result]], method: str
) -> None:
    lengths = {
        entry["bytes"]
        for split in SPLITS
        for entry in entries(runs(method, split)[0])
        if (entry["kind"], entry["direction"]) == ("sync", "down")
    }
    assert len(lengths) == 1


def test_centroids_take_fewer_bytes_than_averaging(runs: Callable[[str, str], tuple[Path, Result]]) -> None:
    centroid, fedavg = (runs(method, "iid")[1] for method in ("centroid", "fedavg"))
    assert centroid["parameters"] == fedavg["parameters"]
    assert centroid["bytes_up_per_client_round"] < fedavg["bytes_up_per_client_round"] / 5


def test_scores_of_domains_are_told_where_labels_exist(runs: Callable[[str, str], tuple[Path, Result]]) -> None:
    _, result = runs("centroid", "domain")
    assert sum(domain["pairs"] for domain in result["domains"].values()) == result["test_pairs"] == 4
    for domain in result["domains"].values():
        assert len(domain["bleu_per_client"]) == 3


def test_the_signature_tells_runs_apart(runs: Callable[[str, str], tuple[Path, Result]]) -> None:
    signatures = {runs(method, split)[1]["signature"] for method, split in product(METHODS, SPLITS)}
    assert len(signatures) == len(METHODS) * len(SPLITS)
