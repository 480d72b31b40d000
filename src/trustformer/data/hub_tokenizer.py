# SPDX-License-Identifier: Apache-2.0
"""Tokenizers in the hub's format: of a model folder, or trained as byte-level BPE on public text."""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trustformer.data.progress import blocks
from trustformer.data.tokenizer import Tokenizer
from trustformer.errors import ConfigError, MessageError
from trustformer.foreign import shown
from trustformer.message import Reader, digest, enc

# Set before the library is loaded: its threads would fight with torch's, and warn when the process forks.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

_LABEL = "trustformer hub tokenizer 1"
_MAX_BYTES = 1 << 28
_SPECIAL = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>", "bos": "<s>", "mask": "<mask>"}


class HubTokenizer(Tokenizer):
    """Sentences to ids and back by a tokenizer of transformers.

    Args:
        model: bytes of all its files, as `pack` makes them.

    Raises:
        ConfigError: the files do not make a tokenizer.
    """

    def __init__(self, model: bytes) -> None:
        from transformers import AutoTokenizer

        self.model = model
        files = _unpack(model)
        with tempfile.TemporaryDirectory() as name:
            for file, data in files:
                (Path(name) / file).write_bytes(data)
            try:
                self._tokenizer: Any = AutoTokenizer.from_pretrained(
                    name, local_files_only=True, trust_remote_code=False
                )
            except Exception as error:  # whatever a damaged file makes the library raise
                _check_readable([file for file, _ in files])
                what = str(error).strip().partition("\n")[0]
                raise ConfigError(f"the tokenizer cannot be read: {what}", "save it again with transformers") from None
        if self._tokenizer.eos_token_id is None and self._tokenizer.sep_token_id is None:
            raise ConfigError("the tokenizer has no end token", "set eos_token or sep_token in tokenizer_config.json")

    @classmethod
    def of_folder(cls, folder: Path) -> HubTokenizer:
        """Read the tokenizer of a model folder; raises `ConfigError`."""
        files = [path for path in sorted(folder.iterdir()) if path.is_file() and _belongs(path.name)]
        if not any("token" in path.name or path.name.startswith("vocab") for path in files):
            raise ConfigError(f"{folder} has no tokenizer", "it needs tokenizer.json and tokenizer_config.json")
        return cls(enc(_LABEL, len(files), *(part for path in files for part in (path.name, path.read_bytes()))))

    @classmethod
    def train_bpe(cls, sentences: Iterable[str], vocab_size: int, frame: str = "<s> $A </s>") -> HubTokenizer:
        """Train on public sentences; the same tokenizer for the same sentences.

        Args:
            sentences: the text.
            vocab_size: tokens, at most; the 256 bytes and special tokens are always there.
            frame: special tokens around a text: `<s> $A </s>` as encoders read it, `<s> $A` or `$A </s>`.
        """
        from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
        from tokenizers import Tokenizer as Fast
        from transformers import PreTrainedTokenizerFast

        fast = Fast(models.BPE())
        fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        fast.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(_SPECIAL.values()),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        fast.train_from_iterator(sentences, trainer)
        ends = [(_SPECIAL[name], fast.token_to_id(_SPECIAL[name])) for name in ("bos", "eos")]
        fast.post_processor = processors.TemplateProcessing(
            single=frame, special_tokens=[(token, number) for token, number in ends if token in frame]
        )
        names: dict[str, Any] = {f"{name}_token": token for name, token in _SPECIAL.items()}
        names["mask_token"] = AddedToken(_SPECIAL["mask"], lstrip=True)  # it stands for a token with its space
        if frame == "<s> $A </s>":
            names |= {"cls_token": _SPECIAL["bos"], "sep_token": _SPECIAL["eos"]}
        with tempfile.TemporaryDirectory() as folder:
            PreTrainedTokenizerFast(tokenizer_object=fast, **names).save_pretrained(folder)
            return cls.of_folder(Path(folder))

    @property
    def pad_id(self) -> int:  # type: ignore[override]
        """Id that fills short rows; that of the end token where there is none."""
        pad = self._tokenizer.pad_token_id
        return int(self.eos_id if pad is None else pad)

    @property
    def eos_id(self) -> int:  # type: ignore[override]
        """Id of the token that ends a text."""
        end = self._tokenizer.eos_token_id
        return int(self._tokenizer.sep_token_id if end is None else end)

    @property
    def unk_id(self) -> int | None:  # type: ignore[override]
        """Id of what the vocabulary lacks; None where nothing is lacking, as in GPT-2's, which has bytes."""
        unknown = self._tokenizer.unk_token_id
        return None if unknown in (None, self.eos_id, self.pad_id, self.start_id) else int(unknown)

    @property
    def start_id(self) -> int:
        """Id of the token before a text; the end token where there is none, as in GPT-2."""
        start = self._tokenizer.bos_token_id
        return int(self.eos_id if start is None else start)

    @property
    def mask_id(self) -> int:
        """Id of the mask token; raises `ConfigError` where there is none."""
        if self._tokenizer.mask_token_id is None:
            raise ConfigError("the tokenizer has no mask token", "masked-lm needs one: choose another model folder")
        return int(self._tokenizer.mask_token_id)

    @property
    def mask_token(self) -> str | None:
        """The mask token as a text has it; None where there is none."""
        token = self._tokenizer.mask_token
        return None if token is None else str(token)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return len(self._tokenizer)

    @property
    def digest(self) -> bytes:
        """Digest of all files, 32 bytes."""
        return digest(self.model)

    def encode(self, sentences: Sequence[str], max_length: int, *, target: bool = False) -> list[list[int]]:
        """Return ids with the special tokens the tokenizer adds, at most `max_length`; longer texts are cut."""
        return self._ids(sentences, max_length, "text_target" if target else "text")

    def encode_plain(self, sentences: Sequence[str], max_length: int) -> list[list[int]]:
        """Return ids without any special token, at most `max_length`."""
        return self._ids(sentences, max_length, "text", add_special_tokens=False)

    def _ids(self, sentences: Sequence[str], max_length: int, argument: str, **how: Any) -> list[list[int]]:
        rows: list[list[int]] = []
        for block in blocks(sentences, "tokenising", "sentences"):  # never an empty one, which is an IndexError
            how |= {argument: list(block), "truncation": True, "max_length": max_length}
            encoding = self._tokenizer(split_special_tokens=True, **how)  # `<s>` in a text is text
            rows += (list(ids) for ids in encoding["input_ids"])
        return rows

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return text; special tokens are left out."""
        return [text.strip() for text in self._tokenizer.batch_decode(list(ids), skip_special_tokens=True)]

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Write the files `transformers.AutoTokenizer` reads."""
        if max_length is not None:
            self._tokenizer.model_max_length = max_length
        self._tokenizer.save_pretrained(folder)


