# SPDX-License-Identifier: Apache-2.0
"""Attacks on what a message tells about text: its tokens, and whole sentences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import msgspec
import numpy as np

from trustformer.attacks.dager import Dager, lacking
from trustformer.attacks.probe import gradient, local_epoch, messages, whole_epochs
from trustformer.attacks.rows import NOT_SENT, embedding_of, silent, token_scores, whose
from trustformer.attacks.scores import Floats, ranking
from trustformer.attacks.sources import Sentence
from trustformer.attacks.view import Adversary, as_client, as_enclave, difference
from trustformer.codec.weights import Weights
from trustformer.data.batches import Example
from trustformer.errors import ConfigError
from trustformer.experiment.layers import embeddings_of
from trustformer.experiment.parties import make_trainer
from trustformer.experiment.recorded import Audited
from trustformer.experiment.reporter import Reporter
from trustformer.training import LocalTrainer

Rows = list[dict[str, Any]]

_PROBES = ((1, 3), (2, 3), (4, 3))
"""Sentences of a probe, and how many probes of that size."""
_ATTEMPTS = 4


def tokens(audited: Audited, adversaries: Sequence[Adversary], reporter: Reporter) -> Rows:
    """Which tokens a text has: from messages of the run, and from a client with a few sentences."""
    audited.check_pairs()
    if not embeddings_of(audited.prepared.model) & audited.prepared.start.keys():
        raise ConfigError("the messages hold no rows of tokens", NOT_SENT)
    texts = {client: _token_set(audited, examples) for client, examples in audited.prepared.clients.items()}
    rows: Rows = []
    for adversary in adversaries:
        if adversary == "enclave":
            rows += _recorded_tokens(audited, texts) + _probed_tokens(audited, reporter)
        else:
            rows += _others_tokens(audited, texts)
    if not rows:
        raise ConfigError(
            "no message leaves anything to guess: its text has all the tokens that it tells of, or none of them",
            "give a run with a larger tokenizer.vocab_size, or with other text",
        )
    return rows


def _recorded_tokens(audited: Audited, texts: dict[str, set[int]]) -> Rows:
    """From the first updates, as a broken enclave reads them."""
    view = as_enclave(audited.record)
    drifts = {client: view.drift(1, client) for client in texts if (1, client) in view.updates}
    rows = []
    for client, drift in drifts.items():
        rows += _drift_rows(audited, "enclave", f"update of client {client}, round 1", drift, texts[client])
    if len(drifts) < 2:
        return rows
    untold = set().union(*(_silent(audited, drift) for drift in drifts.values()))
    scores = {client: _score(audited, drift) for client, drift in drifts.items()}
    count, right = whose(scores, {client: texts[client] - untold for client in drifts})
    rows.append(
        {"adversary": "enclave", "message": "updates, round 1", "attack": "whose", "tokens": count, "auc": right}
    )
    return rows


def _others_tokens(audited: Audited, texts: dict[str, set[int]]) -> Rows:
    """As one client: the first aggregate without its own share tells about the text of the others that are in it.

    The client is told its share, which the others' numbers of examples decide.
    """
    me = next(iter(texts))
    view = as_client(audited.record, me)
    rest, share = difference(view.reference(2), view.reference(1)), first_share(audited, me)
    if share:
        own = view.drift(1, me)
        rest = {name: values - share * own[name] for name, values in rest.items()}
    present = set().union(*(texts[client] for client in view.combined[1] if client != me)) - texts[me]
    return _drift_rows(audited, "client", "first aggregate: tokens the client has not", rest, present, texts[me])


def first_share(audited: Audited, client: str) -> float:
    """Return the weight of a client's update in the first aggregate, as `aggregation` has it; 0 where it is not in it.

    Of the trimmed mean it is what a client would weigh if nothing were cut off.
    """
    config, record = audited.config, audited.record
    counts = {name: record.updates[1, name].num_examples for name in record.combined[1]}
    if client not in counts:
        return 0.0
    if config.privacy.mechanism == "enclave":
        return 1 / (config.clients.participation * config.clients.count)
    if config.enclave.rule == "trimmed_mean":
        return 1 / len(counts)
    own, total, largest, most = counts[client], sum(counts.values()), max(counts.values()), config.clients.max_share
    if len(counts) == 1 or largest <= most * total:
        return own / total
    return most if own == largest else (1 - most) * own / (total - largest)


def _probed_tokens(audited: Audited, reporter: Reporter) -> Rows:
    rows = []
    if why := lacking(audited.prepared.model, audited.prepared.start):
        reporter.note(f"tokens without spans: {why}")
    for sentences, message, weights, drift, examples in _probes(audited, reporter):
        present = _token_set(audited, examples)
        where = f"{message}, {sentences} sentence{'s' if sentences > 1 else ''}"
        rows += _drift_rows(audited, "enclave", where, drift, present)
        if not why:
            dager = Dager(audited.prepared.model, weights, drift)
            nearest = np.minimum(dager.token_distances("source"), dager.token_distances("target"))
            rows += _token_rows(audited, "enclave", where, "span", -nearest, present)
    return _average(rows, ("adversary", "message", "attack"))


def sentences(audited: Audited, adversaries: Sequence[Adversary], reporter: Reporter) -> Rows:
    """Whole sentences of a client with a few, by DAGER."""
    audited.check_pairs()
    if why := lacking(audited.prepared.model, audited.prepared.start):
        raise ConfigError(why)
    rows = []
    rng = np.random.default_rng(0)
    for count, message, weights, drift, examples in _probes(audited, reporter):
        dager = Dager(audited.prepared.model, weights, drift)
        told = partial(reporter.progress, f"sentences · {message} of {count}", unit="steps")
        targets = dager.targets()
        sources = dager.sources(count, _ATTEMPTS, rng, told)  # an update says how many examples it is of
        sides = {side: _token_set(audited, examples, side) for side in ("source", "target")}
        found = {side: set(dager.tokens(side)) - audited.special for side in sides}
        right = sum(len(found[side] & sides[side]) for side in sides)
        rows.append(
            {
                "adversary": "enclave",
                "message": message,
                "sentences": count,
                "tokens_found": right / sum(map(len, sides.values())),
                "tokens_wrong": sum(map(len, found.values())) - right,
                "targets_exact": _exact(targets, [tuple(example.target[:-1]) for example in examples]),
                "sources_exact": _exact(sources, [tuple(example.source) for example in examples]),
            }
        )
    return _average(rows, ("adversary", "message", "sentences"))


def _exact(found: Sequence[Sentence], truth: Sequence[Sentence]) -> float:
    return len(set(found) & set(truth)) / len(set(truth))


def _probes(audited: Audited, reporter: Reporter) -> Iterable[tuple[int, str, Weights, Weights, list[Example]]]:
    """Yield number of sentences, message, model, drift or gradient, and the truth, for a few draws of each size."""
    prepared, rng = audited.prepared, np.random.default_rng(audited.config.seed)
    private = next(iter(prepared.clients.values()))
    width = prepared.model.config.d_model
    weights, train, trainer = prepared.start, audited.config.train, prober(audited)
    batches = [examples for size, draws in _PROBES for examples in _draws(private, size, draws, width, rng)]
    if not batches:
        raise ConfigError(f"no sentence of client text has fewer tokens than the model is wide ({width})")
    for done, examples in enumerate(batches):
        told = {"FedSGD gradient": gradient(prepared.model, weights, examples, train.label_smoothing)}
        trained = local_epoch(trainer, weights, examples)
        told |= messages({message_name(audited): prepared.method}, weights, trained)
        for message, drift in told.items():
            yield len(examples), message, weights, drift, examples
        reporter.progress("probes", done + 1, len(batches), "batches")


def _draws(
    private: Sequence[Example], size: int, draws: int, width: int, rng: np.random.Generator
) -> Iterable[list[Example]]:
    """Batches of one client's sentences with fewer tokens a side than the model is wide; fewer where there are none."""
    for _ in range(draws):
        order = rng.permutation(len(private)).tolist()
        for start in range(0, len(order) - size + 1, size):
            chosen = [private[i] for i in order[start : start + size]]
            if max(sum(len(e.source) for e in chosen), sum(len(e.target) for e in chosen)) < width:
                yield chosen
                break


