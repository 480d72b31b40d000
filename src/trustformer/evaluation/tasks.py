# SPDX-License-Identifier: Apache-2.0
"""The seam between a task and the rest: what an example is, what a model is trained on, how it is scored."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch

from trustformer.data.batches import Example, make_batches, to_examples
from trustformer.data.corpus import LABELS, Pair
from trustformer.data.hub_tokenizer import HubTokenizer
from trustformer.data.tokenizer import Tokenizer
from trustformer.errors import DataError
from trustformer.evaluation.translation import EvaluationConfig, Report, negative_log_likelihood, score, translate
from trustformer.models.objectives import (
    SEQ2SEQ,
    CausalObjective,
    ClassificationObjective,
    MaskedObjective,
    Objective,
)
from trustformer.models.seq2seq import Model

Side = Literal["source", "target"]

_MOST_NATS = 300.0


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on the test set.

    Attributes:
        scores: by the task's metrics.
        outputs: what the model wrote or chose, one line a test pair; empty where it writes nothing.
        signatures: how scores were computed, for those that have a signature.
        domains: scores of the pairs of each domain label, where they are split.
    """

    scores: dict[str, float]
    outputs: list[str] = field(default_factory=list)
    signatures: dict[str, str] = field(default_factory=dict)
    domains: dict[str, dict[str, Any]] = field(default_factory=dict)


class Task(Protocol):
    """One thing a model can be trained for. `metrics`: names of its scores, the headline first."""

    metrics: tuple[str, ...]
    objective: Objective

    def usable(self, pairs: Sequence[Pair], max_length: int) -> Sequence[int]:
        """Return the indexes, ascending, of the pairs that `examples` makes an example of."""
        ...

    def examples(self, pairs: Sequence[Pair], max_length: int) -> list[Example]:
        """Tokenise pairs; longer texts are cut."""
        ...

    def evaluate(
        self, model: Model, test: Sequence[Pair], config: EvaluationConfig, max_length: int, report: Report
    ) -> Evaluation:
        """Score a model on test pairs."""
        ...


def make_task(name: str, tokenizer: Tokenizer, side: Side, labels: Sequence[str], language: str = "") -> Task:
    """Return a task by its name in a config.

    Args:
        name: `translation`, `causal-lm`, `masked-lm` or `classification`.
        tokenizer: of the model.
        side: of a pair, the text that tasks other than translation use.
        labels: of classification.
        language: of translations, which BLEU's tokenizer depends on.
    """
    if name == "translation":
        return Translation(tokenizer, language)
    assert isinstance(tokenizer, HubTokenizer)
    if name == "causal-lm":
        return CausalLM(tokenizer, side)
    return MaskedLM(tokenizer, side) if name == "masked-lm" else Classification(tokenizer, side, labels)


class _Examples:
    """Keeps the examples asked for last: those of training are counted before they are trained on."""

    _last: tuple[Sequence[Pair], int, list[Example]] | None = None

    def usable(self, pairs: Sequence[Pair], max_length: int) -> Sequence[int]:
        """Every pair."""
        return range(len(pairs))

    def examples(self, pairs: Sequence[Pair], max_length: int) -> list[Example]:
        """Tokenise pairs, unless they are the very tuple of the call before."""
        if self._last is None or self._last[0] is not pairs or self._last[1] != max_length:
            made = self._tokenised(pairs, max_length)
            self._last = (pairs, max_length, made) if isinstance(pairs, tuple) else None
            return made
        return self._last[2]

    def _tokenised(self, pairs: Sequence[Pair], max_length: int) -> list[Example]:
        raise NotImplementedError


class Translation(_Examples):
    """Source to target; BLEU and chrF of what the model really wrote, and likelihood of the reference."""

    metrics: tuple[str, ...] = ("bleu", "chrf", "nll")
    objective: Objective = SEQ2SEQ

    def __init__(self, tokenizer: Tokenizer, language: str = "") -> None:
        self._tokenizer, self._language = tokenizer, language

    def _tokenised(self, pairs: Sequence[Pair], max_length: int) -> list[Example]:
        """Both sides."""
        return to_examples(pairs, self._tokenizer, max_length)

    def evaluate(
        self, model: Model, test: Sequence[Pair], config: EvaluationConfig, max_length: int, report: Report
    ) -> Evaluation:
        """Translate and score the test set, and each domain of it."""
        translations = translate(
            model,
            self._tokenizer,
            [pair.source for pair in test],
            beams=config.beams,
            batch_sentences=config.batch_sentences,
            report=report,
        )
        scores = score(translations, [pair.target for pair in test], self._language)
        domains = {}
        for domain in sorted({pair.domain for pair in test} - {""}):
            chosen = [i for i, pair in enumerate(test) if pair.domain == domain]
            part = score([translations[i] for i in chosen], [test[i].target for i in chosen], self._language)
            domains[domain] = {"pairs": len(chosen), "bleu": part.bleu, "chrf": part.chrf}
        nll = negative_log_likelihood(model, self.examples(test, max_length), report)
        return Evaluation(
            {"bleu": scores.bleu, "chrf": scores.chrf, "nll": nll},
            translations,
            {"sacrebleu_signature": scores.bleu_signature, "chrf_signature": scores.chrf_signature},
            domains,
        )


