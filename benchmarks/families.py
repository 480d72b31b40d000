"""Runs every config of configs/families by every method, keeps the records, and writes docs/families.md.

python benchmarks/families.py run [--seeds 1 2 3] [--only NAME ...]   # what is finished is not run again
python benchmarks/families.py page                                     # from the committed records alone
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from keep import keep

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "families"
RUNS = ROOT / "runs" / "families"
RESULTS = ROOT / "benchmarks" / "results" / "families"
METHODS = ("local", "fedavg", "centroid")


def run(names: list[str], seeds: list[int]) -> None:
    """Run what is missing, one at a time, and keep each record as it is finished."""
    environment = os.environ | {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    for seed in seeds:
        for path in sorted(CONFIGS.glob("*.toml")):
            for method in METHODS:
                out = RUNS / f"{path.stem}-{method}-seed{seed}"
                if (names and path.stem not in names) or (RESULTS / out.name / "result.json").is_file():
                    continue
                values = (f"method.name={method}", f"seed={seed}")
                settings = [part for value in values for part in ("--set", value)]
                command = ["run", str(path), *settings, "--out", str(out), "--resume"]
                subprocess.run([sys.executable, "-m", "trustformer", *command], check=True, env=environment)
                keep(RUNS, RESULTS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="configs by name")
    options = parser.parse_args()
    run(options.only, options.seeds)
