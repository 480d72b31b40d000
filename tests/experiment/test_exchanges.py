# SPDX-License-Identifier: Apache-2.0
"""Several exchanges in a round, and closing ones: each counted, none of them trained before but the first."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trustformer.enclave.config import RunConfig
from trustformer.training import LocalTrainer

PARTITION = ["method.variant=partition", "method.ratio=0.5"]


def test_a_round_of_two_exchanges_trains_once(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained, train = list[int](), LocalTrainer.train

    def counted(*arguments: Any, **keywords: Any) -> Any:
        trained.append(1)
        return train(*arguments, **keywords)

    monkeypatch.setattr(LocalTrainer, "train", counted)
    result = tiny_run(tmp_path / "run", *PARTITION, "method.exchanges=2", "method.closing_exchanges=1")
    rounds = [json.loads(line) for line in (tmp_path / "run" / "rounds.jsonl").read_text("utf-8").splitlines()]
    assert [record["training"] for record in rounds] == [True, False, True, False, False]
    assert len(trained) == 2 * 3
    ledger = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text("utf-8").splitlines()]
    uploads = [entry for entry in ledger if entry["kind"] == "upload" and entry["direction"] == "up"]
    assert len(uploads) == 5 * 3
    assert len({entry["bytes"] for entry in uploads}) == 1
    assert result["bytes_up_total"] == sum(entry["bytes"] for entry in ledger if entry["direction"] == "up")
    assert "exchanges:2" in result["signature"]


def test_a_turn_after_every_training_is_federated_averaging(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """Two exchanges of half the rows against one of all: G after the run is the same to fp16."""
    slices = ("train.warmup_steps=1", "method.exchanges=2", "method.closing_exchanges=0")
    tiny_run(tmp_path / "turn", *PARTITION, *slices)
    tiny_run(tmp_path / "whole", "method.name=fedavg", "train.warmup_steps=1")
    turn, whole = (
        [json.loads(line)["valid_nll"] for line in (tmp_path / name / "rounds.jsonl").read_text("utf-8").splitlines()]
        for name in ("turn", "whole")
    )
    start = whole[0]["common"]
    for ours, theirs in zip(turn[1::2], whole, strict=True):
        assert abs(ours["common"] - theirs["common"]) < 1e-3
        assert abs(ours["0"] - theirs["0"]) < 1e-3
    assert start - whole[-1]["common"] > 0.02


def test_carry_is_in_the_terms_up_to_the_last_training_and_in_the_signature(
    tiny_run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    results = {
        carry: tiny_run(tmp_path / carry, f"method.carry={carry}", "method.closing_exchanges=2")
        for carry in ("1", "0.25")
    }
    terms = {carry: RunConfig.from_bytes((tmp_path / carry / "terms.bin").read_bytes()) for carry in results}
    assert (terms["1"].trained, terms["1"].carry_ppm) == (0, 1_000_000)
    assert (terms["0.25"].rounds, terms["0.25"].trained, terms["0.25"].carry_ppm) == (4, 2, 250_000)
    tiny_run(
        tmp_path / "paper", "method.carry=0.25", "method.variant=paper", "method.ratio=0.5", "rounds=1"
    )  # has no s
    assert RunConfig.from_bytes((tmp_path / "paper" / "terms.bin").read_bytes()).trained == 0
    assert "|carry:0.25|" in results["0.25"]["signature"]
    assert "carry" not in results["1"]["signature"]
    assert results["1"]["common_digest"] != results["0.25"]["common_digest"]
