# SPDX-License-Identifier: Apache-2.0
"""Lengths and n-gram precisions behind BLEU: are translations worse, or only too short?

    python benchmarks/screening/brevity.py runs/multi30k-12/* runs/greedy/*

Takes finished runs whose translations are all there; means over the clients' own models, or the common one where the
method has none of their own. Writes benchmarks/results/screening/brevity.json.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from statistics import mean
from typing import Any

import sacrebleu

RESULT = Path(__file__).parents[1] / "results" / "screening" / "brevity.json"


def measure(run: Path) -> dict[str, Any]:
    """BLEU, its brevity penalty, words against the reference's, and the four precisions of one run."""
    sides = (run / "translations" / "source.tsv").read_text("utf-8").split("\n")[:-1]
    references = [line.split("\t")[1] for line in sides]
    files = sorted((run / "translations").glob("[0-9]*.txt")) or [run / "translations" / "common.txt"]
    found = [sacrebleu.corpus_bleu(file.read_text("utf-8").split("\n")[:-1], [references]) for file in files]
    config = tomllib.loads((run / "config.toml").read_text("utf-8"))
    return {
        "beams": config["evaluation"]["beams"],
        "bleu": round(mean(each.score for each in found), 2),
        "brevity_penalty": round(mean(each.bp for each in found), 4),
        "words": round(mean(each.sys_len / each.ref_len for each in found), 4),
        "precisions": [round(mean(each.precisions[n] for each in found), 2) for n in range(4)],
    }


if __name__ == "__main__":
    finished = [Path(name) for name in sys.argv[1:] if (Path(name) / "result.json").is_file()]
    table = {json.loads((run / "result.json").read_text("utf-8"))["signature"]: measure(run) for run in finished}
    RESULT.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
    for name, row in table.items():
        print(name.split("|data")[0], row)
