# SPDX-License-Identifier: Apache-2.0
"""Tokenizers of Marian folders: a SentencePiece model a language, and ids from a vocabulary file of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sentencepiece

from trustformer.data.hub_tokenizer import HubTokenizer, is_hub_tokenizer
from trustformer.data.tokenizer import (
    EOS_ID,
    PAD_ID,
    SPECIAL,
    UNK_ID,
    Tokenizer,
    special_pieces,
    write_marian_config,
)
from trustformer.errors import ConfigError, MessageError
from trustformer.message import Reader, digest, enc

_LABEL = "trustformer marian tokenizer 1"
_MAX_BYTES = 1 << 28
_UNKNOWN = "<unk>"


class MarianTokenizer(Tokenizer):
    """Sentences to ids and back as `transformers.MarianTokenizer` does it, without language codes.

    Args:
        source, target: bytes of the two SentencePiece models.
        vocabulary: bytes of `vocab.json`, pieces to ids; serves both languages.
        pad_id, eos_id: of the model's config.

    Raises:
        ConfigError: the files do not make a tokenizer.
    """

    def __init__(self, source: bytes, target: bytes, vocabulary: bytes, pad_id: int, eos_id: int) -> None:
        self._files = (source, target, vocabulary)
        self._ids = _vocabulary(vocabulary)
        self._pieces = {number: piece for piece, number in self._ids.items()}
        self.pad_id, self.eos_id = pad_id, eos_id
        for what, number in (("pad", pad_id), ("end", eos_id)):
            if number not in self._pieces or number == self._ids[_UNKNOWN]:
                raise ConfigError(f"vocab.json has no piece for the {what} token, id {number} of config.json")
        try:
            self._source = sentencepiece.SentencePieceProcessor(model_proto=source)
            self._target = sentencepiece.SentencePieceProcessor(model_proto=target)
        except RuntimeError as error:
            raise ConfigError(f"source.spm or target.spm is not a SentencePiece model: {error}") from None
        self.model = enc(_LABEL, *self._files, pad_id, eos_id)

    @classmethod
    def from_bytes(cls, data: bytes) -> MarianTokenizer:
        """Read what `model` holds; raises `ConfigError`."""
        reader = Reader(data, "the tokenizer")
        try:
            reader.label(_LABEL)
            files = [reader.raw(limit=_MAX_BYTES) for _ in range(3)]
            ids = [reader.integer(), reader.integer()]
            reader.end()
        except MessageError as error:
            raise ConfigError(error.message, "restore the run's tokenizer.model") from None
        return cls(files[0], files[1], files[2], *ids)

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        return max(self._pieces) + 1

    @property
    def digest(self) -> bytes:
        """Digest of all files and special ids, 32 bytes."""
        return digest(self.model)

    def encode(self, sentences: Sequence[str], max_length: int, *, target: bool = False) -> list[list[int]]:
        """Return ids with the end token, at most `max_length` a sentence; longer ones are cut."""
        rows = (self._target if target else self._source).encode(list(sentences), out_type=str)
        unknown = self._ids[_UNKNOWN]
        return [[*(self._ids.get(piece, unknown) for piece in row[: max_length - 1]), self.eos_id] for row in rows]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return text of the target language; pad and end tokens are left out."""
        special = (self.pad_id, self.eos_id)
        rows = [[self._pieces.get(i, _UNKNOWN) for i in row if i not in special] for row in ids]
        return [str(self._target.decode_pieces(row)).replace("\u2581", " ").strip() for row in rows]

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Write the files `transformers.MarianTokenizer` reads."""
        for name, data in zip(("source.spm", "target.spm", "vocab.json"), self._files, strict=True):
            (folder / name).write_bytes(data)
        special = {
            "unk_token": _UNKNOWN,
            "eos_token": self._pieces[self.eos_id],
            "pad_token": self._pieces[self.pad_id],
        }
        write_marian_config(folder, special, max_length)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read the tokenizer of a model folder: one of ours, any of the Marian family, or one that transformers knows.

    Raises:
        ConfigError: a file is missing, damaged or of a kind that is not supported.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") != "marian":
        return HubTokenizer.of_folder(folder)
    source, target, vocabulary = (_read(folder / name) for name in ("source.spm", "target.spm", "vocab.json"))
    pad_id, eos_id = (_id(folder, config, name) for name in ("pad_token_id", "eos_token_id"))
    if source == target and (pad_id, eos_id) == (PAD_ID, EOS_ID):
        ids = _vocabulary(vocabulary)
        model = sentencepiece.SentencePieceProcessor()
        try:
            model.LoadFromSerializedProto(source)
        except RuntimeError as error:
            raise ConfigError(f"{folder / 'source.spm'} is not a SentencePiece model: {error}") from None
        same = all(ids.get(model.id_to_piece(i)) == i for i in range(model.get_piece_size()))
        ours = (model.pad_id(), model.eos_id(), model.unk_id()) == (PAD_ID, EOS_ID, UNK_ID)
        if same and ours and special_pieces(model) == SPECIAL:
            return Tokenizer(source)
    if (folder / "target_vocab.json").exists():
        raise ConfigError(f"{folder} has a vocabulary a language", "only models with one vocab.json for both are read")
    return MarianTokenizer(source, target, vocabulary, pad_id, eos_id)


def stored_tokenizer(path: Path) -> Tokenizer:
    """Read a run's `tokenizer.model`; raises `ConfigError`."""
    data = _read(path)
    if is_hub_tokenizer(data):
        return HubTokenizer(data)
    return MarianTokenizer.from_bytes(data) if data[4:].startswith(_LABEL.encode()) else Tokenizer.load(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises `ConfigError`."""
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        hint = "a model folder has config.json, model.safetensors, source.spm, target.spm and vocab.json"
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint) from None


def _id(folder: Path, config: dict[str, Any], name: str) -> int:
    value = config.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{folder / 'config.json'}: {name} is {value!r}, a token's number is needed")
    return value


def _vocabulary(data: bytes) -> dict[str, int]:
    """Pieces to ids, checked."""
    try:
        ids = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"vocab.json is not JSON: {error}") from None
    if not isinstance(ids, dict) or not all(type(number) is int and 0 <= number < 2**24 for number in ids.values()):
        raise ConfigError("vocab.json is not an object of pieces and their ids")
    if len(set(ids.values())) < len(ids):
        raise ConfigError("vocab.json gives one id to two pieces")
    if _UNKNOWN not in ids:
        raise ConfigError(f"vocab.json has no {_UNKNOWN}")
    return ids
