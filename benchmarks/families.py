"""Runs every config of configs/families, keeps the records, and writes docs/families.md.

python benchmarks/families.py run [--seeds 1 2 3] [--only NAME ...]   # what is recorded is not run again
python benchmarks/families.py page                                     # from the committed records alone

The configs of configs/families/lora name their method and start from the model of their base.toml; the others are run
by each of METHODS.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from keep import keep
from trustformer.experiment.config import load_config
from trustformer.reports.task_tables import columns, rows

ROOT = Path(__file__).parents[1]
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
ADAPTERS = ("local_lora", "fedavg", "centroid", "lora_fedavg", "ffa_lora", "lora_centroid", "lora_centroid_small")

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
    environment = os.environ | {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    for path, name, values in jobs(names, seeds):
        if (RESULTS / name / "result.json").is_file() and name != "base-seed1":  # its model is needed, not the record
            continue
        settings = [part for value in values for part in ("--set", value)]
        command = ["run", str(path), *settings, "--out", str(RUNS / name), "--resume"]
        subprocess.run([sys.executable, "-m", "trustformer", *command], check=True, env=environment, cwd=ROOT)
        keep(RUNS, RESULTS)
