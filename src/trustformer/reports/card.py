# SPDX-License-Identifier: Apache-2.0
"""The model card of an exported model: what it was trained on and how, what it scores, what was protected."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from trustformer.experiment.config import Config
from trustformer.foreign import shown
from trustformer.models.seq2seq import PRESETS
from trustformer.privacy.stated import stated_epsilon, upper
from trustformer.reports.card_words import EXCHANGES, HOW, PIPELINE, PIPELINES, SCORED, TRANSLATE
from trustformer.reports.task_tables import METRICS

BEAMS = 4
"""Beam width of an exported model, and of `trustformer translate` with a model folder."""


def model_card(
    config: Config,
    result: dict[str, Any],
    environment: dict[str, Any],
    client: str | None,
    languages: tuple[str, ...],
    mask: str | None = None,
) -> str:
    """Return the card as Markdown with a YAML header.

    Args:
        config: the run's config.
        result: its `result.json`.
        environment: its `environment.json`.
        client: whose own model this is; None for the one of `model/`.
        languages: of the data, source first, where the config declares them.
        mask: the tokenizer's mask token, if it has one.
    """
    return "\n\n".join(
        (
            _header(config.model.task, languages, _kind(result)) + f"# {_title(result, client)}",
            f"Made by trustformer {environment['packages']['trustformer']}: {HOW[_kind(result)]}.",
            f"## Use\n\n{_use(config.model.task, mask)}",
            f"## Training\n\n{_training(config, result, languages)}",
            f"## Scores\n\n{_scores(config, result, environment, client)}",
            f"## What was protected, and what was not\n\n{_privacy(config, result, client)}\n",
        )
    )


def _use(task: str, mask: str | None) -> str:
    if task == "translation":
        return TRANSLATE
    pipeline, text, _ = PIPELINES[task]
    text = text.replace("{mask}", mask or "<mask>")
    return PIPELINE.format(pipeline=pipeline, text=json.dumps(text, ensure_ascii=False))


def _header(task: str, languages: tuple[str, ...], kind: str) -> str:
    pipeline, _, metrics = PIPELINES.get(task, ("translation", "", ("sacrebleu", "chrf")))
    lines = ["library_name: transformers", f"pipeline_tag: {pipeline}"]
    if languages:
        lines += ["language:", *(f"- {json.dumps(language)}" for language in languages)]  # `no` is false in YAML
    lines += [
        "tags:",
        *(["- federated-learning"] if kind == "federated" else []),
        "- trustformer",
        "metrics:",
        *(f"- {name}" for name in metrics),
    ]
    return "\n".join(("---", *lines, "---", ""))


def _kind(result: dict[str, Any]) -> str:
    return "federated" if result["attestation"] is not None else str(result["method"])


def _whose(result: dict[str, Any], client: str | None) -> str | None:
    """The client whose own model this is; None for a common one, and for one of pooled text."""
    if _kind(result) == "centralized" or (client is None and result["common_digest"] is not None):
        return None
    return client or str(next(iter(result["weights_digest"])))


def _title(result: dict[str, Any], client: str | None) -> str:
    whose, kind = _whose(result, client), _kind(result)
    if whose is None:
        return "Model of pooled text" if kind == "centralized" else "Common model of a federated run"
    return f"Client {whose}'s own model" + (", trained alone" if kind == "local" else " of a federated run")


def _training(config: Config, result: dict[str, Any], languages: tuple[str, ...]) -> str:
    synthetic = " (SYNTHETIC: sentences made by a grammar, not written by people)" if result["synthetic"] else ""
    started = _started(config)
    split = f"{config.clients.split} split" if not config.clients.folders else "each with its own data"
    rows = [
        ("data, as declared", f"{_text(result['data'])}{synthetic}; its licence is not known to the program"),
        *([("languages", _text(" to ".join(languages)))] if languages else []),
        *([("started from", f"{started}; its licence is not known to the program")] if started else []),
        ("clients", f"{result['clients']}, {split}"),
        ("rounds", f"{result['rounds']} of {config.train.local_epochs} local epoch(s)"),
        ("method", " ".join(filter(None, (result["method"], result["variant"])))),
        ("trained parameters", f"{result['parameters']:,}{_adapters(config)}"),
        ("bytes sent by a client a round", _bytes(result, "up")),
        ("bytes sent to a client a round", _bytes(result, "down")),
    ]
    table = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    # Not in the table, where a bar ends a cell, in code too.
    return "\n".join([*table, "", f"Run: `{_run(result)}`"])


def _started(config: Config) -> str | None:
    """The folder's name of the model that the run continued, as text of Markdown; None for a new model."""
    preset = config.model.preset
    if preset in PRESETS:
        return None
    return _text(Path(preset).name or preset)


def _text(foreign: str) -> str:
    """A name that others have given, as text of Markdown."""
    return re.sub(r"[|<>*_`~#&\[\]\\]", lambda mark: f"&#{ord(mark[0])};", shown(foreign, None))


def _run(result: dict[str, Any]) -> str:
    """The signature; of a private run without checksums of its text, with which guesses of a pair could be tried."""
    parts: list[str] = result["signature"].split("|")
    if _promise(result) is not None:
        parts = [part for part in parts if not part.startswith(("data:", "cfg:"))]
    return "|".join(parts)


