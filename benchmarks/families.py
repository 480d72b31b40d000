"""Runs every config of configs/families, keeps the records, and writes docs/families.md.

python benchmarks/families.py run [--seeds 1 2 3] [--only NAME ...]   # what is recorded is not run again
python benchmarks/families.py page                                     # from the committed records alone

The configs of configs/families/lora name their method and start from the model of their base.toml; the others are run
by each of METHODS. Adapters are run with the first seed alone.
"""

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keep import is_recorded, keep

from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run as federate
from trustformer.reports.task_tables import columns, note, rows

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "families"
RUNS = ROOT / "runs" / "families"
RESULTS = ROOT / "benchmarks" / "results" / "families"
PAGE = ROOT / "docs" / "families.md"
METHODS = {"local": (), "fedavg": (), "centroid": ("method.carry=1",)}
"""With what each was recorded."""
NAMES = {"marian": "Marian", "t5": "T5", "mbart": "mBART", "gpt2": "GPT-2", "llama": "Llama-style"}
NAMES |= {"bert": "BERT", "distilbert": "DistilBERT"}
TASKS = {
    "translation": ("Translation", ("marian", "t5", "mbart")),
    "causal-lm": ("Next token", ("gpt2", "llama")),
    "masked-lm": ("Hidden tokens", ("bert", "distilbert")),
    "classification": ("Nine domain labels", ("bert-labels", "distilbert-labels")),
}
ALIKE = ROOT / "benchmarks" / "results" / "screening" / "families-iid"
"""Runs of an earlier recipe, in which clients have alike text and train for a few steps."""
ALIKE_RUNS = {
    "local": "local",
    "fedavg": "fedavg",
    "centroid-k64-before": "64 centroids, earlier coding",
    "centroid-k256": "256 centroids",
    "centroid-k256-closing6": "256, six closing exchanges",
}
ADAPTERS = ("local_lora", "fedavg", "centroid", "lora_fedavg", "ffa_lora", "lora_centroid")

Result = dict[str, Any]


def jobs(names: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[Path, str, list[str]]]:
    """Config, name and settings of each run, a start before what starts from it."""
    for seed in seeds:
        for path in sorted(CONFIGS.glob("*.toml")):
            if not names or path.stem in names:
                for method, settings in METHODS.items():
                    values = [f"method.name={method}", f"seed={seed}", *settings]
                    yield path, f"{path.stem}-{method}-seed{seed}", values
    if not names or "lora" in names:
        yield CONFIGS / "lora" / "base.toml", "base-seed1", []
        for name in ADAPTERS:
            yield CONFIGS / "lora" / f"{name}.toml", f"lora-{name}-seed{seeds[0]}", [f"seed={seeds[0]}"]


