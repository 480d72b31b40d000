# SPDX-License-Identifier: Apache-2.0
"""From a config to everything a run starts with: corpus, tokenizer, who holds what, model, G_0, method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

from trustformer.codec.weights import Weights, specs_of, weights_digest
from trustformer.data.batches import Example
from trustformer.data.corpus import Corpus, Pair, corpus_digest, read_pairs, resolve_path
from trustformer.data.hub_tokenizer import HubTokenizer
from trustformer.data.lines import numbered_lines
from trustformer.data.marian import load_tokenizer
from trustformer.data.partitioners import partition
from trustformer.data.tokenizer import Tokenizer
from trustformer.data.toy import toy_corpus
from trustformer.errors import ConfigError, DataError
from trustformer.evaluation.tasks import Task, make_task
from trustformer.evaluation.usable import usable_corpus
from trustformer.experiment.checks import check_preset
from trustformer.experiment.config import Config
from trustformer.experiment.corpora import read_corpus, read_folders, target_language
from trustformer.experiment.guarantee import Guarantee, guarantee
from trustformer.message import digest, enc
from trustformer.methods import Method, build
from trustformer.models.families import architecture_of, make_model
from trustformer.models.seq2seq import PRESETS, Model, frozen_weights, get_weights
from trustformer.training import check_parts, device_of, nearest_on

TOY_PAIRS = 6000
VOCABULARY_TEXTS = 400_000
"""Most sentences that a vocabulary is trained on: time and memory of SentencePiece grow with them."""
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Prepared:
    """Everything fixed before the first round.

    Attributes:
        corpus: what is scored, and what clients hold.
        clients: client id to its training examples.
        model: the architecture; serves all clients of this process in turn.
        task: what the model is trained for.
        start: G_0.
        guarantee: differential privacy of the run; None where it has none.
        digest: of config, data, tokenizer and G_0: what all clients agree on (32 bytes).
    """

    corpus: Corpus
    tokenizer: Tokenizer
    clients: dict[str, list[Example]]
    model: Model
    task: Task
    start: Weights
    method: Method
    guarantee: Guarantee | None
    digest: bytes

    @property
    def common(self) -> Weights:
        """The first common model; empty where the method has none."""
        return self.start if self.method.codec is not None and self.method.common else {}


def prepare(config: Config, tokenizer: Tokenizer | None = None) -> Prepared:
    """Build everything a run needs; the same for the same config and files.

    Args:
        config: the run's config.
        tokenizer: the run's own, when it is taken up again; else it is trained or loaded.

    Raises:
        DataError, ConfigError: naming file, line or key.
    """
    check_preset(config)
    corpus, public = load_corpus(config)
    tokenizer = tokenizer or _tokenizer(config, public)
    labels = corpus.domains()
    language = target_language(config)
    task = make_task(config.model.task, tokenizer, config.data.side, labels, language)
    corpus = usable_corpus(corpus, task, config.model.max_length, tokenizer.unk_id)
    model = make_model(config.learner, tokenizer, labels, config.seed).to(device_of(config.train))
    start = get_weights(model)
    make = partial(build, config.method, specs_of(start), config.privacy, start=start, nearest=nearest_on(model.device))
    method = make()
    count = 1 if method.pooled else config.clients.count
    parts = divide(config, corpus, count)
    examples = task.examples(corpus.train, config.model.max_length)
    width = len(str(count - 1))
    clients = {f"{index:0{width}d}": [examples[i] for i in part] for index, part in enumerate(parts)}
    for held in clients.values() if config.privacy.mechanism != "records" else ():
        check_parts(held, config.train)
    sizes = {client: len(held) for client, held in clients.items()}
    promise = guarantee(config, sizes, method)
    if promise is not None:
        method = make(noise_multiplier=promise.noise_multiplier)
    agreed = enc(
        *("tfl/1 experiment", config.to_toml(), corpus.digest, tokenizer.digest, weights_digest(start)),
        *([weights_digest(frozen_weights(model))] if config.model.freeze or config.model.lora_rank else []),
    )
    return Prepared(corpus, tokenizer, clients, model, task, start, method, promise, digest(agreed))


def divide(config: Config, corpus: Corpus, count: int) -> list[list[int]]:
    """Return the training pairs of each of `count` clients as indexes: their own, or a part by `clients.split`."""
    if corpus.owners and count > 1:
        ends = list(accumulate(train for train, _, _ in corpus.owners))
        return [list(range(start, end)) for start, end in zip([0, *ends], ends, strict=False)]
    clients = config.clients
    return partition(corpus.train, count, clients.split if count > 1 else "iid", alpha=clients.alpha, seed=config.seed)


def load_corpus(config: Config) -> tuple[Corpus, tuple[Pair, ...]]:
    """Return the corpus and its public share, which no client trains on."""
    data = config.data
    if data.source == "toy":
        return toy_corpus(config.seed, train=data.limit or TOY_PAIRS)
    if config.clients.folders:
        return read_folders(config.clients.folders, data.limit), ()
    corpus = read_corpus(data)
    share = 0
    if config.tokenizer.train_on == "public" and not config.tokenizer.file and config.model.preset in PRESETS:
        share = max(1, int(len(corpus.train) * config.tokenizer.public_share))
    train = corpus.train[share:]
    if data.limit > len(train):
        freed = f"; tokenizer.train_on with other text frees the {share:,} of the public share" if share else ""
        raise DataError(
            f"data.limit is {data.limit:,}, but {corpus.name} has {len(train):,} pairs for clients",
            f"at most {len(train):,}, or 0 for all{freed}",
        )
    train = train[: data.limit or None]
    name = f"{corpus.name}, {len(train):,} pairs"
    told = (
        f"the first {share:,} pairs of {corpus.name} count as PUBLIC: they make the vocabulary, no client trains on "
        "them (tokenizer.train_on names other text)"
    )
    shrunk = Corpus(
        train=train,
        valid=corpus.valid,
        test=corpus.test,
        name=name,
        synthetic=False,
        warnings=(*corpus.warnings, told) if share else corpus.warnings,
        digest=corpus_digest(train, corpus.valid, corpus.test),
    )
    return shrunk, corpus.train[:share]


def _path(text: str) -> Path:
    return resolve_path(text, Path())


def _tokenizer(config: Config, public: tuple[Pair, ...]) -> Tokenizer:
    settings = config.tokenizer
    if config.model.preset not in PRESETS:
        if settings.file:
            raise ConfigError("tokenizer.file is set, but a model folder brings its own", "leave it empty")
        return load_tokenizer(Path(config.model.preset))
    if settings.file:
        return Tokenizer.load(_path(settings.file))
    sentences = _public_sentences(config, public)
    if architecture_of(config.model) == "marian":
        return Tokenizer.train(sentences, settings.vocab_size)
    frame = {"translation": "$A </s>", "causal-lm": "<s> $A"}.get(config.model.task, "<s> $A </s>")
    return HubTokenizer.train_bpe(sentences, settings.vocab_size, frame)


def _public_sentences(config: Config, public: Sequence[Pair]) -> Sequence[str]:
    """What the vocabulary is trained on: both sides of pairs, or the one the task uses; evenly spread if too many."""
    settings = config.tokenizer
    if settings.train_on != "public":
        path = _path(settings.train_on)
        if path.is_dir():
            raise ConfigError(f"tokenizer.train_on is {path}, a folder", "give a text or .tsv file, plain or .gz")
        if not path.name.lower().endswith((".tsv", ".tsv.gz")):
            return _thinned([line for _, line in numbered_lines(path)], VOCABULARY_TEXTS)
        public = read_pairs(path)[0]
    sides = ("source", "target") if config.model.task == "translation" else (config.data.side,)
    kept = _thinned(public, VOCABULARY_TEXTS // len(sides))
    return [getattr(pair, side) for pair in kept for side in sides]


def _thinned(items: Sequence[_Item], most: int) -> Sequence[_Item]:
    """All items, or `most` of them, evenly spread."""
    return items if len(items) <= most else [items[index * len(items) // most] for index in range(most)]
