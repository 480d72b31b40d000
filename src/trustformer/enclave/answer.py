# SPDX-License-Identifier: Apache-2.0
"""From the mean of a round to its answer: ē = E'(u) with u = mean + c s, and the new s = u - decode(ē)."""

from __future__ import annotations

import numpy as np

from trustformer.errors import MessageError
from trustformer.message import Layout
from trustformer.vq import MAX_ABS, Array, decode, encode


def express(
    layout: Layout, total: dict[str, Array], residual: bytes, rng: np.random.Generator, share: float = 1.0
) -> tuple[bytes, bytes]:
    """Return the answer's body and the new s.

    Args:
        layout: of the answer.
        total: the mean; it is changed in place.
        residual: s, fp32 tensors in the layout's order; empty for zero. So is the one returned.
        rng: of the answer's k-means.
        share: c, of s; the rest is given up.
    """
    if residual:
        flat, at = np.frombuffer(residual, np.float32), 0
        for spec in layout.tensors:
            total[spec.name] += np.float32(share) * flat[at : at + spec.size].reshape(spec.shape)
            at += spec.size
    body, expressed = _encode(layout, total, rng)
    for name in list(expressed):
        total[name] -= expressed.pop(name)
    left = any(values.any() for values in total.values())
    return body, b"".join(total[spec.name].data for spec in layout.tensors) if left else b""


def _encode(layout: Layout, total: dict[str, Array], rng: np.random.Generator) -> tuple[bytes, dict[str, Array]]:
    """Code the mean. What is too large to travel stays in s, so that no client can keep a round from closing."""
    limit, start = MAX_ABS, rng.bit_generator.state
    while True:
        within = {name: _within(values, limit) for name, values in total.items()}
        rng.bit_generator.state = start  # every try draws the same
        try:
            body = encode(layout, within, rng)
            return body, decode(layout, body)
        except MessageError:  # a centroid shared by tensors of different scales may overshoot
            limit /= 2


def _within(values: Array, limit: float) -> Array:
    return values if max(values.max(), -values.min()) <= limit else values.clip(-limit, limit)
