# SPDX-License-Identifier: Apache-2.0
"""The mean of the updates of a cohort, independent of the order in which they arrive.

Entries are summed as 64-bit integers at 2**-28 a step: |entry| <= 32 and at most 2**29 examples in a cohort keep
every sum below 2**62. At most three fp32 model sizes are held: the sum (two) and one decoded update.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trustformer.errors import MessageError
from trustformer.message import Layout
from trustformer.vq.coding import decode
from trustformer.vq.kmeans import Array

_STEPS = 2.0**28
MAX_COHORT_EXAMPLES = 2**29


class WeightedMean:
    """Accumulates Σ n_i decode(e_i) and gives Σ p_i decode(e_i) with p_i = n_i / Σ n_i capped.

    Args:
        layout: form of the updates' bodies.
        max_share: no client's p_i exceeds this where the cohort has two clients or more. At least one half,
            so that one client at most is capped. A client with nearly all examples would otherwise read the
            mean as its own update, and have its own read by the others.
    """

    def __init__(self, layout: Layout, max_share: float) -> None:
        self._layout = layout
        self._max_share = max_share
        self._sums = {spec.name: np.zeros(spec.shape, np.int64) for spec in layout.tensors}
        self._counts: list[int] = []
        self._largest: tuple[int, bytes] = (0, b"")

    def add(self, num_examples: int, body: bytes) -> None:
        """Add one update; nothing is added when it is refused.

        Raises:
            MessageError: the body does not decode, or the cohort's examples would exceed 2**29.
        """
        if sum(self._counts) + num_examples > MAX_COHORT_EXAMPLES:
            raise MessageError("update: the cohort claims more than 2**29 training examples together")
        tensors = decode(self._layout, body)
        for name, values in tensors.items():
            self._sums[name] += num_examples * _fixed(values)
        self._counts.append(num_examples)
        if num_examples > self._largest[0]:
            self._largest = (num_examples, body)

    def result(self) -> dict[str, Array]:
        """Return the capped weighted mean, float32 tensors by name; needs at least one update."""
        total = sum(self._counts)
        count, body = self._largest
        if len(self._counts) < 2 or count <= self._max_share * total:
            return {name: (sums / (total * _STEPS)).astype(np.float32) for name, sums in self._sums.items()}
        others = (1 - self._max_share) / (total - count)
        dominant = decode(self._layout, body)
        means = {}
        for name, sums in self._sums.items():
            own = _fixed(dominant[name])
            mean = (sums - count * own) * others + own * self._max_share
            means[name] = (mean / _STEPS).astype(np.float32)
        return means


def _fixed(values: Array) -> npt.NDArray[np.int64]:
    return np.rint(values * np.float64(_STEPS)).astype(np.int64)
