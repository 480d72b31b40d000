# SPDX-License-Identifier: Apache-2.0
"""`trustformer attack`: run the attacks on a run's recorded messages, each beside chance."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from trustformer.attacks.inversion import invert
from trustformer.attacks.membership import lira, losses, shadow_losses
from trustformer.attacks.probe import gradient, local_epoch, messages, whole_epochs
from trustformer.attacks.scores import Floats, separation
from trustformer.attacks.sizes import lengths, timing
from trustformer.attacks.view import ADVERSARIES, Adversary, as_client, as_enclave, as_host
from trustformer.data.batches import Example
from trustformer.errors import ConfigError, TrustformerError
from trustformer.experiment.attack_text import Rows, message_name, prober, sentences, tokens
from trustformer.experiment.parties import make_trainer
from trustformer.experiment.recorded import MOST, Audited, load_audited
from trustformer.experiment.reporter import Reporter

_INVERSION_STEPS = 300


def attack(run: Path, names: Sequence[str], adversaries: Sequence[Adversary], reporter: Reporter) -> dict[str, Any]:
    """Attack a run and leave what was found in its `attack.json`, beside what earlier calls found.

    Args:
        run: a finished run with `record_messages = true`.
        names: of `ATTACKS`.
        adversaries: whose view to attack from.
        reporter: shows progress.

    Returns:
        The run's signature and privacy, by attack one row a figure, each naming its adversary, and under `skipped` why
        an attack was not possible on this run.

    Raises:
        ConfigError: no such run, no recorded messages, or none of the attacks is possible.
    """
    audited = load_audited(run)
    torch.set_num_threads(audited.config.threads)
    privacy = audited.prepared.guarantee.to_dict() if audited.prepared.guarantee else None
    report: dict[str, Any] = {"run": audited.signature, "privacy": privacy, "attacks": {}, "skipped": {}}
    failure = ""
    for name in names:
        possible, function = ATTACKS[name]
        chosen = [adversary for adversary in adversaries if adversary in possible]
        if not chosen:
            continue
        reporter.note(f"{name}, as {', '.join(chosen)}")
        try:
            report["attacks"][name] = function(audited, chosen, reporter)
            failure = _keep(audited, report, adversaries)
        except ConfigError as error:
            if len(names) == 1:
                raise
            report["skipped"][name] = str(error)
            reporter.note(f"{name} skipped: {error}")
    if not report["attacks"] and report["skipped"]:
        raise ConfigError(f"no attack is possible on {run}: {next(iter(report['skipped'].values()))}")
    if not report["attacks"]:
        raise ConfigError(
            f"{', '.join(names)}: nothing for --as {', '.join(adversaries)} to attack",
            "the host sees ciphertext only: sizes and times are all it can attack",
        )
    if failure:
        reporter.note(f"warning: the report is not kept: {failure}")
    return report


def _keep(audited: Audited, report: dict[str, Any], asked: Sequence[Adversary]) -> str:
    """Write what is known so far, with what earlier calls on the same run found by other attacks or adversaries.

    Returns why it cannot be written, nothing where it was.
    """
    path = audited.directory.path / "attack.json"
    before = json.loads(path.read_text("utf-8")) if path.exists() else {}
    found = before["attacks"] if before.get("run") == report["run"] else {}
    others = {name: [row for row in rows if row["adversary"] not in asked] for name, rows in found.items()}
    attacks = found | {name: others.get(name, []) + rows for name, rows in report["attacks"].items()}
    try:
        audited.directory.write_json("attack.json", report | {"attacks": attacks})
    except TrustformerError as error:
        return error.message
    return ""


def membership(audited: Audited, adversaries: Sequence[Adversary], reporter: Reporter) -> Rows:
    """Whether a pair was in the first client's training data; the client that asks is the last one."""
    audited.check_pairs()
    prepared, config = audited.prepared, audited.config
    if len(prepared.clients) < 2:
        raise ConfigError("nobody is there to ask: the run has one client")
    victim, *_, observer = prepared.clients
    view, trains = as_enclave(audited.record), prepared.method.trains
    trained = [number for number, client in view.updates if client == victim and trains(number, config.rounds)]
    if not trained:
        raise ConfigError(f"client {victim}, whose text is asked about, sent no update after training")
    members, outside = prepared.clients[victim][:MOST], audited.outside
    both = [*members, *outside]
    public = _unseen(both, audited.known)
    if not outside or not public:
        what = "shadow models could learn from" if outside else "no client trained on"
        raise ConfigError(f"the corpus has no text that {what}", "lower data.limit, or give other data.test")
    rounds = max(1, round(config.rounds * min(1, config.train.local_epochs)))
    config = msgspec.structs.replace(config, train=whole_epochs(config.train), rounds=rounds)
    trainer = make_trainer(config, prepared.model, prepared.method, prepared.task, prepared.guarantee)
    shadows = shadow_losses(
        *(trainer, prepared.model, prepared.start, public, both),
        count=4,
        size=len(prepared.clients[victim]),
        rounds=rounds,
        seed=config.seed,
        report=partial(reporter.progress, "membership · shadow models", unit="rounds"),
    )
    rows = []
    for adversary in adversaries:
        if adversary == "client":
            client_view = as_client(audited.record, observer)
            attacked = {"final common model" if audited.record.common else "final centroids": client_view.final}
        else:
            last = max(trained)
            attacked = {f"decoded model, round {last}": view.after(last, view.updates[last, victim].body)}
        for what, weights in attacked.items():
            loss_N = losses(prepared.model, weights, both)
            for name, score_N in (("loss", -loss_N), ("LiRA", lira(loss_N, shadows))):
                rows.append(_member_row(adversary, what, name, score_N, len(members), config.seed))
    return rows


