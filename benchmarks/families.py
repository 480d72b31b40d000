"""Runs every config of configs/families, keeps the records, and writes docs/families.md.

python benchmarks/families.py run [--seeds 1 2 3] [--only NAME ...]   # what is recorded is not run again
python benchmarks/families.py page                                     # from the committed records alone

The configs of configs/families/lora name their method and start from the model of their base.toml; the others are run
by each of METHODS.
"""

import argparse
import json
import os
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keep import keep

from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run as federate
from trustformer.reports.task_tables import NOTE, columns, rows

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "families"
RUNS = ROOT / "runs" / "families"
RESULTS = ROOT / "benchmarks" / "results" / "families"
PAGE = ROOT / "docs" / "families.md"
METHODS = ("local", "fedavg", "centroid")
NAMES = {"marian": "Marian", "t5": "T5", "mbart": "mBART", "gpt2": "GPT-2", "llama": "Llama-style"}
NAMES |= {"bert": "BERT", "distilbert": "DistilBERT"}
TASKS = {
    "translation": ("Translation", ("marian", "t5", "mbart")),
    "causal-lm": ("Next token", ("gpt2", "llama")),
    "masked-lm": ("Hidden tokens", ("bert", "distilbert")),
    "classification": ("Nine domain labels", ("bert-labels", "distilbert-labels")),
}
ADAPTERS = ("local_lora", "fedavg", "centroid", "lora_fedavg", "ffa_lora", "lora_centroid")

Result = dict[str, Any]


def jobs(names: Sequence[str], seeds: Sequence[int]) -> Iterator[tuple[Path, str, list[str]]]:
    """Config, name and settings of each run, a start before what starts from it."""
    for seed in seeds:
        for path in sorted(CONFIGS.glob("*.toml")):
            if not names or path.stem in names:
                for method in METHODS:
                    yield path, f"{path.stem}-{method}-seed{seed}", [f"method.name={method}", f"seed={seed}"]
    if not names or "lora" in names:
        yield CONFIGS / "lora" / "base.toml", "base-seed1", []
        for name in ADAPTERS:
            for seed in seeds:
                yield CONFIGS / "lora" / f"{name}.toml", f"lora-{name}-seed{seed}", [f"seed={seed}"]


def run(names: Sequence[str], seeds: Sequence[int]) -> None:
    """Run what is missing, one at a time, and keep each record as it is finished."""
    os.chdir(ROOT)  # the configs name the model of base.toml by a relative path
    for path, name, values in jobs(names, seeds):
        if (RESULTS / name / "result.json").is_file() and name != "base-seed1":  # its model is needed, not the record
            continue
        print(name, flush=True)
        federate(load_config(path, values), RUNS / name, PlainReporter(), resume=True)
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


def worse_than_local() -> str:
    """Models whose clients end at a higher NLL with centroids than alone, and the gap that FedAvg closes there."""
    found = []
    for _, names in TASKS.values():
        for name in names:
            by = {method: recorded(f"{name}-{method}-seed*") for method in METHODS}
            if not all(by.values()):
                continue
            alone, dense, coded = (statistics.mean(result["nll"] for result in by[method]) for method in METHODS)
            if coded > alone:
                model = NAMES[name.removesuffix("-labels")]
                found.append(f"{model} ({coded - alone:.3f} worse, where FedAvg is {alone - dense:.3f} better)")
    return ", ".join(found) or "none"


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
    values |= {"table:adapters": adapter_table(), "note": NOTE, "hardware": hardware()}
    values["worse"] = worse_than_local()
    values["base"] = f"{base[0]['perplexity']:.0f}" if base else "not recorded"
    text = (ROOT / "benchmarks" / "families_page.md").read_text("utf-8")
    for key, value in values.items():
        assert f"{{{key}}}" in text, key
        text = text.replace(f"{{{key}}}", value)
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "page"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="configs by name; `lora` for the adapters"
    )
    options = parser.parse_args()
    if options.what == "run":
        run(options.only, options.seeds)
    PAGE.write_text(page(), "utf-8")
