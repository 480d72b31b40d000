# SPDX-License-Identifier: Apache-2.0
"""The pairs that `init-federation` puts into a client's folder until its owner names others, and their languages."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from trustformer.data.corpus import resolve_path
from trustformer.data.marian import read_json
from trustformer.errors import ConfigError
from trustformer.experiment.config import DataConfig
from trustformer.experiment.corpora import stated_languages
from trustformer.foreign import shown

NOTE = "placeholder.json"
"""Beside `node.toml`: languages of the federation, and SHA-256 of the placeholder's `train.tsv.gz`."""


def corpus_languages(data: DataConfig) -> list[str]:
    """Source and target of a config's corpus; empty where nothing says them but the defaults."""
    if data.source == "folder":
        return stated_languages(resolve_path(data.train, Path()) / "report.json")
    languages, plain = [data.source_language, data.target_language], DataConfig()
    known = data.source in ("toy", "tmx", "text") or languages != [plain.source_language, plain.target_language]
    return languages if known else []


def note_placeholder(folder: Path, data: Path, languages: list[str]) -> None:
    """Write down what `init-federation` put into a client's `folder`, its pairs in `data`."""
    (folder / NOTE).write_text(json.dumps({"languages": languages, "sha256": _hash(data)}) + "\n", "utf-8")


def described(folder: Path, data: Path) -> str:
    """What to call the pairs in `data` of the client in `folder`, with their languages where they are known.

    Raises:
        ConfigError: `trustformer prepare` noted other languages than the federation has.
    """
    agreed, own = stated_languages(folder / NOTE), stated_languages(data / "report.json")
    if agreed and own and [*map(_primary, own)] != [*map(_primary, agreed)]:
        source, target = (shown(language) for language in agreed)
        raise ConfigError(
            f"{data / 'report.json'} says {joined(own)}, and this federation translates {source}-{target}",
            f"trustformer prepare ... --source-language {source} --target-language {target}, with the {source} text "
            "as source; if these languages are wrong themselves, make the federation anew",
        )
    placeholder = False
    with suppress(ConfigError, KeyError, OSError):  # of a federation that has no such note
        placeholder = read_json(folder / NOTE)["sha256"] == _hash(data)
    languages = joined(own or (agreed if placeholder else []))
    return f"{'placeholder ' if placeholder else ''}pairs{languages and ', '}{languages}"


def joined(languages: list[str]) -> str:
    """Languages in a line, such as `de-en`; empty where they are not known."""
    return "-".join(shown(language) for language in languages)


def _primary(language: str) -> str:
    return language.replace("_", "-").partition("-")[0].casefold()


def _hash(data: Path) -> str:
    return hashlib.sha256((data / "train.tsv.gz").read_bytes()).hexdigest()
