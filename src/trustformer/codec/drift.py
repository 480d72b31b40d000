# SPDX-License-Identifier: Apache-2.0
"""The exchange of drifts: what every method but `paper` uses. The layouts decide how coarse it is.

    x_i = W_i - G        e_i = E(x_i)        G <- G + decode(ē)        W_i <- W_i + (decode(ē) - decode(e_i))

With dense fp32 layouts this is exactly federated averaging (McMahan et al., 2017). What a message could not
express, the residual x_i - decode(e_i), stays in the client's own weights: neither lost nor sent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from trustformer.codec.fixed import Fixed
from trustformer.codec.rates import join, pieces
from trustformer.codec.weights import Weights
from trustformer.message import Layout
from trustformer.vq import Nearest, assign, decode, encode


@dataclass(frozen=True)
class DriftCodec(Fixed):
    """Codes drifts in the form of `upload` and reads answers in the form of `answer`.

    `nearest` finds the centroid of each block: numpy's, or one that runs where the model is.
    """

    upload: Layout
    answer: Layout
    nearest: Nearest = field(default=assign, kw_only=True)

    def encode(self, weights: Weights, common: Weights, rng: np.random.Generator) -> bytes:
        """Return the body of a client's update: its drift from the common model, coded."""
        return self.coded({name: weights[name] - common[name] for name in weights}, rng)

    def coded(self, drift: Weights, rng: np.random.Generator) -> bytes:
        """Return the body of a drift."""
        return encode(self.upload, pieces(self.upload, drift), rng, self.nearest)

    def adopt(self, weights: Weights, common: Weights, answer: bytes, own: bytes | None) -> tuple[Weights, Weights]:
        """Return the client's weights and the common model after an exchange.

        Args:
            weights: the client's weights W_i.
            common: G before the exchange.
            answer: body of the aggregate ē.
            own: the client's own update body if the exchange included it, else None: it then keeps its drift.
        """
        sent = join(decode(self.upload, own)) if own is not None else None
        return shift(weights, common, join(decode(self.answer, answer)), sent)


def shift(weights: Weights, common: Weights, step: Weights, sent: Weights | None) -> tuple[Weights, Weights]:
    """Return W_i + (step - sent) and G + step, in unfused fp32; nothing is subtracted where nothing was combined."""
    common = {name: values + step[name] for name, values in common.items()}
    if sent is not None:
        step = {name: values - sent[name] for name, values in step.items()}
    return {name: values + step[name] for name, values in weights.items()}, common
