# SPDX-License-Identifier: Apache-2.0
"""What a run came to: scores of decoded text, bytes that were really sent, and the models themselves."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
from safetensors import SafetensorError

from trustformer.attestation.files import sync
from trustformer.codec.weights import Weights, weights_digest
from trustformer.data.corpus import Pair
from trustformer.errors import TrustformerError
from trustformer.evaluation.tasks import Evaluation
from trustformer.experiment.cohorts import missed
from trustformer.experiment.config import Config
from trustformer.experiment.inputs import inputs_of
from trustformer.experiment.layers import describe_layers, embeddings_of, without_embeddings
from trustformer.experiment.prepare import Prepared
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.refusals import count_refused
from trustformer.experiment.reporter import Reporter
from trustformer.federation.client import Client
from trustformer.federation.ledger import Direction, Ledger
from trustformer.models.adapters import merged
from trustformer.models.seq2seq import save_model, set_weights
from trustformer.privacy.stated import upper


def save_models(config: Config, prepared: Prepared, clients: Sequence[Client], directory: RunDirectory) -> None:
    """Write `model/`: the common model, or the first client's where there is none; adapters are merged."""
    folder = directory.path / "model"
    newest = max(clients, key=lambda client: client.state.round)
    set_weights(prepared.model, newest.state.common or clients[0].state.weights)
    try:
        folder.mkdir(exist_ok=True)
        save_model(merged(prepared.model), folder)
        prepared.tokenizer.save(folder)
        sync(folder)  # result.json says for good that it is there
        if config.model.lora_rank:  # a client's own adapters are read with what they were trained on
            save_model(merged(prepared.model, adapted=False), directory.path / "base")
            sync(directory.path / "base")
    except (OSError, SafetensorError) as error:
        raise TrustformerError(
            f"{folder} cannot be written: {error}", "free space, then go on: --resume, or the same serve or join"
        ) from None


def make_result(
    config: Config,
    prepared: Prepared,
    clients: Sequence[Client],
    ledger: Ledger,
    directory: RunDirectory,
    reporter: Reporter,
) -> dict[str, Any]:
    """Score every client's model and the common one on the test set; return `result.json`."""
    test = prepared.corpus.test[: config.evaluation.test_pairs or None]
    if config.model.task == "translation":
        sides = "".join(f"{pair.source}\t{pair.target}\n" for pair in test)
        directory.write("translations/source.tsv", sides.encode())
    scored = {
        client.id: _evaluate(client.id, client.state.weights, test, config, prepared, directory, reporter)
        for client in own_models(config, prepared, clients)
    }
    newest = max(clients, key=lambda client: client.state.round)
    common = None
    if newest.state.common:
        common = _evaluate("common", newest.state.common, test, config, prepared, directory, reporter)
    judged = list(scored.values()) or ([common] if common else [])
    promise = prepared.guarantee.to_dict() if prepared.guarantee is not None else None
    metrics = prepared.task.metrics
    refused = count_refused(directory.rounds())
    return {
        "task": config.model.task,
        "metrics": list(metrics),
        "method": config.method.name,
        "variant": config.method.variant if config.method.name == "centroid" else None,
        "seed": config.seed,
        "clients": len(clients),
        "rounds": config.rounds,
        "local_epochs": config.train.local_epochs,
        "parameters": sum(values.size for values in prepared.start.values()),
        "data": prepared.corpus.name,
        "synthetic": prepared.corpus.synthetic,
        "test_pairs": len(test),
        "epsilon": promise["epsilon"] if promise else None,
        "delta": promise["delta"] if promise else None,
        "privacy": promise,
        **_bytes(config, prepared, ledger, directory),
        **({"refused": refused} if refused else {}),
        **{key: float(np.mean([one.scores[key] for one in judged])) for key in metrics},
        **{f"{key}_per_client": [one.scores[key] for one in scored.values()] for key in metrics},
        **{f"{key}_common": common.scores[key] if common else None for key in metrics},
        "domains": _domains(judged, common),
        **judged[0].signatures,
        "signature": signature(config, prepared),
        "inputs": inputs_of(prepared),
        "attestation": "simulated" if prepared.method.codec is not None else None,
        "weights_digest": {client.id: weights_digest(client.state.weights).hex() for client in clients},
        "common_digest": weights_digest(newest.state.common).hex() if newest.state.common else None,
    }