def _unseen(scored: Sequence[Example], known: Sequence[Example]) -> list[Example]:
    """Known text without what is scored: no shadow model may have seen any of that."""
    pairs = {(*example.source, None, *example.target) for example in scored}
    return [example for example in known if (*example.source, None, *example.target) not in pairs]


def _member_row(adversary: str, what: str, name: str, score_N: Floats, members: int, seed: int) -> dict[str, Any]:
    figures = separation(score_N[:members], score_N[members:], np.random.default_rng(seed))
    return {
        "adversary": adversary,
        "model": what,
        "attack": name,
        "members": members,
        "others": len(score_N) - members,
        **asdict(figures),
    }


def inversion(audited: Audited, adversaries: Sequence[Adversary], reporter: Reporter) -> Rows:
    """Gradient matching on the shortest sentence pair of the first client."""
    audited.check_pairs()
    prepared = audited.prepared
    example = min(next(iter(prepared.clients.values())), key=lambda e: len(e.source) + len(e.target))
    weights = prepared.start
    trained = local_epoch(prober(audited), weights, [example])
    told = messages({message_name(audited): prepared.method}, weights, trained)
    attacked = {"gradient": gradient(prepared.model, weights, [example], 0.0)}
    attacked |= {name: {key: -values for key, values in drift.items()} for name, drift in told.items()}
    rows = []
    for name, message in attacked.items():
        report = partial(reporter.progress, f"inversion · {name}", unit="steps")
        found = invert(
            *(prepared.model, weights, message, example),
            steps=_INVERSION_STEPS,
            seed=audited.config.seed,
            report=report,
        )
        placed = np.mean([a == b for a, b in zip(found, example.source, strict=True)])
        present = Counter(found) & Counter(example.source)
        rows.append(
            {
                "adversary": "enclave",
                "message": name,
                "length": len(found),
                "in_place": float(placed),
                "present": present.total() / len(found),
                "chance": _likely_guess(audited, example),
            }
        )
    return rows


def _likely_guess(audited: Audited, example: Example) -> float:
    """Tokens in place when the most frequent token of known text is guessed everywhere, and the end at the end."""
    if not audited.known:
        raise ConfigError("there is no public text to guess from", "set tokenizer.train_on, or data.valid")
    end = audited.prepared.tokenizer.eos_id
    counts = Counter(token for known in audited.known for token in known.source if token != end)
    guess = counts.most_common(1)[0][0]
    return sum(token in (guess, end) for token in example.source) / len(example.source)


def sizes(audited: Audited, adversaries: Sequence[Adversary], reporter: Reporter) -> Rows:
    """What lengths and times tell the host."""
    view = as_host(audited.record)
    counts = {client: len(examples) for client, examples in audited.prepared.clients.items()}
    rows: Rows = [{"adversary": "host", "attack": "lengths", **asdict(found)} for found in lengths(view)]
    return [*rows, {"adversary": "host", "attack": "timing", "examples": counts, **asdict(timing(view, counts))}]


Attack = Callable[[Audited, Sequence[Adversary], Reporter], Rows]
ATTACKS: dict[str, tuple[tuple[Adversary, ...], Attack]] = {
    "tokens": (("client", "enclave"), tokens),
    "sentences": (("enclave",), sentences),
    "membership": (("client", "enclave"), membership),
    "inversion": (("enclave",), inversion),
    "sizes": (ADVERSARIES[:1], sizes),
}
