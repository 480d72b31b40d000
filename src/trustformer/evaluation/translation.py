# SPDX-License-Identifier: Apache-2.0
"""Scores of translations a model really wrote (never teacher-forced), and likelihood of the reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import sacrebleu
import torch
from msgspec import Meta, Struct

from trustformer.data.batches import Example, make_batches, pad
from trustformer.data.tokenizer import Tokenizer
from trustformer.evaluation.bootstrap import make_bleu
from trustformer.models.families import RELATIVE, longest
from trustformer.models.objectives import SEQ2SEQ, Objective
from trustformer.models.seq2seq import Model

Report = Callable[[int, int], None]
"""Called with sentences done and in all."""


class EvaluationConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The `[evaluation]` section of a config.

    Attributes:
        beams: beam width; 1 is greedy.
        batch_sentences: sentences decoded together.
        valid_pairs: pairs of the validation split scored after every round; 0 for none.
        test_pairs: first pairs of the test split that are translated and scored; 0 for all.
        clients: models of the first so many clients are scored, beside the common one; 0 for all.
    """

    beams: Annotated[int, Meta(ge=1, le=32)] = 1
    batch_sentences: Annotated[int, Meta(ge=1)] = 100
    valid_pairs: Annotated[int, Meta(ge=0)] = 300
    test_pairs: Annotated[int, Meta(ge=0)] = 0
    clients: Annotated[int, Meta(ge=0)] = 0


@dataclass(frozen=True)
class Scores:
    """Corpus scores of a list of translations, in sacreBLEU's units (0 to 100), with its signatures."""

    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str


def longest_source(model: Model) -> int:
    """Tokens of a sentence that `translate` reads; what is beyond is cut."""
    return longest(model) or RELATIVE


def count_cut(model: Model, tokenizer: Tokenizer, sentences: Sequence[str]) -> int:
    """Return how many sentences `translate` cuts."""
    most = longest_source(model)
    return sum(len(ids) > most for ids in tokenizer.encode(sentences, most + 1))


def translate(
    model: Model,
    tokenizer: Tokenizer,
    sentences: Sequence[str],
    *,
    beams: int = 1,
    batch_sentences: int = 100,
    report: Report | None = None,
) -> list[str]:
    """Return one translation a sentence, in the order given.

    A translation ends at 2 x the longest source of its batch + 10 tokens at the latest: an untrained model
    would otherwise fill the model's whole length for every sentence.
    """
    model.eval()
    most = longest_source(model)
    sources = tokenizer.encode(sentences, most)
    order = np.argsort([len(ids) for ids in sources], kind="stable").tolist()
    translations = [""] * len(sources)
    for start in range(0, len(order), batch_sentences):
        chosen = order[start : start + batch_sentences]
        ids = pad([sources[i] for i in chosen], tokenizer.pad_id).to(model.device)
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=(ids != tokenizer.pad_id).long(),
                max_length=min(most, 2 * ids.shape[1] + 10),
                max_new_tokens=None,  # a folder's would come before max_length
                num_beams=beams,
                num_return_sequences=1,
                do_sample=False,
            )
        for index, text in zip(chosen, tokenizer.decode(output.tolist()), strict=True):
            translations[index] = text.replace("\n", " ")
        if report is not None:
            report(start + len(chosen), len(order))
    return translations


def score(translations: Sequence[str], references: Sequence[str], language: str = "") -> Scores:
    """Return BLEU and chrF of translations into `language` against one reference each (Post, 2018)."""
    bleu, chrf = make_bleu(language), sacrebleu.CHRF()
    bleu_score = bleu.corpus_score(list(translations), [list(references)]).score
    chrf_score = chrf.corpus_score(list(translations), [list(references)]).score
    return Scores(bleu_score, chrf_score, str(bleu.get_signature()), str(chrf.get_signature()))


def negative_log_likelihood(
    model: Model, examples: Sequence[Example], report: Report | None = None, *, objective: Objective = SEQ2SEQ
) -> float:
    """Return nats per target: of a translation per token, the end token included; without label smoothing."""
    model.eval()
    total, tokens, done = 0.0, 0, 0
    for indexes in make_batches(examples, batch_tokens=4096):
        batch = objective.collate(examples, indexes, model).to(model.device)
        with torch.inference_mode():
            loss = objective.loss(model, batch, reduction="sum")
        total, tokens, done = total + float(loss), tokens + batch.target_tokens, done + len(indexes)
        if report is not None:
            report(done, len(examples))
    return total / tokens