class _LanguageModel(_Examples):
    """Likelihood of one side of the pairs; perplexity is its exponential, so it depends on the vocabulary."""

    metrics: tuple[str, ...] = ("perplexity", "nll")
    objective: Objective

    def __init__(self, tokenizer: HubTokenizer, side: Side) -> None:
        self._tokenizer, self._side = tokenizer, side

    def evaluate(
        self, model: Model, test: Sequence[Pair], config: EvaluationConfig, max_length: int, report: Report
    ) -> Evaluation:
        """Return nats per target and perplexity, which is e^300 for all above 300 nats: runs diverge, floats end."""
        nll = negative_log_likelihood(model, self.examples(test, max_length), report, objective=self.objective)
        return Evaluation({"perplexity": math.exp(min(nll, _MOST_NATS)), "nll": nll})


class CausalLM(_LanguageModel):
    """Every token given those before it, the end token included."""

    objective: Objective = CausalObjective()

    def _tokenised(self, pairs: Sequence[Pair], max_length: int) -> list[Example]:
        """One side; the input begins with the start token."""
        rows = self._tokenizer.encode_plain([getattr(pair, self._side) for pair in pairs], max_length - 1)
        start, end = self._tokenizer.start_id, self._tokenizer.eos_id
        return [Example([start, *ids], [*ids, end]) for ids in rows]


class MaskedLM(_LanguageModel):
    """Hidden tokens given the others; which are hidden in evaluation depends on the sentence alone."""

    def __init__(self, tokenizer: HubTokenizer, side: Side) -> None:
        super().__init__(tokenizer, side)
        self.objective = MaskedObjective(tokenizer.mask_id, tokenizer.vocab_size)

    def usable(self, pairs: Sequence[Pair], max_length: int) -> Sequence[int]:
        """Those with a token between the special ones: nothing can be hidden in others."""
        return [index for index, ids in enumerate(self._rows(pairs, max_length)) if len(ids) > 2]

    def _tokenised(self, pairs: Sequence[Pair], max_length: int) -> list[Example]:
        """One side of the usable pairs, with a special token at either end."""
        return [Example(ids, ids) for ids in self._rows(pairs, max_length) if len(ids) > 2]

    def _rows(self, pairs: Sequence[Pair], max_length: int) -> list[list[int]]:
        return self._tokenizer.encode([getattr(pair, self._side) for pair in pairs], max_length)


class Classification(_Examples):
    """The domain label of one side; accuracy, and F1 averaged over the labels that occur in the test set."""

    metrics: tuple[str, ...] = ("accuracy", "macro_f1", "nll")
    objective: Objective = ClassificationObjective()

    def __init__(self, tokenizer: HubTokenizer, side: Side, labels: Sequence[str]) -> None:
        self._tokenizer, self._side, self._labels = tokenizer, side, tuple(labels)

    def usable(self, pairs: Sequence[Pair], max_length: int) -> Sequence[int]:
        """Every pair; raises as `examples` does, so that a test set is looked at before anything is trained."""
        self._check(pairs)
        return super().usable(pairs, max_length)

    def _tokenised(self, pairs: Sequence[Pair], max_length: int) -> list[Example]:
        """One side; the target is the label's number.

        Raises:
            DataError: a pair has no label, or one that training text has not.
        """
        self._check(pairs)
        rows = self._tokenizer.encode([getattr(pair, self._side) for pair in pairs], max_length)
        return [Example(ids, [self._labels.index(pair.domain)]) for ids, pair in zip(rows, pairs, strict=True)]

    def _check(self, pairs: Sequence[Pair]) -> None:
        unknown = sorted({pair.domain for pair in pairs} - set(self._labels))
        if unknown:
            raise DataError(
                f"the label {unknown[0]!r} is none of the training text's" if unknown[0] else "a text has no label",
                f"label train, valid and test alike ({LABELS}; of valid and test likewise)",
            )

    def evaluate(
        self, model: Model, test: Sequence[Pair], config: EvaluationConfig, max_length: int, report: Report
    ) -> Evaluation:
        """Choose the likeliest label of every text."""
        model.eval()
        examples = self.examples(test, max_length)
        chosen_N = np.zeros(len(examples), np.int64)
        for indexes in make_batches(examples, batch_tokens=4096):
            batch = self.objective.collate(examples, indexes, model).to(model.device)
            with torch.inference_mode():
                chosen_N[indexes] = model(**batch.inputs).logits.argmax(-1).cpu().numpy()
        truth_N = np.array([example.target[0] for example in examples])
        scores = {
            "accuracy": float((chosen_N == truth_N).mean()),
            "macro_f1": macro_f1(truth_N, chosen_N),
            "nll": negative_log_likelihood(model, examples, report, objective=self.objective),
        }
        return Evaluation(scores, [self._labels[number] for number in chosen_N])


def macro_f1(truth_N: npt.NDArray[np.int64], chosen_N: npt.NDArray[np.int64]) -> float:
    """Return the mean over labels of 2 x hits / (occurrences + choices), for labels that occur in the truth."""
    scores = [
        2 * np.sum((truth_N == label) & (chosen_N == label)) / (np.sum(truth_N == label) + np.sum(chosen_N == label))
        for label in np.unique(truth_N)
    ]
    return float(np.mean(scores))
