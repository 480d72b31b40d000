# SPDX-License-Identifier: Apache-2.0
"""Time and memory of coding and decoding a drift of 100 M parameters.

    OMP_NUM_THREADS=2 python benchmarks/micro/codec.py
    OMP_NUM_THREADS=2 python benchmarks/micro/codec.py --device cuda   # nearest centroids there: codec_cuda.json

Memory is VmHWM of this process over what it held before the call, in bytes and in the size of the drift, fp32; the
decoded tensors are taken off. Writes codec.json or codec_cuda.json in benchmarks/results.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trustformer.message import Codebook, Group, Layout, TensorSpec
from trustformer.training import TrainConfig, device_of, nearest_on
from trustformer.training.device import describe_device
from trustformer.vq import Nearest, body_size, decode, encode

RESULT = Path(__file__).parents[1] / "results" / "codec.json"
GROUPS = {"embedding": (1, (16384, 1024)), "attention": (24, (1024, 1024)), "feed-forward": (14, (1024, 4096))}
T = TypeVar("T")


def resident(field: str) -> int:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


def watched(work: Callable[[], T]) -> tuple[T, float, float, int]:
    """Result, seconds, processor seconds, and peak bytes over those held before."""
    Path("/proc/self/clear_refs").write_text("5", "ascii")  # VmHWM starts anew
    before, started, used = resident("VmRSS"), time.perf_counter(), time.process_time()
    result = work()
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    return result, seconds, processor, resident("VmHWM") - before


def measure(block: int, clusters: int, repeat: int, nearest: Nearest) -> dict[str, Any]:
    layout = Layout(
        tuple(
            Group(Codebook(block, clusters), tuple(TensorSpec(f"{name} {index}", shape) for index in range(count)))
            for name, (count, shape) in GROUPS.items()
        )
    )
    rng = np.random.default_rng(1)
    drift = {spec.name: rng.standard_normal(spec.shape, np.float32) * np.float32(0.01) for spec in layout.tensors}
    size = 4 * layout.entries
    coding, decoding = [], []
    for seed in range(repeat):
        body, *figures = watched(lambda seed=seed: encode(layout, drift, np.random.default_rng(seed), nearest))
        coding.append(figures)
        result, *figures = watched(lambda body=body: decode(layout, body))
        decoding.append(figures)
        print(f"  {block} x {clusters}: {seed + 1} of {repeat}", flush=True)
    energy = sum(float(np.vdot(values, values)) for values in drift.values())
    lost = sum(float(np.square(drift[name] - values).sum(dtype=np.float64)) for name, values in result.items())
    largest = max(4 * sum(spec.size for spec in group.tensors) for group in layout.groups)
    record: dict[str, Any] = {
        "parameters": layout.entries,
        "block": block,
        "clusters": clusters,
        "body_bytes": body_size(layout),
        "fp32_bytes": size,
        "largest_group_bytes": largest,
        "captured": round(1 - lost / energy, 4),
    }
    for name, figures, held in (("encode", coding, 0), ("decode", decoding, size)):
        extra = max(peak for _, _, peak in figures) - held
        record[name] = {
            "seconds": round(min(seconds for seconds, _, _ in figures), 2),
            "processor_seconds": round(min(processor for _, processor, _ in figures), 2),
            "extra_bytes": extra,
            "extra_to_model": round(extra / size, 2),
            "extra_to_largest_group": round(extra / largest, 2),
        }
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = device_of(TrainConfig(device=options.device))
    nearest = nearest_on(device)
    nearest(np.ones((9, 8), np.float32), np.ones((2, 8), np.float32))  # the device is ready before the clock runs
    record = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"count": os.cpu_count(), "load_before": os.getloadavg()},
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "device": describe_device(device),
        "numpy": np.__version__,
        "codings": [measure(*form, options.repeat, nearest) for form in ((8, 256), (16, 1024))],
    }
    out = options.out or RESULT.with_name("codec.json" if options.device == "cpu" else "codec_cuda.json")
    out.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
