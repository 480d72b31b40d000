# SPDX-License-Identifier: Apache-2.0
"""Scores the translations of finished runs with the metrics of the paper, beside resampled BLEU for intervals.

python benchmarks/paper/metrics.py runs/paper benchmarks/results/paper [--bert-model FOLDER]

Writes RESULTS/RUN/metrics.json for every finished run whose translations are all there, unless it is there for the
same run. Of the package's extra `bench`: rouge-score, nltk and bert-score. Nothing is downloaded:

* METEOR aligns equal words and equal stems. Its third stage, synonyms, needs WordNet, which nltk would download.
* BERTScore takes a model from a local folder; without one it is left out.

A run's models are scored each by its own translations, BERTScore, which is slow, the first one only; the common model
is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import sacrebleu
from nltk.stem import PorterStemmer
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

from trustformer.evaluation.bootstrap import SentenceScores, draw

ROUGE = ("rouge1", "rouge2", "rougeL")
RESAMPLING_SEED = 0
"""The same for all runs: resample r holds the same sentences everywhere, so that differences are paired."""


class NoSynonyms:
    """In the place of WordNet."""

    def synsets(self, _: str) -> list[Any]:
        return []


def meteor(translations: Sequence[str], references: Sequence[str]) -> float:
    """Mean METEOR of the sentences, 0 to 100; words as sacreBLEU's tokenizer 13a cuts them, in lower case."""
    words, stemmer = sacrebleu.BLEU().tokenizer, PorterStemmer()
    scores = [
        meteor_score([words(reference).split()], words(text).split(), stemmer=stemmer, wordnet=NoSynonyms())
        for text, reference in zip(translations, references, strict=True)
    ]
    return 100 * float(np.mean(scores))


def rouge(translations: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean ROUGE F of the sentences, 0 to 100, with stems."""
    scorer = RougeScorer(list(ROUGE), use_stemmer=True)
    scores = [scorer.score(reference, text) for text, reference in zip(translations, references, strict=True)]
    return {kind: 100 * float(np.mean([score[kind].fmeasure for score in scores])) for kind in ROUGE}


def bert_scorer(folder: Path) -> Any:
    """BERTScore with the last layer of a local model, neither weighted by idf nor rescaled."""
    from bert_score import BERTScorer

    layers = json.loads((folder / "config.json").read_text("utf-8"))["num_hidden_layers"]
    return BERTScorer(model_type=str(folder), num_layers=layers, device="cpu")


def bert(scorer: Any, translations: Sequence[str], references: Sequence[str]) -> float:
    """Mean BERTScore F of the sentences, 0 to 100; an empty translation has zero."""
    pairs = [(text, reference) for text, reference in zip(translations, references, strict=True) if text.strip()]
    found = scorer.score([text for text, _ in pairs], [reference for _, reference in pairs])[2].sum().item()
    return 100 * float(found) / len(translations)


def lines(path: Path) -> list[str]:
    return path.read_text("utf-8").split("\n")[:-1]


def measure(run: Path, result: dict[str, Any], scorer: Any) -> dict[str, Any] | None:
    """Return the metrics of a run; None if its translations are not all there."""
    source = run / "translations" / "source.tsv"
    if not source.is_file() or len(lines(source)) != result["test_pairs"]:
        return None
    references = [line.split("\t")[1] for line in lines(source)]
    files = [run / "translations" / f"{client}.txt" for client in sorted(result["weights_digest"])]
    outputs = [lines(file) for file in files if file.is_file()] or [lines(run / "translations" / "common.txt")]
    rouges = [rouge(texts, references) for texts in outputs]
    counts = draw(len(references), RESAMPLING_SEED)
    resampled = [SentenceScores("bleu", texts, references).resampled(counts) for texts in outputs]
    return {
        "signature": result["signature"],
        "meteor": [round(meteor(texts, references), 3) for texts in outputs],
        **{kind: [round(scores[kind], 3) for scores in rouges] for kind in ROUGE},
        "bertscore": [round(bert(scorer, outputs[0], references), 3)] if scorer else None,
        "packages": {name: version(name) for name in ("nltk", "rouge-score", *(["bert-score"] if scorer else []))},
        "bleu_resampled": [round(float(value), 2) for value in np.mean(resampled, axis=0)],
    }


def main(runs: Path, results: Path, model: Path | None) -> None:
    """Write what is missing."""
    scorer = None
    for run in sorted(path.parent for path in runs.glob("*/result.json")):
        target = results / run.name / "metrics.json"
        result = json.loads((run / "result.json").read_text("utf-8"))
        known = json.loads(target.read_text("utf-8")) if target.is_file() else {}
        if known.get("signature") == result["signature"] and (model is None or known["bertscore"]):
            continue
        scorer = scorer or (bert_scorer(model) if model else None)
        found = measure(run, result, scorer)
        if found is None:
            print(f"{run.name}: translations are not complete, left out")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        fields = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items()]
        target.write_text("{\n " + ",\n ".join(fields) + "\n}\n", "utf-8")
        print(f"{run.name}: METEOR {np.mean(found['meteor']):.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("results", type=Path)
    parser.add_argument("--bert-model", type=Path)
    options = parser.parse_args()
    main(options.runs, options.results, options.bert_model)
