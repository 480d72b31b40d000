# SPDX-License-Identifier: Apache-2.0
"""Models of finished runs."""

from __future__ import annotations

from pathlib import Path

from trustformer.data.marian import load_tokenizer, read_json
from trustformer.data.tokenizer import Tokenizer
from trustformer.errors import ConfigError
from trustformer.experiment.config import Config, load_config
from trustformer.experiment.record import RunDirectory
from trustformer.federation.store import ClientStore
from trustformer.models.adapters import add_adapters, merged
from trustformer.models.families import freeze, load_any
from trustformer.models.seq2seq import Model, load_model, set_weights


def load_saved(path: Path, client: str | None = None) -> tuple[Model, Tokenizer]:
    """Return the model and tokenizer of a run directory or model folder.

    Args:
        path: a run directory or a folder with `config.json`.
        client: id of a client whose own model is wanted.

    Raises:
        ConfigError: neither a run nor a model, a run that has not finished, or no such client.
    """
    if not path.is_dir():
        raise ConfigError(f"{path}: there is no such folder", "give a run directory or a model folder")
    is_run = (path / "config.toml").is_file()
    folder = path / "model" if is_run else path
    if is_run:
        RunDirectory(path).finished()
    config = load_config(path / "config.toml") if is_run else None
    if client is None:
        return _read(folder, config), load_tokenizer(folder)
    if config is None:
        raise ConfigError(f"{path} has no client {client!r}", "a model folder holds one model")
    return _of_client(path, config, client), load_tokenizer(folder)


def _of_client(run: Path, config: Config, client: str) -> Model:
    clients = sorted(entry.name for entry in (run / "clients").iterdir())
    if client not in clients:
        raise ConfigError(f"{run} has no client {client!r}", f"the clients are {', '.join(clients)}")
    state = ClientStore(run / "clients" / client).load()
    if state is None:
        raise ConfigError(f"client {client} of {run} has not trained yet")
    learner = config.learner
    model = _read(run / ("base" if learner.lora_rank else "model"), config)
    if learner.lora_rank:
        add_adapters(model, learner.lora_rank, config.seed)
    freeze(model, learner.freeze)
    set_weights(model, state.weights)
    return merged(model)


def _read(folder: Path, config: Config | None) -> Model:
    task = config.model.task if config is not None else "translation"
    return load_model(folder) if _is_marian(folder) else load_any(folder, task)


def _is_marian(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder} is not a model folder: it has no config.json")
    return read_json(folder / "config.json").get("model_type") == "marian"
