# SPDX-License-Identifier: Apache-2.0
"""Reads run directories for a report. What a directory does not hold, as in a kept or an older record, is left out."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from trustformer.errors import ConfigError, DataError
from trustformer.experiment.compare import check_alike
from trustformer.experiment.inputs import check_inputs
from trustformer.experiment.record import RunDirectory
from trustformer.reports.summary import Result, Row


@dataclass(frozen=True)
class Run:
    """One finished run.

    Attributes:
        path: its directory.
        config: as in `config.toml`; `config_text` word for word.
        result: `result.json`, the name of its config as `config`, its beam width as `beams`.
        rounds: lines of `rounds.jsonl`.
    """

    path: Path
    config: dict[str, Any]
    config_text: str
    result: Result
    rounds: list[dict[str, Any]]

    @cached_property
    def layers(self) -> list[dict[str, Any]]:
        """`layers.json`; empty if there is none."""
        found: list[dict[str, Any]] = self._json("layers.json") or []
        return found

    @cached_property
    def environment(self) -> dict[str, Any]:
        """`environment.json`; empty if there is none."""
        return self._json("environment.json") or {}

    @cached_property
    def verifications(self) -> list[dict[str, Any]]:
        """What clients recorded of the enclave's evidence; empty if nothing was kept."""
        found: list[dict[str, Any]] = (self._json("attestation.json") or {}).get("verifications", [])
        return found

    @property
    def own_translations(self) -> list[str]:
        """Those of the first client's own model, or of the common one where clients have none of their own."""
        return self.translations(min(self.result["weights_digest"], default="common")) or self.translations("common")

    def translations(self, who: str) -> list[str]:
        """Lines of one model's translations, or of `source` (source<TAB>target); empty if they were not kept."""
        path = self.path / "translations" / ("source.tsv" if who == "source" else f"{who}.txt")
        return _read(path).split("\n")[:-1] if path.exists() else []

    def _json(self, name: str) -> Any:
        path = self.path / name
        return _parsed(path, _read(path)) if path.exists() else None


def collect(paths: Sequence[Path]) -> list[Run]:
    """Read run directories and directories of `compare`.

    Args:
        paths: each a run directory, or a folder of run directories of which the finished ones are taken.

    Raises:
        ConfigError: no finished run, runs that cannot be compared, or a run that does not translate.
        DataError: a damaged record; names the file.
    """
    runs = [_load(path) for path in _directories(paths)]
    for run in runs:
        task = run.result.get("task", "translation")
        if task != "translation":
            raise ConfigError(f"{run.path} is a run of {task}", "the page shows translation; see its result.json")
    first = runs[0]
    for run in runs[1:]:
        check_alike(run.path, run.config, first.path, first.config)
    check_inputs((run.path, run.result) for run in runs)
    names: dict[str, str] = {}
    for run in runs:
        key = json.dumps({**run.config, "seed": None}, sort_keys=True)
        run.result["beams"] = run.config.get("evaluation", {}).get("beams")
        if key not in names:
            names[key] = _free_name(run, set(names.values()))
        run.result["config"] = names[key]
    return _without_repeats(runs)


def _free_name(run: Run, taken: set[str]) -> str:
    """The folder's name without its seed, with that of the folder above where another config has it."""
    name = run.path.name.removesuffix(f"-seed{run.result['seed']}")
    if name in taken:
        name = f"{run.path.resolve().parent.name}/{name}"
    return name if name not in taken else next(f"{name}-{n}" for n in count(2) if f"{name}-{n}" not in taken)


def runs_of(row: Row, runs: Iterable[Run]) -> list[Run]:
    """Return the runs behind a row of their summary."""
    return [run for run in runs if any(run.result is result for result in row.results)]


def _directories(paths: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if (path / "config.toml").is_file():
            RunDirectory.existing(path).finished()
            found.append(path)
            continue
        inside = sorted(child.parent for child in path.glob("*/result.json")) if path.is_dir() else []
        if not inside:
            raise ConfigError(f"{path} is neither a run directory nor a folder with finished runs")
        found += _in_order(path, inside)
    return list(dict.fromkeys(found))


def _in_order(path: Path, inside: list[Path]) -> list[Path]:
    """The order of `compare`'s table, where there is one."""
    table = path / "table.json"
    if not table.is_file():
        return inside
    order = [result["signature"] for result in _parsed(table, _read(table))]
    place = {signature: number for number, signature in enumerate(order)}
    results = {child: _parsed(child / "result.json", _read(child / "result.json")) for child in inside}
    return sorted(inside, key=lambda child: place.get(results[child]["signature"], len(order)))


def _load(path: Path) -> Run:
    directory = RunDirectory(path)
    text = _read(path / "config.toml")
    try:
        config = tomllib.loads(text)
        rounds = directory.rounds()
    except ValueError as error:
        raise DataError(f"{path}: config.toml or rounds.jsonl is damaged: {error}") from None
    return Run(path, config, text, _parsed(path / "result.json", _read(path / "result.json")), rounds)


def _without_repeats(runs: list[Run]) -> list[Run]:
    """Raise `ConfigError` where one config and seed occurs twice: its mean would count it twice."""
    seen: dict[tuple[str, int], Run] = {}
    for run in runs:
        other = seen.setdefault((run.result["config"], run.result["seed"]), run)
        if other is not run:
            raise ConfigError(f"{run.path} and {other.path} are runs of one config and seed", "give one of them")
    return runs


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
