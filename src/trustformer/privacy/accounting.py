# SPDX-License-Identifier: Apache-2.0
"""Epsilon of a run: the sampled Gaussian mechanism, composed, by Opacus' RDP accountant.

Rényi differential privacy (Mironov, CSF 2017; sampled: Mironov, Talwar and Zhang, arXiv 1908.10530) is an upper bound
in milliseconds. Numerically tight accountants find up to a seventh less here, in seconds a call. Noise multipliers are
rounded up to thousandths, so that versions of the accountant agree on them. Adjacency: one client (or pair) more or
less, its contribution being zero in its absence.
"""

from __future__ import annotations

import logging
import math
import warnings
from functools import lru_cache
from typing import Any

from trustformer.errors import ConfigError
from trustformer.privacy.stated import upper

_TOLERANCE = 0.001
"""Of epsilon, when noise is looked for."""
_HIGHER_ORDERS = (84, 112, 152, 208, 288, 392, 536, 736, 1024)
"""Beside Opacus' own, which end at 63 and give no epsilon of 0.1 at a delta of 1e-5; past 1,029 binomials overflow."""
_SMALL = 1.0
"""From this epsilon on the best order is one of Opacus' own; looking for noise with more takes six times as long."""


@lru_cache
def epsilon_of(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    """Return the epsilon of `steps` releases, infinite without noise.

    Args:
        noise_multiplier: standard deviation of the noise over the sensitivity.
        sample_rate: chance of one client (or pair) to be in a release; 1 for always.
        steps: number of releases; none cost nothing.
        delta: of the guarantee.

    Raises:
        ConfigError: Opacus is not installed.
    """
    if steps == 0 or noise_multiplier == 0:
        return math.inf if steps else 0.0
    accountant = _opacus().RDPAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the best order is the first or last it tries: still an upper bound
        return max(0.0, float(accountant.get_epsilon(delta=delta, alphas=_orders())))  # the bound may be below zero


@lru_cache
def noise_for(epsilon: float, sample_rate: float, steps: int, delta: float) -> float:
    """Return the smallest noise multiplier, in thousandths, whose run spends at most `epsilon`; 0 for epsilon 0.

    Raises:
        ConfigError: no noise is known to give so small an epsilon at this delta; or Opacus is not installed.
    """
    if epsilon == 0 or steps == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            noise = _opacus().utils.get_noise_multiplier(
                target_epsilon=epsilon,
                target_delta=delta,
                sample_rate=sample_rate,
                steps=steps,
                accountant="rdp",
                epsilon_tolerance=_TOLERANCE,
                alphas=_orders() if epsilon < _SMALL else None,
            )
        except ValueError:
            raise ConfigError(
                f"privacy.epsilon {upper(epsilon)} is too low at a delta of {upper(delta)}",
                "raise it, or privacy.delta",
            ) from None
    return float(math.ceil(1000 * noise) / 1000)


def _orders() -> list[float]:
    return [*_opacus().RDPAccountant.DEFAULT_ALPHAS, *_HIGHER_ORDERS]


def _opacus() -> Any:
    try:
        from opacus import accountants
        from opacus.accountants import utils as _utils  # noqa: F401 - makes accountants.utils
    except ImportError:
        raise ConfigError(
            "privacy needs the package opacus", "pip install -e '.[dp]' in the repository's folder"
        ) from None
    logging.getLogger("opacus").setLevel(logging.ERROR)  # orders it leaves out
    return accountants
