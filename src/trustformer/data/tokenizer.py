# SPDX-License-Identifier: Apache-2.0
"""One SentencePiece model for all clients (Kudo and Richardson, 2018).

A subword vocabulary trained on private text contains words of it. So it is trained on text that is declared public,
or loaded from a file, and every client checks its digest.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import sentencepiece

from trustformer.data.progress import blocks, clocked
from trustformer.errors import ConfigError, DataError
from trustformer.foreign import shown
from trustformer.message import digest

PAD_ID, EOS_ID, UNK_ID = 0, 1, 2
SPECIAL = ("<pad>", "</s>", "<unk>")
"""Their pieces: a saved tokenizer names them so."""
_FEW = re.compile(r"smaller than required_chars\. \d+ vs (\d+)")


class Tokenizer:
    """Sentences to ids and back; the same ids on both sides of a translation.

    Args:
        model: bytes of a SentencePiece model with pad, end and unknown at 0, 1, 2, named as `SPECIAL`.

    Raises:
        ConfigError: it is none, or has other special pieces.
    """

    pad_id = PAD_ID
    eos_id = EOS_ID
    unk_id: int | None = UNK_ID

    def __init__(self, model: bytes) -> None:
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ConfigError(f"the tokenizer is not a SentencePiece model: {error}") from None
        ids = (self._processor.pad_id(), self._processor.eos_id(), self._processor.unk_id())
        if ids != (PAD_ID, EOS_ID, UNK_ID):
            raise ConfigError(
                f"the tokenizer has pad, end and unknown at {ids}, they must be at (0, 1, 2)",
                "train it with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1",
            )
        names = special_pieces(self._processor)
        if names != SPECIAL:
            raise ConfigError(
                f"the tokenizer names pad, end and unknown {shown(', '.join(names), 80)}, "
                f"they must be {', '.join(SPECIAL)}",
                "train it without --pad_piece, --eos_piece and --unk_piece",
            )

    @classmethod
    def train(cls, sentences: Iterable[str], vocab_size: int) -> Tokenizer:
        """Train on public sentences; the same model for the same sentences.

        Raises:
            DataError: too little text for so many pieces, or more different characters than pieces.
        """
        held, model = list(sentences), io.BytesIO()
        if not any(sentence.strip() for sentence in held):
            raise DataError(
                "the vocabulary has no text to be trained on: every line is empty",
                "give public text (tokenizer.train_on, tokenizer.public_share)",
            )
        try:
            with clocked("vocabulary"):
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter(held),
                    model_writer=model,
                    vocab_size=vocab_size,
                    pad_id=PAD_ID,
                    eos_id=EOS_ID,
                    unk_id=UNK_ID,
                    bos_id=-1,
                    character_coverage=1.0,
                    num_threads=1,  # more threads sum in another order and may pick other pieces
                    hard_vocab_limit=False,
                    minloglevel=2,
                )
        except RuntimeError as error:
            if few := _FEW.search(str(error)):
                raise DataError(
                    f"tokenizer.vocab_size is {vocab_size}, the different characters of this text need {few[1]}",
                    f"--set tokenizer.vocab_size={few[1]} or more",
                ) from None
            raise DataError(
                f"a tokenizer of {vocab_size} pieces cannot be trained on this text: {error}",
                "lower tokenizer.vocab_size or give more public text (tokenizer.public_share, tokenizer.train_on)",
            ) from None
        return cls(model.getvalue())

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a SentencePiece model file; raises `ConfigError`."""
        try:
            return cls(path.read_bytes())
        except OSError as error:
            raise ConfigError(f"the tokenizer {path} cannot be read: {error.strerror}") from None

    @property
    def vocab_size(self) -> int:
        """Number of pieces."""
        return int(self._processor.get_piece_size())

    @property
    def digest(self) -> bytes:
        """Digest of the model file, 32 bytes."""
        return digest(self.model)

    def encode(self, sentences: Sequence[str], max_length: int, *, target: bool = False) -> list[list[int]]:
        """Return ids with the end token, at most `max_length` a sentence; longer ones are cut.

        `target` says that the sentences are of the target language, which is all the same to this tokenizer.
        """
        return [
            [*ids[: max_length - 1], EOS_ID]
            for block in blocks(sentences, "tokenising", "sentences")
            for ids in self._processor.encode(list(block))
        ]

    def decode(self, ids: Sequence[Sequence[int]]) -> list[str]:
        """Return text; pad and end tokens are left out, and ids beyond the pieces, which a padded embedding has."""
        size = self.vocab_size
        return list(self._processor.decode([[i for i in row if EOS_ID < i < size] for row in ids]))

    def save(self, folder: Path, max_length: int | None = None) -> None:
        """Write the files `transformers.MarianTokenizer` reads: one model serves both languages.

        `max_length` is where transformers cuts when it is asked to truncate.
        """
        vocabulary = {self._processor.id_to_piece(i): i for i in range(self.vocab_size)}
        (folder / "source.spm").write_bytes(self.model)
        (folder / "target.spm").write_bytes(self.model)
        (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False, indent=0), "utf-8")
        pad, end, unknown = SPECIAL
        write_marian_config(folder, {"unk_token": unknown, "eos_token": end, "pad_token": pad}, max_length)


def special_pieces(processor: sentencepiece.SentencePieceProcessor) -> tuple[str, ...]:
    """The pieces that stand where pad, end and unknown must be."""
    return tuple(processor.id_to_piece(number) for number in (PAD_ID, EOS_ID, UNK_ID))


def write_marian_config(folder: Path, special: dict[str, str], max_length: int | None) -> None:
    """Write the `tokenizer_config.json` of a Marian tokenizer."""
    config: dict[str, object] = {"tokenizer_class": "MarianTokenizer", "separate_vocabs": False, **special}
    if max_length is not None:
        config["model_max_length"] = max_length
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), "utf-8")
