# SPDX-License-Identifier: Apache-2.0
"""The run directory: the whole record of a run, and all that is needed to go on with it."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shlex
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trustformer.attestation.files import put
from trustformer.errors import ConfigError, DataError, TrustformerError
from trustformer.experiment.deployed import check_not_deployed


class RunDirectory:
    """Paths and atomic writes of one run.

    Args:
        path: the folder; made if need be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, path: Path, config: str, *, resume: bool) -> RunDirectory:
        """Make a run directory, or take one up again.

        Args:
            path: the folder.
            config: the resolved config as TOML.
            resume: take up a run that is there.

        Raises:
            ConfigError: a run is there and `resume` is not set, or it has another config.
        """
        directory = cls(path)
        stored = path / "config.toml"
        if stored.exists():
            if not resume:
                raise ConfigError(f"{path} already holds a run", "continue it with --resume, or choose another --out")
            if (held := stored.read_text("utf-8-sig")) != config:
                raise ConfigError(
                    f"{path} holds a run of another config: {_difference(held, config)}",
                    f"compare with {stored}, or choose another --out",
                )
            return directory
        directory.make()
        try:
            others = [entry.name for entry in path.iterdir() if entry.name != "config.toml.new"]  # that of a crash
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}", "choose another --out") from None
        if others:
            raise ConfigError(f"{path} is not empty and holds no run", "choose another --out")
        directory.write("config.toml", config.encode())
        return directory

    @classmethod
    def existing(cls, path: Path) -> RunDirectory:
        """Open a run directory for reading; raises `ConfigError` if it is none."""
        if not (path / "config.toml").is_file():
            lacks = "it has no config.toml" if path.is_dir() else "there is no such folder"
            raise ConfigError(f"{path} is not a run directory: {lacks}", "give one that trustformer run made")
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running in this directory; the lock goes with the process.

        Raises:
            ConfigError: another process runs here.
        """
        with open(self.path / "lock", "a", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConfigError(f"{self.path}: another process runs here", "wait for it, or end it") from None
            except OSError:
                pass  # a file system without locks
            try:
                yield
            finally:
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile holds the file open

    def make(self) -> None:
        """Make the folder, for its owner alone, unless it is there: it will hold models and translated text.

        Raises:
            ConfigError: it cannot be made.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"{self.path} cannot be made: {error.strerror}", "choose another folder (--out)"
            ) from None

    def abandon(self) -> None:
        """Take config and folder away again if they are all there is: of a run that could not begin."""
        if {entry.name for entry in self.path.iterdir()} <= {"config.toml", "lock"}:
            for name in ("config.toml", "lock"):
                (self.path / name).unlink(missing_ok=True)
            with suppress(OSError):  # a mount point stays
                self.path.rmdir()

    def write(self, name: str, data: bytes) -> None:
        """Replace a file as a whole: after a crash or on a full disk the old one is still there."""
        target = self.path / name
        temporary = target.with_name(target.name + ".new")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            put(temporary, target)
        except OSError as error:
            with suppress(OSError):  # of a place that is read-only
                temporary.unlink()
            raise TrustformerError(
                f"{target} cannot be written: {error.strerror}",
                "mend that, then go on: a run with --resume, serve and join by starting them again",
            ) from None

    def write_json(self, name: str, value: object) -> None:
        """Replace a JSON file."""
        self.write(name, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())

    def read_json(self, name: str) -> Any:
        """Return what a JSON file holds, None where there is none; raises `DataError` for a damaged one."""
        path = self.path / name
        with _readable(path):
            return json.loads(path.read_text("utf-8")) if path.exists() else None

    def rounds(self) -> list[dict[str, Any]]:
        """Return the rounds recorded so far."""
        path = self.path / "rounds.jsonl"
        with _readable(path):
            return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def add_round(self, record: dict[str, Any]) -> None:
        """Record one round."""
        lines = [*self.rounds(), record]
        self.write("rounds.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())

    def result(self) -> dict[str, Any] | None:
        """Return the result, None while the run is not finished."""
        result: dict[str, Any] | None = self.read_json("result.json")
        return result

    def finished(self) -> dict[str, Any]:
        """Return the result; raises `ConfigError` while the run is not finished."""
        result = self.result()
        if result is None:
            check_not_deployed(self.path)
            hint = f"go on with it: trustformer run --out {shlex.quote(str(self.path))} --resume"
            raise ConfigError(f"{self.path} is not finished", hint)
        return result


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Name the file that is damaged; runs replace theirs as a whole, copies may not."""
    try:
        yield
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}", "take it from where the run was made") from None


def _difference(held: str, wanted: str) -> str:
    """Name the first few keys in which two configs differ."""
    try:
        return difference(tomllib.loads(held), tomllib.loads(wanted))
    except tomllib.TOMLDecodeError:
        return "config.toml is damaged"


def difference(held: dict[str, Any], wanted: dict[str, Any]) -> str:
    """Name the first few keys in which two trees differ, and both values; empty where they do not."""
    old, new = dict(leaves(held)), dict(leaves(wanted))
    different = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    there, here = ({key: repr(tree[key]) for key in tree} for tree in (old, new))
    named = [f"{key} is {there.get(key, 'not set')} there, {here.get(key, 'not set')} here" for key in different[:3]]
    return "; ".join(named) + (f"; and {len(different) - 3} more" if len(different) > 3 else "")


def leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value of a tree that is no tree itself, under its keys joined by dots."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def environment() -> dict[str, Any]:
    """Return what a reader needs to judge or repeat a number: versions and hardware."""
    packages = ("trustformer", "torch", "transformers", "numpy", "sacrebleu", "sentencepiece", "cryptography")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "packages": {name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
