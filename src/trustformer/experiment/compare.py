# SPDX-License-Identifier: Apache-2.0
"""Several configs on the same data and seeds: runs what is missing, each run a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from trustformer.errors import ConfigError, TrustformerError
from trustformer.experiment.checks import check_preset
from trustformer.experiment.config import Config, load_config
from trustformer.experiment.inputs import check_inputs, data_of
from trustformer.experiment.prepare import load_corpus
from trustformer.experiment.record import RunDirectory, difference
from trustformer.experiment.reporter import Reporter

SAME = ("data", "tokenizer", "model", "evaluation")
"""Sections in which the configs of a comparison must not differ."""
SAME_CLIENTS = ("count", "split", "alpha", "folders")
"""Keys of `[clients]`, likewise."""
_POLL = 0.5
"""Seconds between looks at the processes."""
_PATIENCE = 3.0
"""Seconds a run gets to end by itself after an interrupt."""


@dataclass
class Job:
    """One run: a config with its file's name, a seed and a directory; `said`: bytes of its log before it began."""

    config_name: str
    config: Config
    out: Path
    process: subprocess.Popen[bytes] | None = None
    said: int = 0

    @property
    def name(self) -> str:
        """For a person."""
        return f"{self.config_name} seed {self.config.seed}"

    @property
    def rounds(self) -> int:
        """Lines its record will have: rounds, with every exchange and those at the end where the method has any."""
        method, rounds = self.config.method, self.config.rounds
        return rounds * method.exchanges + method.closing_exchanges if method.repeats else rounds

    @property
    def log(self) -> Path:
        """What the run says."""
        return self.out.with_name(self.out.name + ".log")

    @property
    def result(self) -> dict[str, Any] | None:
        """Result of the finished run with its config's name as `config` and its beam width as `beams`, None before.

        Raises:
            ConfigError: it is the result of another config.
        """
        directory = RunDirectory(self.out)
        result = directory.result()
        if result is not None and (held := load_config(directory.path / "config.toml")) != self.config:
            trees = (tomllib.loads(config.to_toml()) for config in (held, self.config))
            raise ConfigError(
                f"{self.out} holds a run of another config: {difference(*trees)}", "choose another --out, or remove it"
            )
        return result and {"config": self.config_name, "beams": self.config.evaluation.beams, **result}

    def start(self, config_file: Path) -> None:
        """Start the run; its lines go to `run.log` beside its record."""
        self.out.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "trustformer", "run", str(config_file), "--out", str(self.out), "--resume"]
        # One thread for numpy too: two runs side by side would otherwise fight for the cores.
        environment = os.environ | {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
        with open(self.log, "ab") as log:
            self.said = log.tell()
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)


def check_alike(name: object, config: Mapping[str, Any], other: object, others: Mapping[str, Any]) -> None:
    """Raise `ConfigError` when two configs, as TOML has them, differ in what a comparison must have the same."""
    different = [f"[{section}]" for section in SAME if config.get(section) != others.get(section)]
    mine, theirs = (tree.get("clients", {}) for tree in (config, others))
    different += [f"clients.{key}" for key in SAME_CLIENTS if mine.get(key) != theirs.get(key)]
    if different:
        raise ConfigError(f"{name} and {other} differ in {different[0]}", "compare like with like")


