# SPDX-License-Identifier: Apache-2.0
"""A run from config to record. It may be killed anywhere and taken up again with the same final weights."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trustformer.codec.weights import Weights
from trustformer.data.batches import Example
from trustformer.data.marian import stored_tokenizer
from trustformer.evaluation.bootstrap import make_bleu
from trustformer.evaluation.translation import negative_log_likelihood
from trustformer.experiment.announce import announce, round_line
from trustformer.experiment.checks import check_preset
from trustformer.experiment.cohorts import check_played, check_sponsors, make_cohorts
from trustformer.experiment.config import Config
from trustformer.experiment.corpora import target_language
from trustformer.experiment.layers import describe_layers, embeddings_of, exchanged
from trustformer.experiment.parties import Federation, assemble
from trustformer.experiment.prepare import Prepared, prepare
from trustformer.experiment.record import RunDirectory, environment
from trustformer.experiment.refusals import Refusals
from trustformer.experiment.reporter import Reporter
from trustformer.experiment.result import make_result, own_models, save_models
from trustformer.experiment.terms import check_experiment, check_terms, keep_promise
from trustformer.federation.client import Client
from trustformer.federation.round import NOBODY, Cohort, run_round
from trustformer.models.seq2seq import set_weights
from trustformer.training.device import describe_device


def run(config: Config, out: Path, reporter: Reporter, *, resume: bool = False) -> dict[str, Any]:
    """Run a federation on one machine and return its result.

    Args:
        config: the run's config.
        out: run directory.
        reporter: shows progress.
        resume: go on with what is in `out`; a finished run is returned as it is.

    Raises:
        TrustformerError: naming what went wrong; what was done before is kept.
    """
    fresh = not (out / "config.toml").exists()
    if fresh:
        check_preset(config)
    directory = RunDirectory.open(out, config.to_toml(), resume=resume)
    finished = _finished(directory, reporter)
    if finished is not None:  # before the lock, for which a read-only folder has no place
        return finished
    with directory.locked():
        finished = _finished(directory, reporter)
        if finished is not None:  # by another process, meanwhile
            return finished
        torch.set_num_threads(config.threads)
        reporter.note("reading data, preparing vocabulary and model")
        try:
            prepared, cohorts = _prepare(config, directory)
        except BaseException:
            if fresh:
                directory.abandon()  # a mended config may take the same place
            raise
        federation = assemble(config, prepared, directory, len(cohorts))
        try:
            return _run(config, prepared, directory, federation, cohorts, reporter)
        finally:
            federation.stop()


def _finished(directory: RunDirectory, reporter: Reporter) -> dict[str, Any] | None:
    """The result of a run that is finished, which is said."""
    result = directory.result()
    if result is not None:
        reporter.note(f"{directory.path} is finished")
    return result


def _run(
    config: Config,
    prepared: Prepared,
    directory: RunDirectory,
    federation: Federation,
    cohorts: Sequence[Cohort],
    reporter: Reporter,
) -> dict[str, Any]:
    rounds = len(cohorts)
    announce(config, prepared, directory, reporter)
    if rounds > config.rounds:
        reporter.note(f"rounds   {rounds}: {config.rounds} with training, {rounds - config.rounds} exchange only")
    valid = prepared.task.examples(prepared.corpus.valid[: config.evaluation.valid_pairs], config.model.max_length)
    refusals = Refusals(config, prepared.method.codec.upload if prepared.method.codec is not None else None)
    for number in range(len(directory.rounds()) + 1, rounds + 1):
        reporter.overall(number - 1, rounds)
        training = prepared.method.trains(number, config.rounds)
        record = _round(number, training, cohorts[number - 1], federation, refusals, reporter)
        if config.record_messages:
            here = [client for client in federation.clients if client.id in record["present"]]
            record["training_seconds"] = {client.id: round(client.seconds["training"], 4) for client in here}
        if valid:
            record["valid_nll"] = _valid_nll(config, prepared, federation.clients, valid, reporter)
        directory.add_round(record)
        reporter.note(round_line(record, rounds, prepared.method.codec is not None))
        for warning in refusals.warnings(record):
            reporter.note(f"warning: {warning}")
    reporter.overall(rounds, rounds)
    save_models(config, prepared, federation.clients, directory)
    result = make_result(config, prepared, federation.clients, federation.ledger, directory, reporter)
    result["seconds"] = round(sum(record["seconds"]["round"] for record in directory.rounds()), 1)
    directory.write_json("result.json", result)
    return result


def _prepare(config: Config, directory: RunDirectory) -> tuple[Prepared, list[Cohort]]:
    stored, began = directory.path / "tokenizer.model", directory.path / "experiment.digest"
    if config.model.task == "translation":
        make_bleu(target_language(config))  # what is not installed is said now
    prepared = prepare(config, stored_tokenizer(stored) if stored.exists() else None)
    cohorts = make_cohorts(config, list(prepared.clients), prepared.method.total(config.rounds))
    if prepared.method.codec is not None:  # others train with everybody, whatever the cohorts
        check_played(cohorts, directory.rounds())
        if prepared.common:
            check_sponsors(cohorts, config.clients.max_lag)
    if stored.exists():
        if began.exists():  # older versions wrote none
            check_experiment(directory, began.read_bytes(), prepared.digest)
    else:
        if prepared.method.codec is not None:
            check_terms(config, prepared, prepared.method.codec, len(cohorts))
        device = describe_device(prepared.model.device)
        directory.write_json("environment.json", {**environment(), "device": device})
        layers = describe_layers(prepared.start, prepared.method.codec, embeddings_of(prepared.model))
        directory.write_json("layers.json", layers)
        directory.write("experiment.digest", prepared.digest)
        directory.write("tokenizer.model", prepared.tokenizer.model)
    keep_promise(directory, prepared.guarantee, "restore the file of clients.cohorts and the version of opacus")
    return prepared, cohorts


def _round(
    number: int, training: bool, cohort: Cohort, federation: Federation, refusals: Refusals, reporter: Reporter
) -> dict[str, Any]:
    started = time.perf_counter()
    clients, host, ledger = federation.clients, federation.host, federation.ledger
    by_id = {client.id: client for client in clients}
    ledger.round = number
    for client in clients:
        client.seconds.clear()
        client.exchanged = {}

    def report(client: str, what: str, done: int, total: int) -> None:
        if client == NOBODY:
            reporter.note(f"round {number}: {what}")
            return
        if what == "sending":
            refusals.sent(by_id[client])
        unit = "tokens" if what == "training" else ""
        reporter.progress(f"client {client} · {what}", done, total, unit)

    if host is None:
        cohort = Cohort(tuple(client.id for client in clients))
        for client in clients:
            client.train(number, report=partial(report, client.id))
        statuses: dict[str, str] = {}
    else:
        host.seconds = 0.0
        with refusals.explained(number, host):
            statuses = run_round(number, clients, host, cohort, report, train=training)
    seconds = {
        kind: round(sum(client.seconds[kind] for client in clients), 3)
        for kind in ("training", "encoding", "sealing", "decoding")
    }
    present = [client for client in clients if client.id in cohort.present]
    return {
        "round": number,
        "training": training,
        "present": list(cohort.present),
        "late": list(cohort.late),
        "duplicate": list(cohort.duplicate),
        "status": statuses,
        "loss": float(np.mean([client.state.loss for client in present if client.state.optimizer.steps] or [0.0])),
        "bytes_up": ledger.total("up", [number]),
        "bytes_down": ledger.total("down", [number]),
        "seconds": {
            **seconds,
            "aggregating": round(host.seconds, 3) if host else 0.0,
            "round": round(time.perf_counter() - started, 3),
        },
        **exchanged(clients),
    }


def _valid_nll(
    config: Config, prepared: Prepared, clients: Sequence[Client], valid: Sequence[Example], reporter: Reporter
) -> dict[str, float]:
    """Nats per token of every client's model that is scored, and of the common one where there is one."""

    def nll(who: str, weights: Weights) -> float:
        set_weights(prepared.model, weights)
        what = f"validation · {who}"
        return negative_log_likelihood(
            prepared.model,
            valid,
            lambda done, total: reporter.progress(what, done, total, "pairs"),
            objective=prepared.task.objective,
        )

    scores = {client.id: nll(client.id, client.state.weights) for client in own_models(config, prepared, clients)}
    if clients[0].state.common:
        newest = max(clients, key=lambda client: client.state.round)
        scores["common"] = nll("common", newest.state.common)
    return scores
