# SPDX-License-Identifier: Apache-2.0
"""What keys of a config must be like together; each error names a key and what to set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trustformer.errors import ConfigError
from trustformer.models.seq2seq import PRESETS

if TYPE_CHECKING:
    from trustformer.experiment.config import Config

SPLITS = ("train", "valid", "test")


def check(config: Config) -> None:
    """Raise `ConfigError` for keys that do not go together."""
    _check_data(config)
    _check_folders(config)
    if config.min_clients > config.clients.count:
        raise ConfigError(f"clients.min_clients is {config.min_clients}, clients.count is {config.clients.count}")
    preset = config.model.preset
    if preset not in PRESETS and Path(preset).name == preset and not Path(preset).is_dir():
        raise ConfigError(f"model.preset: {preset!r} is none of {', '.join(PRESETS)}, and no folder of a model")


def _check_data(config: Config) -> None:
    data = config.data
    needed: tuple[str, ...] = SPLITS if data.source in ("tsv", "tmx", "jsonl", "text") else ()
    if data.source == "folder" and not config.clients.folders:
        needed = ("train",)
    if data.source == "hf":
        needed = ("name",)
    what = {"tsv": "FILE.tsv.gz", "tmx": "FILE.tmx", "jsonl": "FILE.jsonl", "text": "PREFIX", "folder": "DIR"}
    for name in needed:
        if not getattr(data, name):
            hint = f"--set data.{name}={what.get(data.source, 'NAME')}"
            if name in ("valid", "test") and data.source != "tsv":
                hint += "; trustformer prepare cuts one file in three"
            raise ConfigError(f"data.{name} is missing", hint)
    if data.source == "tsv" and config.clients.split == "domain" and not data.train_domains:
        raise ConfigError("clients.split is domain without labels", "--set data.train_domains=FILE")
    for split in SPLITS:
        if data.source not in ("tsv", "toy") and getattr(data, f"{split}_domains"):
            raise ConfigError(f"data.{split}_domains is of tsv files", f"{data.source} holds its labels itself")
        if data.source == "folder" and split != "train" and getattr(data, split):
            raise ConfigError(f"data.{split} is not of folders", "data.train names the folder with all three")


def _check_folders(config: Config) -> None:
    clients, tokenizer = config.clients, config.tokenizer
    if not clients.folders:
        return
    if config.data.source != "folder" or config.data.train:
        raise ConfigError(
            "clients.folders stands in the place of data.train", "set data.source=folder and leave data.train empty"
        )
    if tokenizer.train_on == "public" and not tokenizer.file and config.model.preset in PRESETS:
        raise ConfigError(
            "no part of clients.folders is public, so no vocabulary can be trained on it",
            "set tokenizer.train_on to a public text, tokenizer.file to a model, or model.preset to a model folder",
        )
