# SPDX-License-Identifier: Apache-2.0
"""What runs were made from: those that are compared must have had the same data, vocabulary and first model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from trustformer.codec.weights import weights_digest
from trustformer.errors import ConfigError
from trustformer.models.seq2seq import frozen_weights

if TYPE_CHECKING:
    from trustformer.experiment.prepare import Prepared

_WORDS = {
    "data": "were run on different data",
    "tokenizer": "were run on different vocabularies",
    "start": "were run on different first models",
    "scorer": "were scored differently",
}


def inputs_of(prepared: Prepared) -> dict[str, str]:
    """Digests of vocabulary and first model, what is frozen included; that of the data is in the signature."""
    start = prepared.start | frozen_weights(prepared.model)
    return {"tokenizer": prepared.tokenizer.digest.hex(), "start": weights_digest(start).hex()}


def check_inputs(runs: Iterable[tuple[object, dict[str, Any]]]) -> None:
    """Raise `ConfigError` where results, each with its folder, come from different inputs.

    First models may differ between seeds, and so may all of a corpus that is made from the seed. Records of before
    2026-11-27 say what data they read and no more.
    """
    seen: dict[tuple[str, int | None], tuple[object, str]] = {}
    for folder, result in runs:
        for what, value in _stated(result):
            seed = result["seed"] if what == "start" or result["synthetic"] else None
            other, before = seen.setdefault((what, seed), (folder, value))
            if value != before:
                raise ConfigError(
                    f"{other} and {folder} {_WORDS[what]}: {before} and {value}",
                    "a file or the program has changed since: remove the older folder, or choose another --out",
                )


def data_of(result: dict[str, Any]) -> str:
    """The first digits of the digest of the data that a run has read, as its signature has them."""
    return next((part[5:] for part in result["signature"].split("|") if part.startswith("data:")), "")


def _stated(result: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "data", data_of(result)
    for what, value in result.get("inputs", {}).items():
        yield what, value[:8]
    if "sacrebleu_signature" in result:  # its tokenizer depends on the language since 2026-11-27
        yield "scorer", result["sacrebleu_signature"].partition("|version:")[0]
