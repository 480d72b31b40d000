# SPDX-License-Identifier: Apache-2.0
"""The mean of the updates of a cohort, independent of the order in which they arrive.

Entries are summed as 64-bit integers at 2**-28 a step: |entry| <= 32 and at most 2**29 examples in a cohort keep
every sum below 2**62. Held are the sum (two fp32 model sizes) and one decoded group of one update. The trimmed
mean holds every update as it travelled and, group by group, all of them decoded: N times the largest group.
Noise is added here and nowhere else in the enclave.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from trustformer.errors import MessageError
from trustformer.message import Layout
from trustformer.vq.coding import body_size, decode
from trustformer.vq.kmeans import Array

STEPS = 2.0**28
"""In one, of the sums: an entry is rounded by half a step at most."""
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
        clients: on the roster. One counts for 2**29 / clients examples at most, however many it has.
    """

    def __init__(self, layout: Layout, max_share: float, max_norm: float = np.inf, *, clients: int) -> None:
        self._layout, self._most = layout, MAX_COHORT_EXAMPLES // clients
        self._max_share, self._max_norm = max_share, max_norm
        self._sums = {spec.name: np.zeros(spec.shape, np.int64) for spec in layout.tensors}
        self._counts: list[int] = []
        self._largest: tuple[int, bytes] = (0, b"")

    def add(self, num_examples: int, body: bytes) -> None:
        """Add one update; nothing is added when it is refused.

        Raises:
            MessageError: the body does not decode or is too large.
        """
        num_examples = min(num_examples, self._most)
        _check(self._layout, body, self._max_norm)
        for tensors in _groups(self._layout, body):
            while tensors:
                name, values = tensors.popitem()
                sums, flat = self._sums[name].reshape(-1), values.reshape(-1)
                for part in _slices(flat.size):
                    sums[part] += num_examples * _fixed(flat[part])
            del values, flat
        self._counts.append(num_examples)
        if num_examples > self._largest[0]:
            self._largest = (num_examples, body)

    def result(self) -> dict[str, Array]:
        """Return the capped weighted mean, float32 tensors by name; needs at least one update.

        To be called once: each sum is given up as soon as its mean is there.
        """
        total = sum(self._counts)
        count, body = self._largest
        capped = len(self._counts) > 1 and count > self._max_share * total
        others = (1 - self._max_share) / (total - count) if capped else 0.0
        dominant = decode(self._layout, body) if capped else {}
        means = {}
        for name in list(self._sums):
            sums = self._sums.pop(name)
            mean, flat = np.empty(sums.shape, np.float32), sums.reshape(-1)
            for part in _slices(flat.size):
                if capped:
                    own = _fixed(dominant[name].reshape(-1)[part])
                    exact = ((flat[part] - count * own) * others + own * self._max_share) / STEPS
                else:
                    exact = flat[part] / (total * STEPS)
                mean.reshape(-1)[part] = exact
            means[name] = mean
        return means


class TrimmedMean:
    """Mean of every entry over the clients, without a share of the largest and the smallest (Yin et al., 2018).

    All clients count alike, whatever they claim: `num_examples` is not used.

    Args:
        layout: form of the updates' bodies.
        trim_ppm: share of the clients cut off at either end, in millionths, below one half; rounded down to clients.
        max_norm: as for `WeightedMean`.
    """

    def __init__(self, layout: Layout, trim_ppm: int, max_norm: float) -> None:
        self._layout, self._trim_ppm, self._max_norm = layout, trim_ppm, max_norm
        self._bodies: list[bytes] = []

    def add(self, num_examples: int, body: bytes) -> None:
        """Add one update; raises `MessageError` if it does not decode or is too large."""
        _check(self._layout, body, self._max_norm)
        self._bodies.append(body)

    def result(self) -> dict[str, Array]:
        """Return the trimmed mean, float32 tensors by name; needs at least one update."""
        count, cut = len(self._bodies), self._trim_ppm * len(self._bodies) // 10**6
        means: dict[str, Array] = {}
        for decoded in zip(*(_groups(self._layout, body) for body in self._bodies), strict=True):
            for name, first in decoded[0].items():
                mean = np.empty(first.size, np.float32)
                for part in _slices(first.size):
                    values = np.sort([tensors[name].reshape(-1)[part] for tensors in decoded], axis=0)
                    mean[part] = values[cut : count - cut].mean(axis=0, dtype=np.float64)
                means[name] = mean.reshape(first.shape)
        return means


