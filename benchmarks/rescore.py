# SPDX-License-Identifier: Apache-2.0
"""Scores the models of a finished run again with another way of decoding, as if the run had been made with it.

    TRUSTFORMER_DATA=DIR python benchmarks/rescore.py runs/multi30k/fedavg-seed1 runs/greedy/fedavg-seed1 beams=1

What is set belongs to `[evaluation]`. OUT becomes a copy of the run without models and private state, with its own
config, translations and result: training does not look at `[evaluation]`, so it is what a run of that config gives.
Stored models whose digests are not those of the result are refused.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch

from trustformer.codec.weights import weights_digest
from trustformer.data.marian import stored_tokenizer
from trustformer.errors import TrustformerError
from trustformer.experiment.config import load_config
from trustformer.experiment.prepare import prepare
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.result import make_result
from trustformer.federation.client import Client
from trustformer.federation.ledger import Ledger
from trustformer.federation.store import ClientStore

COPIED = ("environment.json", "rounds.jsonl", "layers.json", "ledger.jsonl")


def rescore(run: Path, out: Path, values: Sequence[str]) -> dict[str, Any]:
    """Return the new result, which is also left in `out`; a finished `out` is returned as it is."""
    config = load_config(run / "config.toml", [f"evaluation.{value}" for value in values])
    recorded = RunDirectory(run).result()
    if recorded is None:
        raise TrustformerError(f"{run} is not finished")
    torch.set_num_threads(config.threads)
    prepared = prepare(config, stored_tokenizer(run / "tokenizer.model"))
    clients = [
        cast(Client, SimpleNamespace(id=id, state=ClientStore(run / "clients" / id).load())) for id in prepared.clients
    ]
    for client in clients:
        if client.state is None or weights_digest(client.state.weights).hex() != recorded["weights_digest"][client.id]:
            raise TrustformerError(f"{run}: the stored model of client {client.id} is not the one of its result")
    common = max(clients, key=lambda client: client.state.round).state.common
    if (weights_digest(common).hex() if common else None) != recorded["common_digest"]:
        raise TrustformerError(f"{run}: the stored common model is not the one of its result")
    directory = RunDirectory.open(out, config.to_toml(), resume=True)
    if found := directory.result():
        return found
    for name in COPIED:
        if (run / name).is_file():
            directory.write(name, (run / name).read_bytes())
    ledger = Ledger(out / "ledger.jsonl")
    result = recorded | make_result(config, prepared, clients, ledger, directory, PlainReporter())
    directory.write_json("result.json", result)
    return result


if __name__ == "__main__":
    scores = rescore(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    print({key: scores[key] for key in scores["metrics"]}, scores["signature"])
