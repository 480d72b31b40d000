# SPDX-License-Identifier: Apache-2.0
"""The recorded messages of a finished run, and the truth that attacks on them are scored against."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from trustformer.attacks.view import Record, Relayed
from trustformer.data.batches import Example, to_examples
from trustformer.data.corpus import Pair
from trustformer.data.marian import stored_tokenizer
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.config import Config, load_config
from trustformer.experiment.prepare import Prepared, load_corpus, prepare
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.refusals import combined_of
from trustformer.experiment.result import signature
from trustformer.message import Aggregate, Update
from trustformer.methods import Codec
from trustformer.vq import body_size

MOST = 400
"""Pairs that a membership attack scores: so many members and so many others, at most."""
_ENOUGH = 100
"""Pairs that the training file must have left to be the non-members."""


@dataclass(frozen=True)
class Audited:
    """A run under attack.

    Attributes:
        record: what was sent; the views restrict it.
        outside: pairs of the same corpus that no client trained on: non-members, at most `MOST`.
        known: text every adversary has: the public share, or the validation set where there is none.
    """

    directory: RunDirectory
    config: Config
    prepared: Prepared
    record: Record
    signature: str
    outside: list[Example]
    known: list[Example]

    @property
    def special(self) -> set[int]:
        """Tokens of no text: the tokenizer's pad and end."""
        return {self.prepared.tokenizer.pad_id, self.prepared.tokenizer.eos_id}

    def check_pairs(self) -> None:
        """Raise `ConfigError` where a model was not trained on sentence pairs."""
        task = self.config.model.task
        if task != "translation":
            raise ConfigError(f"this attack reads pairs of translation, and the run's task is {task}")


def load_audited(run: Path) -> Audited:
    """Load a run, its messages and its data.

    Raises:
        ConfigError: no run, not finished, nothing was exchanged, or its messages were not kept.
        DataError: the data are not those of the run any more.
    """
    directory = RunDirectory.existing(run)
    result = directory.finished()
    config = load_config(run / "config.toml")
    if not config.record_messages:
        if config.method.name in ("local", "centralized"):
            raise ConfigError(f"{run} is a {config.method.name} run: it sent nothing", "give the run of a federation")
        raise ConfigError(
            f"{run} kept no messages to attack", "run it again with --set record_messages=true and another --out"
        )
    if config.clients.count < 2:
        raise ConfigError(f"{run} has one client: there is no other to attack", "give a run of two clients or more")
    prepared = prepare(config, stored_tokenizer(run / "tokenizer.model"))
    prepared.model.cpu()  # attacks make their batches there
    if signature(config, prepared).partition("|tf:")[0] != result["signature"].partition("|tf:")[0]:
        raise DataError(f"the data or the code of {run} have changed since", "restore them, or run it again")
    codec = prepared.method.codec
    if codec is None:
        raise ConfigError(f"{run} is a {config.method.name} run: it sent nothing", "give the run of a federation")
    outside, known = _other_text(config, prepared)
    record = _read(directory, config, prepared, codec)
    return Audited(directory, config, prepared, record, result["signature"], outside, known)


def _read(directory: RunDirectory, config: Config, prepared: Prepared, codec: Codec) -> Record:
    folder = directory.path / "messages"
    try:
        lines = (folder / "host.jsonl").read_text("utf-8").splitlines()
        relayed = []
        for line in lines:
            fields = json.loads(line)
            relayed.append(Relayed(fields["direction"], fields["kind"], fields["bytes"]))
        updates = {}
        for path in sorted((folder / "opened").glob("round-*-client-*.update")):
            update = Update.from_bytes(path.read_bytes(), body_size(codec.upload))
            updates[update.round, path.stem.partition("-client-")[2]] = update
        aggregates = {}
        for path in sorted((folder / "opened").glob("round-*.aggregate")):
            aggregate = Aggregate.from_bytes(path.read_bytes(), body_size(codec.answer))
            aggregates[aggregate.round] = aggregate.body
    except OSError as error:
        raise ConfigError(f"{folder} cannot be read: {error.strerror}", "run it again, with another --out") from None
    rounds = directory.rounds()
    combined = {entry["round"]: combined_of(entry) for entry in rounds}
    known = {(number, client) for number, clients in combined.items() for client in clients}
    if not known or known - updates.keys() or sorted(aggregates) != sorted(combined):
        raise ConfigError(f"{folder} lacks messages of the run", "run it again, with another --out")
    busy = {
        (entry["round"], client): seconds for entry in rounds for client, seconds in entry["training_seconds"].items()
    }
    return Record(
        relayed=tuple(relayed),
        busy=busy,
        updates=updates,
        aggregates=aggregates,
        combined=combined,
        start=prepared.start,
        codec=codec,
        common=prepared.method.common,
        seed=config.seed,
    )


def _other_text(config: Config, prepared: Prepared) -> tuple[list[Example], list[Example]]:
    """Non-members and publicly known text.

    Non-members come from the training file, after the pairs that were used, where `data.limit` leaves enough of them:
    they differ from members in nothing else. Where it does not, they come from the test set. None equals a member.
    """
    corpus, limit = prepared.corpus, config.data.limit
    public = load_corpus(config)[1]
    members = {(pair.source, pair.target) for pair in corpus.train}
    unused: list[Pair] = []
    if limit and config.data.source != "toy" and not config.clients.folders:
        whole = msgspec.structs.replace(config, data=msgspec.structs.replace(config.data, limit=0))
        unused = _without(members, load_corpus(whole)[0].train[limit:])
    held_out = corpus.test + corpus.valid if public else corpus.test  # shadow models learn from `known`
    outside = (unused if len(unused) >= _ENOUGH else _without(members, held_out))[:MOST]
    length = config.model.max_length
    known = public or corpus.valid
    return to_examples(outside, prepared.tokenizer, length), to_examples(known, prepared.tokenizer, length)


def _without(members: Collection[tuple[str, str]], pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if (pair.source, pair.target) not in members]
