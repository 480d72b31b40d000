# SPDX-License-Identifier: Apache-2.0
"""What each client gained: its own test sentences before, alone, and with the federation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from trustformer.data.corpus import Corpus, Pair
from trustformer.data.marian import stored_tokenizer
from trustformer.errors import ConfigError, DataError, TrustformerError
from trustformer.evaluation.bootstrap import METRICS, Floats, SentenceScores, difference, draw
from trustformer.evaluation.translation import translate
from trustformer.experiment.compare import SAME, SAME_CLIENTS
from trustformer.experiment.config import Config, load_config
from trustformer.experiment.corpora import target_language
from trustformer.experiment.inputs import check_inputs
from trustformer.experiment.prepare import Prepared, divide, prepare
from trustformer.experiment.record import RunDirectory
from trustformer.experiment.reporter import Reporter
from trustformer.experiment.result import signature
from trustformer.models.seq2seq import set_weights


def gain(run: Path, local: Path | None, reporter: Reporter) -> dict[str, Any]:
    """Score every client's own part of the test set.

    Args:
        run: a finished run of a method that exchanges.
        local: a finished `local` run of the same data, seed and rounds.
        reporter: shows progress; only what the run has not translated yet is translated.

    Returns:
        Per client: number of pairs, BLEU and chrF of `before` (G_0), `local`, `own` (W_i) and `common` (G), and own and
        common minus local with 95 % intervals; None where there is none. The same is left in `gain.json` of the run.

    Raises:
        ConfigError: not such a run, not finished, or the runs do not belong together.
        DataError: the data are not those of the run any more.
    """
    directory, config = _finished(run)
    if config.method.name in ("local", "centralized"):
        raise ConfigError(
            f"{run} is a {config.method.name} run", "give the run of a federation; --local takes a local one"
        )
    if config.model.task != "translation":
        raise ConfigError(f"{run} is a run of {config.model.task}", "gain compares translations")
    if local is not None:
        _check_local(local, run, config)
    prepared = prepare(config, stored_tokenizer(directory.path / "tokenizer.model"))
    result = directory.result() or {}
    if len(result["bleu_per_client"]) < len(prepared.clients):
        raise ConfigError(
            f"{run} did not score every client's own model",
            "gain needs a method that keeps them and evaluation.clients=0",
        )
    if signature(config, prepared).partition("|tf:")[0] != result["signature"].partition("|tf:")[0]:
        raise DataError(f"the data or the code of {run} have changed since", "restore them, or run it again")
    test = prepared.corpus.test[: config.evaluation.test_pairs or None]
    systems = {"before": _before(prepared, config, test, directory, reporter)}
    clients = []
    names: list[str | None] = [*folder_names(config.clients.folders)] or [None] * len(prepared.clients)
    for index, (client, (chosen, weights)) in enumerate(
        zip(prepared.clients, private_tests(config, prepared.corpus, len(test)), strict=True)
    ):
        reporter.overall(index, len(prepared.clients))
        lines = systems | _of_client(client, directory, local, len(test))
        clients.append({"client": client, "folder": names[index], **_scores(lines, test, chosen, weights, config)})
    report = {
        **{"run": result["signature"], "local": local is not None, "part": _part(config, prepared.corpus, test)},
        **{"privacy": result.get("privacy"), "clients": clients},
    }
    _keep(directory, "gain.json", (json.dumps(report, indent=2, ensure_ascii=False) + "\n").encode(), reporter)
    return report


def folder_names(folders: Sequence[str]) -> list[str]:
    """Return the names of folders, with as many of those above as tell them apart."""
    parts = [Path(folder).parts for folder in folders]
    most = max(map(len, parts), default=1)
    depth = next((n for n in range(1, most) if len({one[-n:] for one in parts}) == len(parts)), most)
    return [str(Path(*one[-depth:])) for one in parts]


def _keep(directory: RunDirectory, name: str, data: bytes, reporter: Reporter) -> None:
    """Leave a file in the run; where it cannot be written, say so and go on: what was found is shown all the same."""
    try:
        directory.write(name, data)
    except TrustformerError as error:
        reporter.note(f"warning: not kept: {error.message}")


def private_tests(config: Config, corpus: Corpus, size: int) -> list[tuple[list[int], Floats | None]]:
    """Return each client's test pairs as indexes and their weights, None for equal ones.

    With a folder a client it is its own test set. With labels and a split by domains it is the pairs of its own
    domains, each domain weighing as much as in its training data. Else it is the whole test set.

    Raises:
        DataError: a client has no test pair.
    """
    test = corpus.test[:size]
    if corpus.owners:
        ends = [min(end, size) for end in accumulate(owner[2] for owner in corpus.owners)]
        parts: list[tuple[list[int], Floats | None]] = [
            (list(range(start, end)), None) for start, end in zip([0, *ends], ends, strict=False)
        ]
    elif not _by_domain(config, corpus, test):
        parts = [(list(range(size)), None)] * config.clients.count
    else:
        held = divide(config, corpus, config.clients.count)
        parts = [_of_domains(test, Counter(corpus.train[i].domain for i in part)) for part in held]
    for index, (chosen, _) in enumerate(parts):
        if not chosen:
            raise DataError(f"client {index} has no test pair of its own", "set evaluation.test_pairs=0, or add some")
    return parts


def _of_domains(test: Sequence[Pair], trained: Counter[str]) -> tuple[list[int], Floats]:
    tested = Counter(pair.domain for pair in test)
    chosen = [i for i, pair in enumerate(test) if trained[pair.domain]]
    weights = np.array([trained[test[i].domain] / tested[test[i].domain] for i in chosen])
    return chosen, weights / weights.mean() if chosen else weights


def _by_domain(config: Config, corpus: Corpus, test: Sequence[Pair]) -> bool:
    return config.clients.split != "iid" and all(pair.domain for pair in (*test, *corpus.train))


def _part(config: Config, corpus: Corpus, test: Sequence[Pair]) -> str:
    """What a client's own part of the test set is, in words."""
    if config.clients.folders:
        return "the client's own test set"
    if not _by_domain(config, corpus, test):
        return "the whole test set: clients have no part of their own"
    return "test pairs of the client's domains, weighted as its training data"


