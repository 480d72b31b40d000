# SPDX-License-Identifier: Apache-2.0
"""What keys of a config must be like together; each error names a key and what to set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trustformer.errors import ConfigError
from trustformer.methods import LORA, PRIVATE
from trustformer.models.families import architecture_of
from trustformer.models.seq2seq import PRESETS
from trustformer.privacy.stated import upper

if TYPE_CHECKING:
    from trustformer.experiment.config import Config

SPLITS = ("train", "valid", "test")
LEAST_EXPECTED = 20
"""Clients: that none of so many comes in a round has a chance of 2e-9, which is taken off delta."""


def check(config: Config) -> None:
    """Raise `ConfigError` for keys that do not go together."""
    _check_data(config)
    _check_folders(config)
    _check_privacy(config)
    if config.min_clients > config.clients.count:
        raise ConfigError(f"clients.min_clients is {config.min_clients}, clients.count is {config.clients.count}")
    _check_task(config)
    _check_parts(config)


def check_preset(config: Config) -> None:
    """Raise `ConfigError` for a model to train that is neither a preset nor a folder.

    No part of `check`: a finished run has its own copy of a model whose folder is elsewhere by now.
    """
    preset = config.model.preset
    if preset not in PRESETS and Path(preset).name == preset and not Path(preset).is_dir():
        what = f"model.preset: {preset!r} is none of {', '.join(PRESETS)}, and no folder of a model"
        raise ConfigError(what, "choose one of them, or give the path of a model folder")


def _check_parts(config: Config) -> None:
    passes, exchanges = config.train.local_epochs, config.method.exchanges
    parts = round(1 / passes)
    if passes < 1 and abs(passes * parts - 1) > 0.01:
        what = f"train.local_epochs is {passes:g}, which is no whole part of a pass"
        raise ConfigError(what, f"set it to {1 / parts:.4g}")
    if passes < 1 < exchanges:
        what = f"train.local_epochs is {passes:g} and method.exchanges {exchanges}"
        raise ConfigError(what, "set method.exchanges to 1, or train whole passes")
    if config.train.cooldown and exchanges > 1:
        what = f"train.cooldown is {config.train.cooldown:g} and method.exchanges {exchanges}"
        raise ConfigError(what, "set train.cooldown to 0, or method.exchanges to 1")
    if config.method.coded and config.method.carry < 1 < exchanges:
        what = f"method.carry is {config.method.carry:g} and method.exchanges {exchanges}: s would fade in each of them"
        raise ConfigError(what, "set one of the two to 1")


def _check_data(config: Config) -> None:
    data = config.data
    needed: tuple[str, ...] = SPLITS if data.source in ("tsv", "lines", "tmx", "jsonl", "text") else ()
    if data.source == "folder" and not config.clients.folders:
        needed = ("train",)
    if data.source == "hf":
        needed = ("name",)
    what = {
        "lines": "FILE.txt.gz",
        "tsv": "FILE.tsv.gz",
        "tmx": "FILE.tmx",
        "jsonl": "FILE.jsonl",
        "text": "PREFIX",
        "folder": "DIR",
    }
    for name in SPLITS:
        if data.source == "toy" and getattr(data, name):
            raise ConfigError(f"data.{name} is set, and data.source is toy, which is built in", "--set data.source=tsv")
    for name in needed:
        if not getattr(data, name):
            hint = f"--set data.{name}={what.get(data.source, 'NAME')}"
            if name in ("valid", "test") and data.source != "tsv":
                hint += "; trustformer prepare cuts one file in three"
            raise ConfigError(f"data.{name} is missing", hint)
    if data.source in ("tsv", "lines") and config.clients.split == "domain" and not data.train_domains:
        raise ConfigError("clients.split is domain without labels", "--set data.train_domains=FILE")
    by_language = data.source in ("tmx", "jsonl", "text", "hf") and config.model.task == "translation"
    if by_language and data.source_language == data.target_language:
        both = f"data.source_language and data.target_language are both {data.source_language!r}"
        raise ConfigError(both, "--set data.target_language=CODE")
    for split in SPLITS:
        if data.source not in ("tsv", "lines", "toy") and getattr(data, f"{split}_domains"):
            raise ConfigError(f"data.{split}_domains is of tsv and lines", f"{data.source} holds its labels itself")
        if data.source == "folder" and split != "train" and getattr(data, split):
            raise ConfigError(f"data.{split} is not of folders", "data.train names the folder with all three")


def _check_privacy(config: Config) -> None:
    privacy, clients, name = config.privacy, config.clients, config.method.name
    if name in PRIVATE and not privacy.client_level:
        raise ConfigError(f"method.name {name} needs noise", "--set privacy.mechanism=enclave")
    if privacy.mechanism == "none" and privacy.epsilon:
        raise ConfigError(
            f"privacy.epsilon is {upper(privacy.epsilon)}, and privacy.mechanism none: nothing would be noised",
            "--set privacy.mechanism=enclave, client or records (docs/privacy-baselines.md)",
        )
    if not privacy.client_level:
        return
    if clients.cohorts:
        raise ConfigError("clients.cohorts is no random sample, and privacy counts on one", "leave it empty")
    if privacy.delta >= 1 / clients.count:
        raise ConfigError(
            f"privacy.delta is {upper(privacy.delta)} with {clients.count} clients", "set it below 1 in that"
        )
    if privacy.mechanism == "enclave" and config.enclave.rule != "mean":
        raise ConfigError(
            f"enclave.rule {config.enclave.rule} has no noised form", "leave it, or set another mechanism"
        )
    if privacy.mechanism == "enclave" and clients.participation < 1:
        if config.min_clients > 1:
            raise ConfigError("a cohort that is filled up is no random sample", "--set clients.min_clients=1")
        expected = clients.participation * clients.count * (1 - clients.late)
        if expected < LEAST_EXPECTED:
            raise ConfigError(
                f"{expected:g} clients are expected on time in a round: one may find none at all",
                f"raise clients.participation or clients.count until there are {LEAST_EXPECTED}",
            )


def _check_task(config: Config) -> None:
    model, data = config.model, config.data
    if model.preset in PRESETS:
        architecture_of(model)
        if config.tokenizer.file and architecture_of(model) != "marian":
            raise ConfigError(f"tokenizer.file is of translation, model.task is {model.task}", "leave it empty")
    if config.method.name in LORA and not model.lora_rank:
        raise ConfigError(f"method.name {config.method.name} averages adapters", "--set model.lora_rank=8")
    if model.task != "translation" and config.privacy.mechanism == "records":
        raise ConfigError("privacy.mechanism records is of translation", "set another mechanism, or none")
    if model.task == "translation" and data.source == "lines":
        raise ConfigError("data.source is lines, which have no translations", "set model.task")
    if model.task == "classification" and data.source in ("tsv", "lines"):
        for split in SPLITS:
            if not getattr(data, f"{split}_domains"):
                raise ConfigError(f"classification needs data.{split}_domains", "one label a line, beside the texts")


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
