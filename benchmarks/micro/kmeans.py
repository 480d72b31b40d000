# SPDX-License-Identifier: Apache-2.0
"""k-means against FAISS, scikit-learn and the published per-cluster loop: same points, K, steps and number of tries.

    pip install -e '.[bench]' && OMP_NUM_THREADS=2 python benchmarks/micro/kmeans.py

Contenders take turns in one process and each keeps its best of several tries, since machines are busy. `growing` is
what the project runs, `plain` the same code with every step on all points, as the others do it. FAISS and
scikit-learn start from random points, their cheapest start; no contender stops before 20 steps unless it converged.
The floor is the matrix products of 20 steps on all points at the speed measured for two square matrices.
Writes benchmarks/results/kmeans.json.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "2"))

import faiss  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402

from trustformer.training.device import share  # noqa: E402
from trustformer.vq.kmeans import Array, assign, kmeans  # noqa: E402

RESULT = Path(__file__).parents[1] / "results" / "kmeans.json"
STEPS = 20
SAMPLE = 256
"""Points a cluster: FAISS's default, and the largest sample of ours."""
CASES = [(4_000, 128, 400), (65_536, 8, 256), (4_096, 16, 1024), (1_000_000, 8, 256)]
module = import_module("trustformer.vq.kmeans")
module._STEPS = STEPS


def growing(X_ND: Array, k: int, seed: int) -> Array:
    return kmeans(X_ND, k, np.random.default_rng(seed), partial(share, THREADS))


def plain(X_ND: Array, k: int, seed: int) -> Array:
    stages, module._STAGES = module._STAGES, (SAMPLE, SAMPLE)
    try:
        return growing(X_ND, k, seed)
    finally:
        module._STAGES = stages


def with_faiss(X_ND: Array, k: int, seed: int) -> Array:
    model = faiss.Kmeans(X_ND.shape[1], k, niter=STEPS, nredo=1, seed=seed, min_points_per_centroid=1)
    model.train(X_ND)
    return model.centroids


def with_sklearn(X_ND: Array, k: int, seed: int) -> Array:
    if len(X_ND) > SAMPLE * k:
        X_ND = X_ND[np.random.default_rng(seed).choice(len(X_ND), SAMPLE * k, replace=False)]
    model = KMeans(k, init="random", n_init=1, max_iter=STEPS, tol=0, random_state=seed)
    return model.fit(X_ND).cluster_centers_


def published(X_ND: Array, k: int, seed: int) -> Array:
    """A loop over clusters in each step, in PyTorch, on points drawn as the others draw them."""
    points = torch.from_numpy(X_ND)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    points = points[order[: SAMPLE * k]]
    centroids = points[:k].clone()
    for _ in range(STEPS):
        labels = torch.cdist(points, centroids).argmin(1)
        for j in range(k):
            mine = points[labels == j]
            if len(mine):
                centroids[j] = mine.mean(0)
    return centroids.numpy()


CONTENDERS: list[Callable[[Array, int, int], Array]] = [growing, plain, with_faiss, with_sklearn, published]


def inertia(X_ND: Array, C_KD: Array) -> float:
    residual_ND = X_ND - C_KD[assign(X_ND, C_KD)]
    return float(np.einsum("nd,nd->", residual_ND, residual_ND, dtype=np.float64))


def gigaflops() -> float:
    """Of one product of two square float32 matrices, best of several."""
    left = np.random.default_rng(0).standard_normal((1536, 1536)).astype(np.float32)
    best = np.inf
    for _ in range(12):
        started = time.perf_counter()
        left @ left
        best = min(best, time.perf_counter() - started)
    return 2 * 1536**3 / best / 1e9


def measure(points: int, width: int, k: int, repeat: int) -> dict[str, Any]:
    X_ND = np.random.default_rng(1).standard_normal((points, width)).astype(np.float32)
    seconds: dict[str, list[float]] = {work.__name__: [] for work in CONTENDERS}
    processor: dict[str, list[float]] = {work.__name__: [] for work in CONTENDERS}
    lost: dict[str, list[float]] = {work.__name__: [] for work in CONTENDERS}
    for seed in range(repeat):
        for work in CONTENDERS:
            if work is published and (seed > 0 or points > 10**5):  # far too slow to be the best
                continue
            time.sleep(0.05)  # threads of the contender before go to sleep
            started, used = time.perf_counter(), time.process_time()
            C_KD = work(X_ND, k, seed)
            seconds[work.__name__].append(time.perf_counter() - started)
            processor[work.__name__].append(time.process_time() - used)
            lost[work.__name__].append(inertia(X_ND, C_KD))
    speed = gigaflops()
    best = {name: min(values) for name, values in seconds.items() if values}
    faster = min(best["with_faiss"], best["with_sklearn"])
    least = min(np.mean(lost["with_faiss"]), np.mean(lost["with_sklearn"]))
    floor = STEPS * 2 * min(points, SAMPLE * k) * width * k / speed / 1e9
    return {
        "points": points,
        "width": width,
        "clusters": k,
        "seconds": {name: round(value, 4) for name, value in best.items()},
        "processor_seconds": {name: round(min(values), 4) for name, values in processor.items() if values},
        "inertia_to_least_of_faiss_and_sklearn": {
            name: round(float(np.mean(values) / least), 4) for name, values in lost.items() if values
        },
        "times_as_fast_as_faster_of_faiss_and_sklearn": {
            name: round(faster / best[name], 2) for name in ("growing", "plain", "published") if name in best
        },
        "floor": {
            "gigaflops": round(speed, 1),
            "seconds": round(floor, 4),
            "growing_to_floor": round(best["growing"] / floor, 1),
            "plain_to_floor": round(best["plain"] / floor, 1),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    packages = ("numpy", "faiss-cpu", "scikit-learn", "torch")
    record: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu(), "count": os.cpu_count(), "load_before": os.getloadavg()},
        "threads": THREADS,
        "steps": STEPS,
        "repeat": options.repeat,
        "versions": {name: version(name) for name in packages},
        "cases": [],
    }
    for case in CASES:
        record["cases"].append(measure(*case, options.repeat))
        print(json.dumps(record["cases"][-1], indent=2), flush=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def cpu() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else "unknown"


if __name__ == "__main__":
    main()
