# SPDX-License-Identifier: Apache-2.0
"""BLEU and chrF from sentence statistics, weighted, with paired bootstrap intervals (Koehn, 2004)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import sacrebleu

from trustformer.errors import ConfigError

Metric = Literal["bleu", "chrf"]
METRICS: tuple[Metric, ...] = ("bleu", "chrf")
RESAMPLES = 1000
_LENGTH_SCALE = 1 << 20  # sacreBLEU takes whole lengths and uses only their ratio; weighted ones are not whole

_CODES = {**dict.fromkeys(("zho", "chi", "cmn", "yue", "lzh"), "zh"), "jpn": "ja", "kor": "ko"}
"""ISO 639-3 and 639-2 codes of the languages that sacreBLEU has tokenizers for, as it knows them."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """How much better one system is than another; `low` and `high` bound 95 % of the resampled differences."""

    mean: float
    low: float
    high: float


def make_bleu(language: str = "") -> sacrebleu.BLEU:
    """Return sacreBLEU's BLEU with the tokenizer it has for a language, `zh`, `ja-mecab` or `ko-mecab`; else `13a`.

    Raises:
        ConfigError: the package that this tokenizer needs is not installed.
    """
    code = re.split("[-_]", language.lower())[0]
    code = _CODES.get(code, code)
    try:
        return sacrebleu.BLEU(trg_lang=code)
    except RuntimeError:
        what = f"BLEU of {code} needs a package that is not installed"
        raise ConfigError(what, f"pip install 'sacrebleu[{code}]'") from None


class SentenceScores:
    """Statistics of one system's translations, sentence by sentence.

    Args:
        metric: `bleu` or `chrf`, as sacreBLEU computes them by default for the language.
        translations, references: one of each a sentence.
        weights: of the sentences, not negative; None for equal ones.
        language: of the translations, which the tokenizer of `bleu` depends on.
    """

    def __init__(
        self,
        metric: Metric,
        translations: Sequence[str],
        references: Sequence[str],
        weights: Floats | None = None,
        language: str = "",
    ) -> None:
        self._metric = make_bleu(language) if metric == "bleu" else sacrebleu.CHRF()
        # The statistics have no public name in sacreBLEU; the tests compare the sums with its corpus scores.
        rows = self._metric._extract_corpus_statistics(list(translations), [list(references)])
        self._stats_NK: Floats = np.array(rows, dtype=np.float64).reshape(len(translations), -1)
        self._bleu = metric == "bleu"
        if weights is not None:
            self._stats_NK = self._stats_NK * weights[:, None]

    def __len__(self) -> int:
        return len(self._stats_NK)

    def score(self) -> float:
        """The corpus score, 0 to 100."""
        return self._score(self._stats_NK.sum(axis=0))

    def resampled(self, counts_RN: Floats) -> Floats:
        """Corpus scores of resampled corpora, given how often each holds each sentence."""
        return np.array([self._score(sums) for sums in counts_RN @ self._stats_NK])

    def _score(self, sums_K: Floats) -> float:
        sums = sums_K.tolist()
        if not self._bleu:
            return float(self._metric._compute_f_score(sums))
        orders = self._metric.max_ngram_order
        lengths = [round(_LENGTH_SCALE * length) for length in sums[:2]]
        result = sacrebleu.BLEU.compute_bleu(
            *(sums[2 : 2 + orders], sums[2 + orders :], lengths[0], lengths[1]),
            smooth_method=self._metric.smooth_method,
            smooth_value=self._metric.smooth_value,
        )
        return float(result.score)


def draw(sentences: int, seed: int, resamples: int = RESAMPLES) -> Floats:
    """Return how often each resampled corpus holds each sentence; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(sentences, np.full(sentences, 1 / sentences), size=resamples).astype(np.float64)


def difference(one: SentenceScores, other: SentenceScores, counts_RN: Floats) -> Difference:
    """Compare two systems on the same resampled corpora."""
    deltas = one.resampled(counts_RN) - other.resampled(counts_RN)
    low, high = np.percentile(deltas, [2.5, 97.5])
    return Difference(one.score() - other.score(), float(low), float(high))
