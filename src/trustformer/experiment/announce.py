# SPDX-License-Identifier: Apache-2.0
"""What a run says: before it begins, and of every round."""

from __future__ import annotations

from typing import Any

import numpy as np

from trustformer.attestation.simulated import BANNER
from trustformer.experiment.config import Config
from trustformer.experiment.prepare import Prepared
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.refusals import combined_of
from trustformer.experiment.reporter import Reporter


def announce(config: Config, prepared: Prepared, directory: RunDirectory, reporter: Reporter) -> None:
    """Say before the first round what is trained on, by whom, and what to be warned of."""
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


def round_line(record: dict[str, Any], rounds: int, exchanges: bool) -> str:
    """Return the line of a finished round.

    Args:
        record: of the round.
        rounds: of the run.
        exchanges: whether anything travels.
    """
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