class PrivateMean(WeightedMean):
    """Σ decode(e_i) plus Gaussian noise, once, over a denominator fixed before the run: client-level privacy.

    The fixed-denominator estimator of McMahan et al. (ICLR 2018, arXiv 1710.06963, eq. 2) with all weights one:
    whatever a client claims or sends, the sum changes by at most `max_norm` when its update is left out, besides half a
    step an entry for its rounding. The noise is rounded to the steps of the sum, so what is released is a rounding of
    sum plus noise, and no unreachable floating-point value tells the two apart (Mironov, CCS 2012).

    Args:
        layout: form of the updates' bodies.
        expected: the denominator: clients expected in a cohort.
        noise: standard deviation of the noise of every entry of the sum: noise multiplier times sensitivity.
        max_norm: as for `WeightedMean`.
    """

    def __init__(self, layout: Layout, expected: float, noise: float, max_norm: float) -> None:
        super().__init__(layout, 1.0, max_norm, clients=1)
        self._expected, self._noise = expected, noise

    def add(self, num_examples: int, body: bytes) -> None:
        """Add one update; `num_examples` is not used. Raises `MessageError` as `WeightedMean` does."""
        super().add(1, body)

    def result(self) -> dict[str, Array]:
        """Return the noised mean, float32 tensors by name; to be called once. No two calls draw the same noise."""
        for sums in self._sums.values():
            for part in _slices(sums.size):
                flat = sums.reshape(-1)[part]
                flat += np.rint(gaussian(flat.size) * (self._noise * STEPS)).astype(np.int64)
        scale = self._expected * STEPS
        return {name: (self._sums.pop(name) / scale).astype(np.float32) for name in list(self._sums)}


def gaussian(size: int) -> npt.NDArray[np.float64]:
    """Return standard normal draws (size,) by Box and Muller (1958), of 64 bits each from the system's generator.

    A statistical generator would not do: from noise that shows, where an entry is known, the rest could be computed.
    """
    bits = np.frombuffer(os.urandom(16 * -(-size // 2)), np.uint64).reshape(2, -1) >> np.uint64(11)
    radius, turn = np.sqrt(-2 * np.log((bits[0] + np.uint64(1)) * 2.0**-53)), bits[1] * (np.pi * 2.0**-52)
    return np.concatenate((radius * np.cos(turn), radius * np.sin(turn)))[:size]


def _groups(layout: Layout, body: bytes) -> Iterator[dict[str, Array]]:
    """Decode group by group, so that one group of an update is held as fp32 by whoever drops it before the next."""
    if len(body) != body_size(layout):
        raise MessageError(f"body: {len(body)} bytes where the layout gives {body_size(layout)}")
    at = 0
    for group in layout.groups:
        part = Layout((group,))
        yield decode(part, memoryview(body)[at : (at := at + body_size(part))])


def _check(layout: Layout, body: bytes, limit: float) -> None:
    """Decode everything once before any of it counts."""
    squares = 0.0
    for tensors in _groups(layout, body):
        while tensors:
            flat = tensors.popitem()[1].reshape(-1)
            squares += sum(float(np.square(flat[part], dtype=np.float64).sum()) for part in _slices(flat.size))
        del flat
    if squares > limit**2:
        raise MessageError(f"update: its norm is over {limit:g}", "raise enclave.max_norm if that is honest")


def _slices(size: int) -> Iterator[slice]:
    return (slice(at, at + _SLICE) for at in range(0, size, _SLICE))


def _fixed(values: Array) -> npt.NDArray[np.int64]:
    return np.rint(values * np.float64(STEPS)).astype(np.int64)
