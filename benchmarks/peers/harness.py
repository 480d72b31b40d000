# SPDX-License-Identifier: Apache-2.0
"""Screens coders of drifts: the project's own data, model, training and scores, with the exchange done on arrays.

    TRUSTFORMER_DATA=DIR python benchmarks/peers/harness.py benchmarks/configs/paper/multi30k-fedavg.toml \\
        --codec codebook:block=8,clusters=256 --out runs/peers/codebook --closing 1

Data, tokenizer, G_0, clients, batches and evaluation are those of `trustformer run` with the same config and seed;
its `[method]` is not read. Nothing is sealed: bytes are the lengths of the messages a coder really made, plus what
sealing, signing and greeting add in a recorded run (`SEALING`). A test holds both against `trustformer run`.

A run writes `options.json`, `rounds.jsonl`, `state.safetensors` and `result.json`, prints a line a round, and goes on
where it was killed when started again with the same options. `--list` names the coders. A coder is a class with
`encode` and `decode` (`base.py`), and a line in `registry.py`.

--codec, --answer   coder of the clients and of the answer (the same unless said)
--feedback shift    the residual stays in the client's weights: W_i += ē - e_i (the project's own)
--feedback error    classical: W_i = G after an exchange, the residual is kept and added to the next drift
--feedback none     W_i = G after an exchange, the residual is lost
--every N           exchange every N-th round only; --at 3,6,12 names the rounds instead
--repeat N          N exchanges in a row; --closing N: exchanges without training at the end
--parts N           the tensors in N parts of about equal size, another part each exchange
--decay B           of --feedback error: the residual is multiplied by B before it is used (SparseLoCo: 0.95)
--momentum M        Nesterov's on ē, with --outer-lr (DiLoCo: 0.9 and 0.7); every party derives it from the answers
--carry C           what is left of s, what an answer could not express, after training (the project's `method.carry`)
--keep 2,6,10       write the drifts of these rounds to drifts-N.safetensors before they are exchanged
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from base import Codec, Memory, Outcome
from registry import CODECS, make_codec
from safetensors import safe_open
from safetensors.numpy import save_file

from trustformer.codec.weights import Weights, weights_digest
from trustformer.data.batches import to_examples
from trustformer.errors import ConfigError, TrustformerError
from trustformer.evaluation.translation import negative_log_likelihood, score, translate
from trustformer.experiment.config import Config, load_config
from trustformer.experiment.corpora import target_language
from trustformer.experiment.prepare import Prepared, prepare
from trustformer.experiment.record import environment
from trustformer.models.seq2seq import set_weights
from trustformer.training import LocalTrainer, OptimizerState
from trustformer.training.device import describe_device

SEALING = {"up": 908, "down": 1287, "chunk": 16, "hello": 11232}
"""Bytes beside a body in `benchmarks/results/multi30k-12/centroid-seed1`: of an exchange, of each MiB, of the first."""
EXTRAS = {"decay": 1.0, "momentum": 0.0, "outer_lr": 1.0, "carry": 1.0}
"""Options that are recorded only where they are not at their defaults."""


@dataclass
class Party:
    """One client: weights, Adam's state, the residual of classical feedback, the loss of its last epoch."""

    weights: Weights
    optimizer: OptimizerState = field(default_factory=OptimizerState)
    error: Weights = field(default_factory=dict)
    loss: float = 0.0


@dataclass
class State:
    """Everything a run needs to go on. `memories`: of the enclave, then of every client; `velocity`: of ē."""

    parties: list[Party]
    common: Weights
    s: Weights
    memories: list[Memory]
    velocity: Weights = field(default_factory=dict)
    exchanges: int = 0
    rounds: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Plan:
    """When what is exchanged, and what becomes of residuals."""

    upload: Codec
    answer: Codec
    feedback: str
    at: frozenset[int]
    repeat: int
    parts: int
    max_share: float
    seed: int
    decay: float = 1.0
    momentum: float = 0.0
    outer_lr: float = 1.0
    carry: float = 1.0


