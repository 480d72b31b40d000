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

SHAPE = (128, 512)


def captured(seed: int, block: int, clusters: int, matrices: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    specs = tuple(TensorSpec(f"matrix {index}", SHAPE) for index in range(matrices))
    layout = Layout((Group(Codebook(block, clusters), specs),))
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
    parser.add_argument("--block", type=int, default=8)
    parser.add_argument("--clusters", type=int, default=256)
    parser.add_argument("--matrices", type=int, default=14, help="of 128 x 512, in one group (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/capture.json"))
    options = parser.parse_args()
    record = {
        "block": options.block,
        "clusters": options.clusters,
        "matrices": options.matrices,
        "shape": SHAPE,
        "numpy": np.__version__,
        "runs": [captured(seed, options.block, options.clusters, options.matrices) for seed in options.seeds],
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record, indent=2))