def run(names: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what is missing, one at a time, and keep each record as it is finished."""
    os.chdir(ROOT)  # the configs name the model of base.toml by a relative path
    for path, name, values in jobs(names, seeds):
        config = load_config(path, values)
        if is_recorded(RESULTS / name, config) and name != "base-seed1":  # its model is needed, not the record
            continue
        print(name, flush=True)
        federate(config, RUNS / name, PlainReporter(), resume=True)
        keep(RUNS, RESULTS)


def recorded(pattern: str) -> list[Result]:
    """Results of the recorded runs whose names match, by name; empty while there are none."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob(f"{pattern}/result.json"))]


def family_table(names: Sequence[str]) -> str:
    """One row a model and method: mean over seeds, with the standard deviation of several."""
    lines: list[tuple[str, ...]] = []
    for name in names:
        results = [result for method in METHODS for result in recorded(f"{name}-{method}-seed*")]
        if not results:
            continue
        shown = NAMES[name.removesuffix("-labels")]
        lines = lines or [("model", *columns(results), "parameters")]
        lines += [(shown, *row, f"{results[0]['parameters']:,}") for row in rows(results)]
    return markdown(lines)


def gains() -> dict[str, list[tuple[float, float]]]:
    """By model and task what FedAvg and centroids gain over training alone: nats, of each seed with all three runs."""
    found: dict[str, list[tuple[float, float]]] = {}
    for title, names in TASKS.values():
        for name in names:
            by = {method: {run["seed"]: run["nll"] for run in recorded(f"{name}-{method}-seed*")} for method in METHODS}
            alone, dense, coded = (by[method] for method in METHODS)
            pairs = [
                (alone[seed] - dense[seed], alone[seed] - coded[seed])
                for seed in sorted(alone.keys() & dense.keys() & coded.keys())
            ]
            if pairs:
                found[f"{NAMES[name.removesuffix('-labels')]}, {title.lower()}"] = pairs
    return found


def kept_table() -> str:
    """What centroids keep of FedAvg's gain: of the mean gain, and of each seed's."""
    lines = [("model", "seeds", "FedAvg gains", "centroids gain", "kept", "kept, by seed")]
    for model, pairs in gains().items():
        dense, coded = (statistics.mean(column) for column in zip(*pairs, strict=True))
        each = ", ".join(f"{own / full:.0%}" for full, own in pairs)
        lines.append((model, str(len(pairs)), f"{dense:.3f}", f"{coded:.3f}", f"{coded / dense:.0%}", each))
    return markdown(lines)


def losing() -> str:
    """Models whose clients end at a higher NLL with centroids than with FedAvg, and than alone."""
    means = {
        model: [statistics.mean(column) for column in zip(*pairs, strict=True)] for model, pairs in gains().items()
    }
    behind = [model for model, (dense, coded) in means.items() if 0 <= coded < dense]
    below = [model for model, (_, coded) in means.items() if coded < 0]
    return f"to FedAvg: {'; '.join(behind) or 'nowhere'}. To training alone: {'; '.join(below) or 'nowhere'}"


def alike_table() -> str:
    """NLL of the runs with alike clients."""
    lines = [("model", "rounds", *ALIKE_RUNS.values())]
    for name in ("gpt2", "llama"):
        paths = [ALIKE / f"{name}-{run}" / "result.json" for run in ALIKE_RUNS]
        found = [json.loads(path.read_text("utf-8")) if path.is_file() else None for path in paths]
        cells = [f"{result['nll']:.3f}" if result else "-" for result in found]
        lines.append((NAMES[name], str(json.loads(paths[0].read_text("utf-8"))["rounds"]), *cells))
    return markdown(lines)


def adapter_table() -> str:
    """One row a config of the adapters."""
    lines: list[tuple[str, ...]] = []
    for name in ADAPTERS:
        results = recorded(f"lora-{name}-seed*")
        if results:
            lines = lines or [("config", *columns(results)[:-1], "trained parameters")]
            cells = rows(results)[0][:-1]
            lines.append((f"`{name}`", *cells, f"{results[0]['parameters']:,}"))
    return markdown(lines)


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """A table whose first row is the heading."""
    if not lines:
        return "No run is recorded yet."
    rule = "|" + " --- |" * 2 + " ---: |" * (len(lines[0]) - 2)
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, rule, *body])


def hardware() -> str:
    """Processor and device of the recorded runs, once each."""
    seen = [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*/environment.json"))]
    return "; ".join(sorted({f"{one['processor'] or 'unnamed processor'}, {one['cores']} cores" for one in seen}))


def page() -> str:
    """The page from template and records."""
    values = {f"table:{task}": f"### {title}\n\n{family_table(names)}" for task, (title, names) in TASKS.items()}
    base = recorded("base-seed1")
    values |= {"table:adapters": adapter_table(), "note": note([]), "hardware": hardware()}
    values |= {"kept": kept_table(), "losing": losing(), "alike": alike_table()}
    values["base"] = f"{base[0]['perplexity']:.0f}" if base else "not recorded"
    text = (ROOT / "benchmarks" / "families_page.md").read_text("utf-8")
    for key, value in values.items():
        assert f"{{{key}}}" in text, key
        text = text.replace(f"{{{key}}}", value)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="configs by name; `lora` for the adapters"
    )
    options = parser.parse_args()
    if options.what == "run":
        run(options.only, options.seeds)
    PAGE.write_text(page(), "utf-8")
