# SPDX-License-Identifier: Apache-2.0
"""The mean of the updates of a cohort, independent of the order in which they arrive.

Entries are summed as 64-bit integers at 2**-28 a step: |entry| <= 32 and at most 2**29 examples in a cohort keep
every sum below 2**62. At most three fp32 model sizes are held: the sum (two) and one decoded update. The trimmed
mean holds every update as it travelled and, group by group, all of them decoded: N times the largest group.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trustformer.errors import MessageError
from trustformer.message import Layout
from trustformer.vq.coding import body_size, decode
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
        max_norm: an update of a larger L2 norm is refused.
    """

    def __init__(self, layout: Layout, max_share: float, max_norm: float = np.inf) -> None:
        self._layout = layout
        self._max_share, self._max_norm = max_share, max_norm
        self._sums = {spec.name: np.zeros(spec.shape, np.int64) for spec in layout.tensors}
        self._counts: list[int] = []
        self._largest: tuple[int, bytes] = (0, b"")

    def add(self, num_examples: int, body: bytes) -> None:
        """Add one update; nothing is added when it is refused.

        Raises:
            MessageError: the body does not decode or is too large, or the cohort's examples would exceed 2**29.
        """
        if sum(self._counts) + num_examples > MAX_COHORT_EXAMPLES:
            raise MessageError("update: the cohort claims more than 2**29 training examples together")
        tensors = decode(self._layout, body)
        _check_norm(tensors, self._max_norm)
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


class TrimmedMean:
    """Mean of every entry over the clients, without the largest and the smallest `trim` of them (Yin et al., 2018).

    All clients count alike, whatever they claim: `num_examples` is not used.

    Args:
        layout: form of the updates' bodies.
        trim: share of the clients cut off at either end, below one half; floor(trim * N) of N.
        max_norm: as for `WeightedMean`.
    """

    def __init__(self, layout: Layout, trim: float, max_norm: float) -> None:
        self._layout, self._trim, self._max_norm = layout, trim, max_norm
        self._bodies: list[bytes] = []

    def add(self, num_examples: int, body: bytes) -> None:
        """Add one update; raises `MessageError` if it does not decode or is too large."""
        _check_norm(decode(self._layout, body), self._max_norm)
        self._bodies.append(body)

    def result(self) -> dict[str, Array]:
        """Return the trimmed mean, float32 tensors by name; needs at least one update."""
        count, at = len(self._bodies), 0
        cut = int(self._trim * count)
        means: dict[str, Array] = {}
        for group in self._layout.groups:
            layout = Layout((group,))
            end = at + body_size(layout)
            decoded = [decode(layout, memoryview(body)[at:end]) for body in self._bodies]
            at = end
            for spec in group.tensors:
                mean = np.empty(spec.size, np.float32)
                for part in _slices(spec.size):
                    values = np.sort([tensors[spec.name].reshape(-1)[part] for tensors in decoded], axis=0)
                    mean[part] = values[cut : count - cut].mean(axis=0, dtype=np.float64)
                means[spec.name] = mean.reshape(spec.shape)
        return means


def _check_norm(tensors: dict[str, Array], limit: float) -> None:
    flats = [values.reshape(-1) for values in tensors.values()]
    squares = sum(float(np.square(flat[part], dtype=np.float64).sum()) for flat in flats for part in _slices(flat.size))
    if squares > limit**2:
        raise MessageError(f"update: its norm is over {limit:g}", "raise enclave.max_norm if that is honest")


def _slices(size: int) -> Iterator[slice]:
    return (slice(at, at + _SLICE) for at in range(0, size, _SLICE))


def _fixed(values: Array) -> npt.NDArray[np.int64]:
    return np.rint(values * np.float64(_STEPS)).astype(np.int64)