def sealed(direction: str, bodies: Sequence[int]) -> int:
    """Bytes on the wire of messages with bodies of these lengths."""
    return sum(SEALING[direction] + body + SEALING["chunk"] * -(-(body + 150) // 2**20) for body in bodies)


def divide(common: Weights, parts: int) -> list[list[str]]:
    """Return tensor names in `parts` groups of about equal size, in the order of the model."""
    total, done, groups = sum(v.size for v in common.values()), 0, [[] for _ in range(parts)]
    for name, values in common.items():
        groups[min(parts - 1, (done + values.size // 2) * parts // total)].append(name)
        done += values.size
    return [group for group in groups if group]


def exchange(state: State, counts: Sequence[int], plan: Plan) -> Outcome:
    """Exchange once; clients, G and s are replaced."""
    groups = divide(state.common, plan.parts)
    names = groups[state.exchanges % len(groups)]
    state.exchanges += 1

    def held(party: Party, name: str) -> Any:
        return party.error[name] * np.float32(plan.decay) if name in party.error else np.float32(0)

    drifts = [
        {name: party.weights[name] - state.common[name] + held(party, name) for name in names}
        for party in state.parties
    ]
    s = {name: state.s[name] for name in names if name in state.s}
    outcome = plan.upload.exchange(
        plan.answer, drifts, state.common, counts, s, state.memories, (plan.seed, state.exchanges), plan.max_share
    )
    state.s.update(outcome.s)
    if plan.momentum:
        outcome.step = _outer_step(outcome.step, state.velocity, plan)
    for party, drift, sent in zip(state.parties, drifts, outcome.sent, strict=True):
        for name in names:
            if plan.feedback == "shift":
                party.weights[name] = party.weights[name] + (outcome.step[name] - sent[name])
            else:
                party.weights[name] = state.common[name] + outcome.step[name]
            if plan.feedback == "error":
                party.error[name] = drift[name] - sent[name]
    for name in names:
        state.common[name] = state.common[name] + outcome.step[name]
    return outcome


def _outer_step(step: Weights, velocity: Weights, plan: Plan) -> Weights:
    """Nesterov's step from ē as a gradient (DiLoCo, arXiv 2311.08105); the velocity is replaced."""
    for name, values in step.items():
        velocity[name] = np.float32(plan.momentum) * velocity.get(name, np.float32(0)) + values
    lr, momentum = np.float32(plan.outer_lr), np.float32(plan.momentum)
    return {name: lr * (momentum * velocity[name] + values) for name, values in step.items()}


def play_round(
    number: int, state: State, prepared: Prepared, config: Config, plan: Plan, keep: Callable[[int, State], None]
) -> dict[str, Any]:
    """One round: training unless it is a closing one, the exchanges that are due, and what they cost."""
    started = time.perf_counter()
    examples = list(prepared.clients.values())
    trainer = LocalTrainer(prepared.model, config.train, rounds=config.rounds)
    if number <= config.rounds:
        for index, party in enumerate(state.parties):
            seed = (config.seed, index, number)
            result = trainer.train(party.weights, party.optimizer, examples[index], seed=seed)
            party.weights, party.optimizer, party.loss = result.weights, result.optimizer, result.loss
    trained = time.perf_counter()
    keep(number, state)
    counts = [len(held) for held in examples]
    record: dict[str, Any] = {"round": number, "training": number <= config.rounds, "up": 0, "down": 0, "distance": []}
    if number in plan.at:
        if number <= config.rounds and plan.carry < 1:
            state.s = {name: values * np.float32(plan.carry) for name, values in state.s.items()}
        for _ in range(plan.repeat):
            first = state.exchanges == 0
            outcome = exchange(state, counts, plan)
            record["up"] += sealed("up", outcome.up)
            record["down"] += sealed("down", outcome.down) + first * SEALING["hello"]
    record["distance"] = [_distance(party.weights, state.common) for party in state.parties]
    record["loss"] = float(np.mean([party.loss for party in state.parties]))
    record["seconds"] = {"training": round(trained - started, 2), "exchange": round(time.perf_counter() - trained, 2)}
    return record


def _distance(one: Weights, other: Weights) -> float:
    return float(np.sqrt(sum(np.square(one[name] - other[name], dtype=np.float64).sum() for name in one)))


def _mean(state: State) -> Weights:
    parties = state.parties
    return {name: sum(p.weights[name] for p in parties) / np.float32(len(parties)) for name in state.common}


def save(path: Path, state: State) -> None:
    """Replace the stored state as a whole."""
    tensors: dict[str, np.ndarray] = {}
    for index, party in enumerate(state.parties):
        groups = {"w": party.weights, "m": party.optimizer.first, "v": party.optimizer.second, "e": party.error}
        tensors |= {
            f"{index}/{kind}/{name}": values for kind, group in groups.items() for name, values in group.items()
        }
    for index, memory in enumerate(state.memories):
        tensors |= {f"memory/{index}/{name}": values for name, values in memory.items()}
    tensors |= {f"G/{name}": values for name, values in state.common.items()}
    tensors |= {f"s/{name}": values for name, values in state.s.items()}
    tensors |= {f"u/{name}": values for name, values in state.velocity.items()}
    meta = {
        "exchanges": state.exchanges,
        "rounds": state.rounds,
        "steps": [party.optimizer.steps for party in state.parties],
        "loss": [party.loss for party in state.parties],
    }
    temporary = path.with_suffix(".new")
    save_file(
        {key: np.ascontiguousarray(values) for key, values in tensors.items()}, temporary, {"state": json.dumps(meta)}
    )
    os.replace(temporary, path)


def load(path: Path, state: State) -> None:
    """Fill a fresh state with a stored one."""
    with safe_open(path, "numpy") as file:
        meta = json.loads(file.metadata()["state"])
        for key in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
            head, rest = key.split("/", 1)
            values = file.get_tensor(key)
            if head in "Gsu":
                {"G": state.common, "s": state.s, "u": state.velocity}[head][rest] = values
                continue
            kind, name = rest.split("/", 1)
            if head == "memory":
                state.memories[int(kind)][name] = values
                continue
            party = state.parties[int(head)]
            optimizer = party.optimizer
            {"w": party.weights, "m": optimizer.first, "v": optimizer.second, "e": party.error}[kind][name] = values
    state.exchanges, state.rounds = meta["exchanges"], meta["rounds"]
    for party, steps, loss in zip(state.parties, meta["steps"], meta["loss"], strict=True):
        party.optimizer.steps, party.loss = steps, loss


def make_result(options: dict[str, Any], config: Config, prepared: Prepared, state: State) -> dict[str, Any]:
    """Scores of every client's model, of G and of the clients' mean on the test set; bytes as they were counted."""
    test = prepared.corpus.test[: config.evaluation.test_pairs or None]
    sources, references = [pair.source for pair in test], [pair.target for pair in test]
    examples = to_examples(test, prepared.tokenizer, config.model.max_length)
    models = {str(index): party.weights for index, party in enumerate(state.parties)}
    scored: dict[str, dict[str, Any]] = {}
    for who, weights in {**models, "common": state.common, "mean": _mean(state)}.items():
        twin = next((other for other, seen in scored.items() if seen["digest"] == weights_digest(weights)), None)
        if twin is not None:
            scored[who] = scored[twin]
            continue
        set_weights(prepared.model, weights)
        settings = {"beams": config.evaluation.beams, "batch_sentences": config.evaluation.batch_sentences}
        translations = translate(prepared.model, prepared.tokenizer, sources, **settings)
        scores = score(translations, references, target_language(config))
        nll = negative_log_likelihood(prepared.model, examples)
        scored[who] = {"bleu": scores.bleu, "chrf": scores.chrf, "nll": nll, "digest": weights_digest(weights)}
        signature = scores.bleu_signature
    parameters = sum(values.size for values in prepared.start.values())
    sums = {way: sum(record[way] for record in state.rounds) for way in ("up", "down")}
    return {
        **options,
        "clients": len(models),
        "parameters": parameters,
        "data": prepared.corpus.name,
        "test_pairs": len(test),
        "exchanges": state.exchanges,
        **{f"bytes_{way}_per_client_round": round(total / config.rounds, 1) for way, total in sums.items()},
        **{
            f"compression_{way}": round(4 * parameters * config.rounds / t, 3) if t else None for way, t in sums.items()
        },
        **{key: float(np.mean([scored[who][key] for who in models])) for key in ("nll", "bleu", "chrf")},
        **{f"{key}_per_client": [scored[who][key] for who in models] for key in ("nll", "bleu", "chrf")},
        **{f"{key}_{who}": scored[who][key] for who in ("common", "mean") for key in ("nll", "bleu", "chrf")},
        "sacrebleu_signature": signature,
        "weights_digest": {who: scored[who]["digest"].hex() for who in models},
        "environment": {**environment(), "device": describe_device(prepared.model.device)},
    }


def run(config: Config, options: dict[str, Any], out: Path, keep: Sequence[int] = ()) -> dict[str, Any]:
    """Run, or go on with, a screening run; returns its result.

    Args:
        config: data, model, training, evaluation.
        options: `codec`, `answer`, `feedback`, `at`, `repeat`, `closing`, `parts`.
        out: folder of the run.
        keep: rounds whose drifts are written before they are exchanged.

    Raises:
        ConfigError: the folder holds a run of other options.
    """
    out.mkdir(parents=True, exist_ok=True)
    stored = out / "options.json"
    options = {**options, "config": config.to_toml()}
    if stored.exists() and json.loads(stored.read_text("utf-8")) != options:
        raise ConfigError(f"{out} holds a run of other options", "choose another --out")
    stored.write_text(json.dumps(options, indent=2), "utf-8")
    if (out / "result.json").exists():
        return json.loads((out / "result.json").read_text("utf-8"))
    torch.set_num_threads(config.threads)
    prepared = prepare(config)
    count = len(prepared.clients)
    last = config.rounds + options["closing"]
    plan = Plan(
        upload=make_codec(options["codec"]),
        answer=make_codec(options["answer"]),
        feedback=options["feedback"],
        at=frozenset([*options["at"], *range(config.rounds + 1, last + 1)]),
        repeat=options["repeat"],
        parts=options["parts"],
        max_share=config.clients.max_share,
        seed=config.seed,
        **{key: options[key] for key in EXTRAS if key in options},
    )
    state = State(
        [Party(dict(prepared.start)) for _ in range(count)], dict(prepared.start), {}, [{} for _ in range(count + 1)]
    )
    if (out / "state.safetensors").exists():
        load(out / "state.safetensors", state)
    valid = to_examples(
        prepared.corpus.valid[: config.evaluation.valid_pairs], prepared.tokenizer, config.model.max_length
    )

    def keep_drifts(number: int, state: State) -> None:
        if number in keep:
            drifts = {
                f"{index}/{name}": values - state.common[name]
                for index, party in enumerate(state.parties)
                for name, values in party.weights.items()
            }
            save_file(drifts, out / f"drifts-{number}.safetensors")

    for number in range(len(state.rounds) + 1, last + 1):
        record = play_round(number, state, prepared, config, plan, keep_drifts)
        models = {str(index): party.weights for index, party in enumerate(state.parties)}
        record["valid_nll"] = {}
        for who, weights in {**models, "common": state.common, "mean": _mean(state)}.items():
            set_weights(prepared.model, weights)
            record["valid_nll"][who] = negative_log_likelihood(prepared.model, valid)
        state.rounds.append(record)
        save(out / "state.safetensors", state)
        (out / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in state.rounds), "utf-8")
        print(_line(record, last), flush=True)
    result = make_result(options, config, prepared, state)
    (out / "result.json.new").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    os.replace(out / "result.json.new", out / "result.json")
    return result


def _line(record: dict[str, Any], last: int) -> str:
    nll, seconds = record["valid_nll"], record["seconds"]
    own = np.mean([value for who, value in nll.items() if who not in ("common", "mean")])
    return (
        f"round {record['round']}/{last}  loss {record['loss']:.3f}  valid nll {own:.4f}, common {nll['common']:.4f}, "
        f"mean {nll['mean']:.4f}  {record['up'] / 1e3:.0f} kB up, {record['down'] / 1e3:.0f} down  "
        f"distance {np.mean(record['distance']):.2f}  {seconds['training']:.0f}+{seconds['exchange']:.1f} s"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--codec", default="codebook")
    parser.add_argument("--answer")
    parser.add_argument("--feedback", choices=("shift", "error", "none"), default="shift")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--at", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--closing", type=int, default=0)
    parser.add_argument("--parts", type=int, default=1)
    for name, default in EXTRAS.items():
        parser.add_argument("--" + name.replace("_", "-"), type=float, default=default)
    parser.add_argument("--keep", type=lambda text: [int(part) for part in text.split(",")], default=[])
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--list", action="store_true")
    given = parser.parse_args(arguments)
    if given.list:
        for name, kind in CODECS.items():
            print(f"{name:14} {(kind.__doc__ or '').splitlines()[0]}")
        return 0
    if given.config is None or given.out is None:
        parser.error("CONFIG and --out are needed")
    numbers = {"rounds": given.rounds, "seed": given.seed}
    overrides = [*given.set, *(f"{key}={value}" for key, value in numbers.items() if value is not None)]
    try:
        config = load_config(given.config, overrides)
        options = {
            "codec": given.codec,
            "answer": given.answer or given.codec,
            "feedback": given.feedback,
            "at": given.at or [n for n in range(1, config.rounds + 1) if n % given.every == 0],
            "repeat": given.repeat,
            "closing": given.closing,
            "parts": given.parts,
            **{name: vars(given)[name] for name, default in EXTRAS.items() if vars(given)[name] != default},
        }
        result = run(config, options, given.out, given.keep)
    except TrustformerError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    names = ("bleu", "nll", "bleu_common", "nll_common", "bleu_mean", "compression_up", "compression_down")
    print(json.dumps({name: result[name] for name in names}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