def plan(configs: Sequence[tuple[str, Config]], seeds: Sequence[int], out: Path) -> list[Job]:
    """Return the jobs, a directory each; nothing is written.

    Raises:
        ConfigError: configs differ in what must be the same, a run of another config is there, or no such model.
    """
    first = configs[0][1]
    for name, config in configs[1:]:
        check_alike(name, msgspec.to_builtins(config), configs[0][0], msgspec.to_builtins(first))
    names = [name for name, _ in configs]
    if len(set(names)) < len(names):
        raise ConfigError("two configs have the same file name", "the name labels the run directory")
    if len(set(seeds)) < len(seeds) or any(not 0 <= seed < 2**31 for seed in seeds):
        raise ConfigError(f"--seeds {' '.join(map(str, seeds))}", "give different seeds from 0 to 2147483647")
    other = next(((name, config) for name, config in configs if config.seed != first.seed), None)
    if other is not None and not seeds:
        raise ConfigError(
            f"{other[0]} has seed {other[1].seed}, {names[0]} has seed {first.seed}",
            "all configs run with the same seeds: give --seeds, or one seed to all",
        )
    jobs = []
    for seed in seeds or [first.seed]:
        for name, config in configs:
            seeded = msgspec.structs.replace(config, seed=seed)
            jobs.append(Job(name, seeded, out / f"{name}-seed{seed}"))
    for job in jobs:
        if job.result is None:
            check_preset(job.config)
    return jobs


def execute(jobs: Sequence[Job], parallel: int, reporter: Reporter) -> list[dict[str, Any]]:
    """Run what is not finished, at most `parallel` at a time; return all results in order.

    Raises:
        ConfigError: runs were made from different inputs, or the data have changed since.
        TrustformerError: a run failed; the others go on to their end first.
    """
    waiting = [job for job in jobs if job.result is None]
    finished = [(job, result) for job in jobs if (result := job.result) is not None]
    check_inputs((job.out, result) for job, result in finished)
    for job, result in finished[:1]:
        _check_unchanged(job, result, reporter)
    for job, _ in finished:
        reporter.note(f"{job.name}: finished before")
    running: list[Job] = []
    failed: list[Job] = []
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop(0)
                config_file = job.out.with_name(job.out.name + ".toml")
                config_file.parent.mkdir(parents=True, exist_ok=True)
                config_file.write_text(job.config.to_toml(), "utf-8")
                job.start(config_file)
                running.append(job)
                reporter.note(f"{job.name}: started, log in {job.log}")
            time.sleep(_POLL)
            for job in [job for job in running if job.process is not None and job.process.poll() is not None]:
                running.remove(job)
                result = job.result
                if result is None:
                    failed.append(job)
                    reporter.note(f"{job.name}: FAILED, see {job.log}")
                else:
                    headline = result["metrics"][0]
                    reporter.note(
                        f"{job.name}: {headline} {result[headline]:.4g}, {result['seconds']:,.0f} s in rounds"
                    )
            for job in running:
                reporter.progress(job.name, _rounds_done(job), job.rounds, "rounds")
            reporter.overall(sum(min(_rounds_done(job), job.rounds) for job in jobs), sum(job.rounds for job in jobs))
    except BaseException:
        for job in running:
            _stop(job)
        raise
    if failed:
        raise TrustformerError(f"{failed[0].name} failed: {_last_error(failed[0])}", f"see {failed[0].log}")
    results = [result for job in jobs if (result := job.result) is not None]
    check_inputs(zip((job.out for job in jobs), results, strict=True))
    return results


def _check_unchanged(job: Job, result: dict[str, Any], reporter: Reporter) -> None:
    """Raise `ConfigError` where a finished run read other data than its config names now."""
    if result["synthetic"] or result.get("task") == "masked-lm":  # which leaves out texts without a token
        return
    try:
        found = load_corpus(job.config)[0].digest
    except TrustformerError as error:
        reporter.note(f"the data of {job.name} are not checked again: {error.message}")
        return
    if not found.startswith(data_of(result)):
        raise ConfigError(
            f"the data of {job.out} have changed since it was run",
            "restore them, remove the folder to run it again, or choose another --out",
        )


def _stop(job: Job) -> None:
    """Wait for a run to save and end: a terminal has interrupted it too, anyone else has not."""
    if job.process is None:
        return
    try:
        job.process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        job.process.send_signal(signal.SIGINT)
        job.process.wait()


def _last_error(job: Job) -> str:
    lines = job.log.read_bytes()[job.said :].decode("utf-8", "replace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return errors[-1] if errors else "it ended without a result"


def _rounds_done(job: Job) -> int:
    return len(RunDirectory(job.out).rounds())
