# SPDX-License-Identifier: Apache-2.0
"""The mean of the updates of a cohort, independent of the order in which they arrive.

Entries are summed as 64-bit integers at 2**-28 a step: |entry| <= 32 and at most 2**29 examples in a cohort keep
every sum below 2**62. At most three fp32 model sizes are held: the sum (two) and one decoded update.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trustformer.errors import MessageError
from trustformer.message import Layout
from trustformer.vq.coding import decode
from trustformer.vq.kmeans import Array

_STEPS = 2.0**28
_SLICE = 2**16
"""Entries worked on at a time, so that intermediate results stay small beside a model."""
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
            sums, flat = self._sums[name].reshape(-1), values.reshape(-1)
            for part in _slices(flat.size):
                sums[part] += num_examples * _fixed(flat[part])
        self._counts.append(num_examples)
        if num_examples > self._largest[0]:
            self._largest = (num_examples, body)

    def result(self) -> dict[str, Array]:
        """Return the capped weighted mean, float32 tensors by name; needs at least one update."""
        total = sum(self._counts)
        count, body = self._largest
        capped = len(self._counts) > 1 and count > self._max_share * total
        others = (1 - self._max_share) / (total - count) if capped else 0.0
        dominant = decode(self._layout, body) if capped else {}
        means = {}
        for name, sums in self._sums.items():
            mean, flat = np.empty(sums.shape, np.float32), sums.reshape(-1)
            for part in _slices(flat.size):
                if capped:
                    own = _fixed(dominant[name].reshape(-1)[part])
                    exact = ((flat[part] - count * own) * others + own * self._max_share) / _STEPS
                else:
                    exact = flat[part] / (total * _STEPS)
                mean.reshape(-1)[part] = exact
            means[name] = mean
        return means


def _slices(size: int) -> Iterator[slice]:
    return (slice(at, at + _SLICE) for at in range(0, size, _SLICE))


def _fixed(values: Array) -> npt.NDArray[np.int64]:
    return np.rint(values * np.float64(_STEPS)).astype(np.int64)
