# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/privacy-baselines.md from the recorded runs.

python benchmarks/dp_table.py
"""

import json
import math
import os
import statistics
from pathlib import Path

from trustformer.reports.summary import summarise
from trustformer.reports.tables import note, title, visible

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "privacy-baselines.md"
LEFT_OUT = ("G BLEU", "without embeddings", "chrF")


def table(folder: Path) -> str:
    """One row a method and epsilon; the smallest epsilon first, without noise last."""
    results = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*/result.json"))]
    results.sort(key=lambda result: (math.inf if result["epsilon"] is None else result["epsilon"], result["method"]))
    rows = summarise(results)
    heads, lines = visible(rows, LEFT_OUT)
    at = heads.index("NLL") + 1
    common = [[result["nll_common"] for result in row.results] for row in rows]
    heads = (*heads[:at], "NLL of G", "seeds", *heads[at:])
    lines = [
        (*line[:at], spread(values), str(len(values)), *line[at:]) for line, values in zip(lines, common, strict=True)
    ]
    text = [f"{title(results)}.", ""]
    text += [f"| {' | '.join(heads)} |", "|" + "|".join([" --- "] + [" ---: "] * (len(heads) - 1)) + "|"]
    text += [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([*text, "", note(rows), ""])


def spread(values: list[float]) -> str:
    """Mean and, of several, sample standard deviation."""
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def replaced(page: str, name: str, text: str) -> str:
    """Put text between the two marks of a name."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    assert after, f"the page has no marks of {name}"
    return before + start + text + end + after


def main() -> None:
    """Replace the tables; the page is written as a whole."""
    page = PAGE.read_text("utf-8")
    for name in ("dp", "dp_bytes", "dp_records"):
        page = replaced(page, name, table(ROOT / "benchmarks" / "results" / name))
    temporary = PAGE.with_suffix(".new")
    temporary.write_text(page, "utf-8")
    os.replace(temporary, PAGE)


if __name__ == "__main__":
    main()