def message_name(audited: Audited) -> str:
    """What the run's own messages are called in a report."""
    method = audited.config.method
    return f"{method.variant} message" if method.name == "centroid" else f"{method.name} message"


def prober(audited: Audited) -> LocalTrainer:
    """What trains a probe: as a client of the run, its noise included, in whole epochs and with nothing cooled down."""
    config, prepared = audited.config, audited.prepared
    config = msgspec.structs.replace(config, train=msgspec.structs.replace(whole_epochs(config.train), cooldown=0))
    return make_trainer(config, prepared.model, prepared.method, prepared.task, prepared.guarantee)


def _score(audited: Audited, drift: Weights) -> Floats:
    return token_scores(embedding_of(drift, audited.prepared.model.config.vocab_size))


def _token_set(audited: Audited, examples: Iterable[Example], *sides: str) -> set[int]:
    return {t for e in examples for side in sides or ("source", "target") for t in getattr(e, side)} - audited.special


def _silent(audited: Audited, drift: Weights) -> set[int]:
    return silent(embedding_of(drift, audited.prepared.model.config.vocab_size))


def _drift_rows(
    audited: Audited,
    adversary: str,
    message: str,
    drift: Weights,
    present: set[int],
    known: frozenset[int] | set[int] = frozenset(),
) -> Rows:
    """The row of one message, over the tokens it says anything about."""
    known = known | _silent(audited, drift)
    return _token_rows(audited, adversary, message, "rows", _score(audited, drift), present, known)


def _token_rows(
    audited: Audited,
    adversary: str,
    message: str,
    name: str,
    score_V: Floats,
    present: set[int],
    known: frozenset[int] | set[int] = frozenset(),
) -> Rows:
    """A ranking beside the one by how often known text has a token; no row where the text has all it ranks, or none."""
    ignored = audited.special | known
    ranked = set(range(len(score_V))) - ignored
    if not present & ranked or ranked <= present:
        return []
    counts_V = np.zeros(len(score_V))
    for example in audited.known:
        for token in (*example.source, *example.target):
            counts_V[token] += 1
    found, guess = ranking(score_V, present, ignored), ranking(counts_V, present, ignored)
    row = {
        "adversary": adversary,
        "message": message,
        "attack": name,
        "tokens": found.tokens,
        "found": found.found,
        "auc": found.auc,
        "random": found.tokens / len(ranked),
        "frequency": guess.found,
        "frequency_auc": guess.auc,
    }
    return [row]


def _average(rows: Rows, keys: Sequence[str]) -> Rows:
    """Means of rows alike in `keys`, with their number."""
    groups: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        dict(zip(keys, values, strict=True))
        | {key: float(np.mean([row[key] for row in group])) for key in group[0] if key not in keys}
        | {"draws": len(group)}
        for values, group in groups.items()
    ]