def own_models(config: Config, prepared: Prepared, clients: Sequence[Client]) -> Sequence[Client]:
    """Clients whose models are scored; none where all begin each round from the common model, which is scored then."""
    return clients[: config.evaluation.clients or None] if prepared.method.personal else ()


def signature(config: Config, prepared: Prepared) -> str:
    """One line that identifies a run, beside sacreBLEU's own."""
    method = config.method
    name: str = method.name
    if name == "centroid":
        size = f"ratio:{method.ratio:g}"
        if method.variant == "codebook":
            size = f"d:{method.block}|K:{method.clusters}|closing:{method.closing_exchanges}"
            size += f"|carry:{method.carry:g}" if method.carry < 1 else ""
        elif method.variant == "partition":
            size += f"|{method.partition}|closing:{method.closing_exchanges}"
        size += f"|exchanges:{method.exchanges}" if method.exchanges > 1 else ""
        name = f"{name}.{method.variant}|{size}"
    if config.privacy.mechanism != "none":
        spent = upper(config.privacy.epsilon) if config.privacy.epsilon else "inf"
        name += f"|dp:{config.privacy.mechanism}|eps:{spent}|delta:{upper(config.privacy.delta)}"
    clients = config.clients
    split = f"{clients.split}{clients.alpha:g}" if clients.split == "dirichlet" else clients.split
    if clients.folders:
        split = "folders"
    parts = (f"N:{clients.count}", f"split:{split}", f"rounds:{config.rounds}", f"seed:{config.seed}")
    data = f"data:{prepared.corpus.digest[:8]}"
    return "|".join((name, *parts, data, f"cfg:{prepared.digest.hex()[:8]}", f"tf:{version('trustformer')}"))


def _evaluate(
    who: str,
    weights: Weights,
    test: Sequence[Pair],
    config: Config,
    prepared: Prepared,
    directory: RunDirectory,
    reporter: Reporter,
) -> Evaluation:
    set_weights(prepared.model, weights)
    what = "translating" if config.model.task == "translation" else "scoring"
    evaluation = prepared.task.evaluate(
        prepared.model,
        test,
        config.evaluation,
        config.model.max_length,
        lambda done, total: reporter.progress(f"{what} the test set · {who}", done, total, "sentences"),
    )
    if evaluation.outputs:
        folder = "translations" if config.model.task == "translation" else "outputs"
        directory.write(f"{folder}/{who}.txt", ("\n".join(evaluation.outputs) + "\n").encode())
    return evaluation


def _bytes(config: Config, prepared: Prepared, ledger: Ledger, directory: RunDirectory) -> dict[str, Any]:
    """Mean bytes of a client in a round of training; those of closing exchanges and catch-up are in the sum."""
    rounds = directory.rounds()
    taken_part = sum(len(record["present"]) for record in rounds if record["training"])
    dense = 4 * sum(values.size for values in prepared.start.values())
    layers = describe_layers(prepared.start, prepared.method.codec, embeddings_of(prepared.model))
    lags = [lag for one in missed([record["present"] for record in rounds]) for lag in one]
    jumps = sum(lag > config.clients.max_lag for lag in lags)
    aggregates = sum(1 + lag for lag in lags if lag <= config.clients.max_lag) + jumps
    models = jumps if prepared.common else 0
    numbers: dict[str, Any] = {
        "embedding_parameters": sum(layer["parameters"] for layer in layers if layer["embedding"])
    }
    messages: dict[Direction, int] = {"up": ledger.uploads, "down": aggregates}
    for direction, count in messages.items():
        total = sum(ledger.total(direction).values())
        mean = total / taken_part
        numbers[f"bytes_{direction}_per_client_round"] = round(mean, 1) if total else 0
        numbers[f"bytes_{direction}_total"] = total
        numbers[f"compression_{direction}"] = round(dense / mean, 3) if total else None
        numbers[f"compression_{direction}_without_embeddings"] = without_embeddings(
            layers, total, count, models, taken_part, direction
        )
    return numbers


def _domains(judged: Sequence[Evaluation], common: Evaluation | None) -> dict[str, Any]:
    first = judged[0].domains
    return {
        domain: {
            "pairs": first[domain]["pairs"],
            "bleu": float(np.mean([one.domains[domain]["bleu"] for one in judged])),
            "bleu_per_client": [one.domains[domain]["bleu"] for one in judged],
            "bleu_common": common.domains[domain]["bleu"] if common else None,
        }
        for domain in first
    }