def _promise(result: dict[str, Any]) -> dict[str, Any] | None:
    """What the run promises; None for nothing, and for clipping without noise."""
    promise: dict[str, Any] | None = result.get("privacy")
    return None if promise is None or promise["epsilon"] is None else promise


def _adapters(config: Config) -> str:
    return f", in adapters of rank {config.model.lora_rank}, merged here" if config.model.lora_rank else ""


def _bytes(result: dict[str, Any], direction: str) -> str:
    factor = result[f"compression_{direction}"]
    if factor is None:
        return "none: nothing was exchanged"
    return f"{result[f'bytes_{direction}_per_client_round']:,.0f}, sealed, as counted ({factor:.1f}x fewer than dense)"


def _scores(config: Config, result: dict[str, Any], environment: dict[str, Any], client: str | None) -> str:
    metrics = result.get("metrics", ["bleu", "chrf", "nll"])
    scores = {metric: _score(result, metric, client) for metric in metrics}
    cells = ["not scored" if value is None else METRICS[metric].show(value) for metric, value in scores.items()]
    lines = [
        f"{result['test_pairs']:,} test pairs; one run, seed {result['seed']}:",
        "",
        f"| {' | '.join(METRICS[metric].name for metric in metrics)} |",
        "|" + len(metrics) * " ---: |",
        f"| {' | '.join(cells)} |",
        "",
        "NLL in nats per target. " + (SCORED.get(config.model.task) or _decoded(config.evaluation.beams)),
        f"Trained and scored on {_hardware(environment)}.",
    ]
    if "sacrebleu_signature" in result:
        lines.append(f"BLEU `{result['sacrebleu_signature']}`, chrF `{result['chrf_signature']}`.")
    return "\n".join(lines)


def _decoded(beams: int) -> str:
    """How the test set was translated, and how the exported model translates where that differs."""
    said = "Translated greedily" if beams == 1 else f"Translated with a beam of {beams}"
    return said + ("." if beams == BEAMS else f"; this folder's generation_config.json has a beam of {BEAMS}.")


def _hardware(environment: dict[str, Any]) -> str:
    device: str = environment.get("device", "cpu")
    return device if device != "cpu" else environment["processor"] or "a processor without a name"


def _score(result: dict[str, Any], key: str, client: str | None) -> float | None:
    """The score of the exported model; None for a client whose own model the run did not score."""
    if client is None and result[f"{key}_common"] is not None:
        return float(result[f"{key}_common"])
    index = 0 if client is None else list(result["weights_digest"]).index(client)
    scored = result[f"{key}_per_client"]
    return float(scored[index]) if index < len(scored) else None


def _privacy(config: Config, result: dict[str, Any], client: str | None) -> str:
    bound = _bound(config, result, client)
    if result["attestation"] is None:
        source = f"the training text of those who held it{_beside(config, ' and from')}"
        text = f"- Nothing was exchanged: the weights come from {source}.\n{bound}"
        if (whose := _whose(result, client)) is None:
            return text
        return f"{text}\n- Handing this folder on discloses of client {whose}'s text, of which the run sent nothing."
    method = result["variant"] or result["method"]
    sent = EXCHANGES.get(method, f"what the method `{method}` makes of the change of the weights")
    lines = [
        f"- Each client sent, sealed to the aggregator: {sent}. No text was sent.",
        "- **The aggregator's attestation was simulated**: one machine played all parties, and no hardware protected "
        "anything in this run."
        if result["attestation"] == "simulated"
        else f"- The aggregator was attested ({result['attestation']}) before anything was sent.",
        bound,
    ]
    if (whose := _whose(result, client)) is not None:
        lines.append(
            f"- This is client {whose}'s own model: it holds what client {whose} never sent. Handing this folder on "
            "discloses more of that client's text than the exchange did."
        )
    return "\n".join(lines)


def _bound(config: Config, result: dict[str, Any], client: str | None) -> str:
    """What bounds the traces that the training text leaves in these weights; only DP-SGD bounds a client's own."""
    promise = _promise(result)
    source = f"the training text{_beside(config, ' and of')}"
    traces = f"These weights can hold traces of {source}, and whoever has this folder can look for them."
    if promise is None:
        return f"- No differential privacy is stated for this run. {traces}"
    if _whose(result, client) is not None and promise["mechanism"] != "records":
        return f"- The run's differential privacy does not cover a client's own model. {traces}"
    worst = max(promise["epsilon"], promise["epsilon_known_cohorts"])  # the seed above tells who took part when
    return (
        f"- Differentially private: epsilon {stated_epsilon(worst)}, delta {upper(promise['delta'])}, for one "
        f"{promise['unit']} (its text, or none in its place); noise multiplier {promise['noise_multiplier']:.10g} at "
        f"norm {promise['clipping_norm']:.10g}, {promise['steps']:,} releases (`privacy.mechanism = "
        f"{promise['mechanism']}`). That is said of the weights{_beside(config, ', not of')}; counts and scores "
        "on this card are exact."
    )


def _beside(config: Config, words: str) -> str:
    return f"{words} the model that the run started from" if _started(config) else ""