def _finished(path: Path) -> tuple[RunDirectory, Config]:
    directory = RunDirectory.existing(path)
    directory.finished()
    return directory, load_config(path / "config.toml")


def _check_local(local: Path, run: Path, config: Config) -> None:
    _, other = _finished(local)
    if other.method.name != "local":
        raise ConfigError(f"{local} is a {other.method.name} run", "--local takes a run with method.name=local")
    differing = [key for key in ("seed", "rounds") if getattr(config, key) != getattr(other, key)]
    differing += [f"[{name}]" for name in (*SAME, "train") if getattr(config, name) != getattr(other, name)]
    mine, theirs = config.clients, other.clients
    differing += [f"clients.{key}" for key in SAME_CLIENTS if getattr(mine, key) != getattr(theirs, key)]
    if not differing and _read(run, "source.tsv") != _read(local, "source.tsv"):
        differing = ["the test set"]
    if differing:
        raise ConfigError(f"{local} and {run} differ in {', '.join(differing)}", "compare like with like")
    check_inputs((folder, RunDirectory(folder).finished()) for folder in (run, local))


def _of_client(client: str, directory: RunDirectory, local: Path | None, size: int) -> dict[str, list[str]]:
    """Translations of the test set by a client's models; each run left them in its directory."""
    found = {"own": _read(directory.path, f"{client}.txt")}
    if (directory.path / "translations" / "common.txt").exists():
        found["common"] = _read(directory.path, "common.txt")
    if local is not None:
        found["local"] = _read(local, f"{client}.txt")
    for name, lines in found.items():
        if len(lines) != size:
            raise DataError(f"the translations of {name} have {len(lines):,} lines for {size:,} test pairs")
    return found


def _read(run: Path, name: str) -> list[str]:
    path = run / "translations" / name
    try:
        return path.read_bytes().decode("utf-8").split("\n")[:-1]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "run it again") from None


def _before(
    prepared: Prepared, config: Config, test: Sequence[Pair], directory: RunDirectory, reporter: Reporter
) -> list[str]:
    """Translations by G_0, kept beside the record for the next time."""
    path = directory.path / "gain" / "before.txt"
    if path.exists():
        lines = path.read_bytes().decode("utf-8").split("\n")[:-1]
        if len(lines) == len(test):
            return lines
    set_weights(prepared.model, prepared.start)
    lines = translate(
        prepared.model,
        prepared.tokenizer,
        [pair.source for pair in test],
        beams=config.evaluation.beams,
        batch_sentences=config.evaluation.batch_sentences,
        report=lambda done, total: reporter.progress("translating the test set · before", done, total, "sentences"),
    )
    _keep(directory, "gain/before.txt", ("\n".join(lines) + "\n").encode(), reporter)
    return lines


def _scores(
    systems: dict[str, list[str]], test: Sequence[Pair], chosen: list[int], weights: Floats | None, config: Config
) -> dict[str, Any]:
    """Scores of all systems on one client's part of the test set, and their differences to local."""
    references = [test[i].target for i in chosen]
    counts = draw(len(chosen), config.seed)
    language = target_language(config)
    report: dict[str, Any] = {"pairs": len(chosen)}
    for metric in METRICS:
        scored = {
            name: SentenceScores(metric, [lines[i] for i in chosen], references, weights, language)
            for name, lines in systems.items()
        }
        numbers: dict[str, Any] = {
            name: scored[name].score() if name in scored else None for name in ("before", "local", "own", "common")
        }
        for name in ("own", "common"):
            both = name in scored and "local" in scored
            numbers[f"{name}_minus_local"] = vars(difference(scored[name], scored["local"], counts)) if both else None
        report[metric] = numbers
    return report
