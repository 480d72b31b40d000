# SPDX-License-Identifier: Apache-2.0
"""The corpus a config names, whatever its format."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from trustformer.data.corpus import Corpus, Pair, load_lines, load_tsv, make_corpus, resolve_path
from trustformer.data.folder import load_folder
from trustformer.data.formats import FileFormat, find, read_file
from trustformer.data.hub import SPLITS as HUB_SPLITS
from trustformer.data.hub import open_hub, read_split
from trustformer.data.marian import read_json
from trustformer.errors import ConfigError, DataError
from trustformer.experiment.config import Config, DataConfig

_TSV_FILES = ("train", "valid", "test", "train_domains", "valid_domains", "test_domains")


def read_corpus(data: DataConfig) -> Corpus:
    """Read all of a corpus that is not built in.

    Raises:
        DataError, ConfigError: naming file, line or key.
    """
    if data.source == "tsv":
        paths = {name: resolve_path(getattr(data, name), Path()) for name in _TSV_FILES if getattr(data, name)}
        return load_tsv(**paths)
    if data.source == "lines":
        paths = {name: resolve_path(getattr(data, name), Path()) for name in _TSV_FILES if getattr(data, name)}
        return load_lines(**paths)
    if data.source == "folder":
        return load_folder(resolve_path(data.train, Path()))
    if data.source == "hf":
        return _read_hub(data)
    assert data.source != "toy"
    return _read_files(data, data.source)


def read_folders(folders: tuple[str, ...], limit: int) -> Corpus:
    """Read one folder a client and join them; `owners` says whose part is whose.

    Args:
        folders: a client folder each.
        limit: training pairs of each, at most; 0 for all.
    """
    splits: tuple[list[Pair], ...] = ([], [], [])
    warnings: list[str] = []
    owners = []
    for name in folders:
        one = load_folder(resolve_path(name, Path()))
        parts = (one.train[: limit or None], one.valid, one.test)
        for split, part in zip(splits, parts, strict=True):
            split.extend(part)
        owners.append((len(parts[0]), len(parts[1]), len(parts[2])))
        warnings += [f"{name}: {warning}" for warning in one.warnings]
    label = f"{len(folders)} folders, {len(splits[0]):,} pairs"
    return make_corpus(*splits, name=label, warnings=warnings, owners=tuple(owners))


def target_language(config: Config) -> str:
    """Return the language of translations: what a config says, or at its default what the report of a folder says."""
    if config.data.target_language == DataConfig().target_language and (languages := folder_languages(config)):
        return languages[1]
    return config.data.target_language


def folder_languages(config: Config) -> list[str]:
    """Source and target that the report of the first of the run's folders states; empty where none is there."""
    for name in config.clients.folders or ((config.data.train,) if config.data.source == "folder" else ()):
        with suppress(DataError):  # no such folder
            if languages := stated_languages(resolve_path(name, Path()) / "report.json"):
                return languages
    return []


def stated_languages(path: Path) -> list[str]:
    """Source and target that a JSON file states, as the report of a prepared folder does; empty where it does not."""
    with suppress(ConfigError, LookupError, TypeError, ValueError):  # no such file, or a stranger's
        source, target = read_json(path)["languages"]
        return [str(source), str(target)]
    return []


def _read_files(data: DataConfig, kind: FileFormat) -> Corpus:
    languages = (data.source_language, data.target_language)
    splits: list[list[Pair]] = []
    warnings: list[str] = []
    for split in ("train", "valid", "test"):
        path = find(kind, getattr(data, split), Path(), *languages)
        pairs, found = read_file(kind, path, *languages)
        splits.append(pairs)
        warnings += found
    return make_corpus(*splits, name=Path(data.train).name, warnings=warnings)


def _read_hub(data: DataConfig) -> Corpus:
    name = data.name
    with suppress(DataError):  # no folder: a name on the hub
        name = str(resolve_path(name, Path()))
    available = open_hub(name, data.config)
    splits: list[list[Pair]] = []
    warnings: list[str] = []
    for split, usual in HUB_SPLITS.items():
        wanted = getattr(data, split) or usual
        pairs, found = read_split(available, name, wanted, data.source_language, data.target_language)
        splits.append(pairs)
        warnings += found
    return make_corpus(*splits, name=f"{data.name} {data.config}".strip(), warnings=warnings)
