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

from trustformer.attestation.simulated import BANNER
from trustformer.codec.weights import Weights
from trustformer.data.batches import Example
from trustformer.data.marian import stored_tokenizer
from trustformer.evaluation.bootstrap import make_bleu
from trustformer.evaluation.translation import negative_log_likelihood
from trustformer.experiment.cohorts import check_played, check_sponsors, make_cohorts
from trustformer.experiment.config import Config
from trustformer.experiment.corpora import target_language
from trustformer.experiment.layers import describe_layers, embeddings_of, exchanged
from trustformer.experiment.parties import Federation, assemble
from trustformer.experiment.prepare import Prepared, prepare
from trustformer.experiment.record import RunDirectory, environment
from trustformer.experiment.refusals import Refusals, combined_of
from trustformer.experiment.reporter import Reporter
from trustformer.experiment.result import make_result, own_models, save_models
from trustformer.experiment.terms import check_experiment, check_norm, keep_promise
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
    directory = RunDirectory.open(out, config.to_toml(), resume=resume)
    with directory.locked():
        finished = directory.result()
        if finished is not None:
            reporter.note(f"{out} is finished")
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


def _run(
    config: Config,
    prepared: Prepared,
    directory: RunDirectory,
    federation: Federation,
    cohorts: Sequence[Cohort],
    reporter: Reporter,
) -> dict[str, Any]:
    rounds = len(cohorts)
    _announce(config, prepared, directory, reporter)
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
        reporter.note(_line(record, rounds, prepared.method.codec is not None))
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
            check_norm(config, prepared.method.codec, prepared.guarantee)
        device = describe_device(prepared.model.device)
        directory.write_json("environment.json", {**environment(), "device": device})
        layers = describe_layers(prepared.start, prepared.method.codec, embeddings_of(prepared.model))
        directory.write_json("layers.json", layers)
        directory.write("experiment.digest", prepared.digest)
        directory.write("tokenizer.model", prepared.tokenizer.model)
    keep_promise(directory, prepared.guarantee, "restore the file of clients.cohorts and the version of opacus")
    return prepared, cohorts


def _announce(config: Config, prepared: Prepared, directory: RunDirectory, reporter: Reporter) -> None:
    corpus = prepared.corpus
    for warning in corpus.warnings:
        reporter.note(f"warning: {warning}")
    counts = [len(examples) for examples in prepared.clients.values()]
    domains = len({pair.domain for pair in corpus.train})
    if config.clients.split == "domain" and not config.clients.folders and domains < len(counts):
        reporter.note(f"warning: {domains} domains for {len(counts)} clients: the biggest are divided")
    sizes = ", ".join(f"{count:,}" for count in counts)
    if len(counts) > 10:
        sizes = f"{min(counts):,} to {max(counts):,}, {len(counts)} clients"
    parameters = sum(values.size for values in prepared.start.values())
    reporter.note(f"data     {corpus.name}; pairs of each client: {sizes}")
    reporter.note(
        f"model    {config.model.preset}, {parameters:,} parameters, vocabulary {prepared.tokenizer.vocab_size:,}"
    )
    if prepared.guarantee is not None:
        reporter.note(f"privacy  {prepared.guarantee}")
    if prepared.method.codec is None and (config.clients.participation < 1 or config.clients.cohorts):
        reporter.note(f"warning: with {config.method.name} every client trains in every round, whatever the cohorts")
    if prepared.method.codec is not None:
        if len(counts) < 3:
            whose = "the combined model is its own update" if len(counts) == 1 else "each can tell the other's update"
            reporter.note(f"warning: with {'one client' if len(counts) == 1 else 'two clients'} {whose}")
        reporter.note(BANNER)
        if config.record_messages:
            reporter.note(f"warning: record_messages keeps every update IN THE CLEAR in {directory.path / 'messages'}")
    reporter.note(f"record   {directory.path}")


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


def _line(record: dict[str, Any], rounds: int, exchanges: bool) -> str:
    kind = "" if record["training"] else " (exchange only)"
    text = f"round {record['round']:>{len(str(rounds))}}/{rounds}{kind}  loss {record['loss']:.3f}"
    if "valid_nll" in record:
        own = [value for key, value in record["valid_nll"].items() if key != "common"]
        own = own or [record["valid_nll"]["common"]]
        text += f"  valid nll {np.mean(own):.3f}"
    if exchanges:
        present, counted = len(record["present"]), len(combined_of(record))
        up, down = (sum(record[key].values()) / max(1, present) / 1000 for key in ("bytes_up", "bytes_down"))
        who = f"{counted}" if counted == present else f"{counted} of {present}"
        text += f"  {who} clients, kB {up:,.0f} up {down:,.0f} down"
    return f"{text}  {record['seconds']['round']:.3g} s"