def _check_readable(names: Sequence[str]) -> None:
    """Raise `ConfigError` where a tokenizer has only its SentencePiece file, which transformers reads with protobuf."""
    pieces = [name for name in names if name.endswith(".model")]
    if not pieces or "tokenizer.json" in names:
        return
    try:
        importlib.import_module("sentencepiece.sentencepiece_model_pb2")
    except Exception:  # protobuf is missing, or older than the code that sentencepiece brings
        raise ConfigError(
            f"the tokenizer has {shown(pieces[0])} and no tokenizer.json, and the protobuf here is missing or too old "
            "to make it",
            "load the folder with transformers' AutoTokenizer where sentencepiece and protobuf fit, save_pretrained, "
            "and add the tokenizer.json that it writes",
        ) from None


def is_hub_tokenizer(data: bytes) -> bool:
    """Whether these bytes are a `HubTokenizer.model`."""
    return data[4:].startswith(_LABEL.encode())


def _belongs(name: str) -> bool:
    """Whether a file of a model folder is the tokenizer's; config.json says the model's type, which names its class."""
    if name.endswith((".safetensors", ".bin", ".index.json", ".py", ".md")) or name == "generation_config.json":
        return False
    known = ("config.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "special_tokens_map.json")
    return name in known or name.startswith(("token", "vocab", "added_tokens"))


def _unpack(data: bytes) -> list[tuple[str, bytes]]:
    reader = Reader(data, "the tokenizer")
    try:
        reader.label(_LABEL)
        files = [(reader.text(limit=255), reader.raw(limit=_MAX_BYTES)) for _ in range(reader.integer(64))]
        reader.end()
    except MessageError as error:
        raise ConfigError(error.message, "restore the run's tokenizer.model") from None
    if not all(_belongs(name) and "/" not in name for name, _ in files):
        raise ConfigError("the tokenizer holds a file that is none of a tokenizer", "restore the run's tokenizer.model")
    return files
