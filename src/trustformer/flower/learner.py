# SPDX-License-Identifier: Apache-2.0
"""What a client of a deployment trains, on what, and with which noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from safetensors import SafetensorError

from trustformer.attestation.files import sync
from trustformer.codec.weights import Weights, specs_of
from trustformer.data.batches import Example
from trustformer.data.corpus import Corpus
from trustformer.data.folder import load_folder
from trustformer.data.tokenizer import Tokenizer
from trustformer.errors import DataError, TrustformerError
from trustformer.evaluation.tasks import make_task
from trustformer.experiment.config import Config
from trustformer.experiment.guarantee import Guarantee, own_guarantee
from trustformer.experiment.parties import make_trainer
from trustformer.flower.agreement import model_of, read_start, read_tokenizer
from trustformer.flower.placeholder import described
from trustformer.flower.settings import NodeConfig
from trustformer.methods import Method, build
from trustformer.models.adapters import merged
from trustformer.models.families import make_model
from trustformer.models.seq2seq import get_weights, save_model, set_weights
from trustformer.training import LocalTrainer, device_of, nearest_on


@dataclass(frozen=True)
class Learner:
    """A client's model and text.

    Attributes:
        tokenizer: all clients' vocabulary.
        examples: the private text, tokenised.
        described: what to call its pairs, such as `placeholder pairs, de-en`.
        start: G_0.
        method: what is exchanged.
        trainer: trains weights on the examples.
        promise: differential privacy of this client's pairs, by noise of its own; None where none is asked for.
    """

    tokenizer: Tokenizer
    examples: list[Example]
    described: str
    start: Weights
    method: Method
    trainer: LocalTrainer
    promise: Guarantee | None
    _model: Any

    @classmethod
    def load(cls, folder: Path, settings: NodeConfig, config: Config) -> Self:
        """Read what `node.toml` names; raises `TrustformerError` naming what is missing, damaged or out of reach."""
        tokenizer = read_tokenizer(folder / settings.tokenizer)
        model = make_model(model_of(folder, config), tokenizer, (), config.seed).to(device_of(config.train))
        task = make_task(config.model.task, tokenizer, config.data.side, ())
        stored = read_start(folder / settings.start)
        start = {name: stored[name] for name in get_weights(model) if name in stored}  # a file sorts its names
        method = build(config.method, specs_of(start), config.privacy, start=start, nearest=nearest_on(model.device))
        corpus = _read(folder, settings)
        said = described(folder, folder / settings.data)
        examples = task.examples(corpus.train, config.model.max_length)
        promise = own_guarantee(config, settings.client, len(examples), method)
        trainer = make_trainer(config, model, method, task, promise)
        return cls(tokenizer, examples, said, start, method, trainer, promise, model)

    def save(self, weights: Weights, folder: Path) -> None:
        """Write a model that `trustformer translate` and transformers load; raises `TrustformerError`."""
        set_weights(self._model, weights)
        try:
            folder.mkdir(exist_ok=True)
            save_model(merged(self._model), folder)
            self.tokenizer.save(folder)
            sync(folder)
        except (OSError, SafetensorError) as error:
            raise TrustformerError(f"{folder} cannot be written: {error}", "free space and join again") from None


def _read(folder: Path, settings: NodeConfig) -> Corpus:
    try:
        return load_folder(folder / settings.data)
    except DataError as error:
        raise DataError(f"data in {folder / 'node.toml'}: {error.message}", error.hint) from None
