# SPDX-License-Identifier: Apache-2.0
"""What a codebook message expresses of Gaussian matrices, beside the bound for a Gaussian source.

Writes, for each seed, the share of energy captured (1 - |x - decode(x)|² / |x|²) and the bits an entry.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from trustformer.message import Codebook, Group, Layout, TensorSpec
from trustformer.vq import body_size, decode, encode

BLOCK, CLUSTERS, SHAPE, MATRICES = 8, 256, (128, 512), 14


def captured(seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    specs = tuple(TensorSpec(f"matrix {index}", SHAPE) for index in range(MATRICES))
    layout = Layout((Group(Codebook(BLOCK, CLUSTERS), specs),))
    tensors = {spec.name: rng.standard_normal(spec.shape).astype(np.float32) for spec in specs}
    result = decode(layout, encode(layout, tensors, np.random.default_rng([seed, 1])))
    energy = sum(float((values**2).sum()) for values in tensors.values())
    sent = sum(float((values**2).sum()) for values in result.values())
    along = sum(float((tensors[name] * values).sum()) for name, values in result.items())
    bits = 8 * body_size(layout) / layout.entries
    return {
        "seed": seed,
        "bits_per_entry": round(bits, 4),
        "captured": round(along**2 / (energy * sent), 4),  # of what is in the message's direction, whatever its gain
        "bound": round(1 - 4.0**-bits, 4),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/capture.json"))
    options = parser.parse_args()
    record = {
        "block": BLOCK,
        "clusters": CLUSTERS,
        "matrices": MATRICES,
        "shape": SHAPE,
        "numpy": np.__version__,
        "runs": [captured(seed) for seed in options.seeds],
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))
