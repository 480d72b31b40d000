# SPDX-License-Identifier: Apache-2.0
"""Bounds as text, never smaller than they are: whoever states an epsilon, a delta or a rate calls these."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, Context, Decimal


def upper(bound: float, digits: int = 6) -> str:
    """Return a bound rounded up to so many significant digits; ∞ where there is none."""
    return f"{float(_up(bound, digits)):.{digits}g}" if math.isfinite(bound) else "∞"


def stated_epsilon(epsilon: float | None) -> str:
    """Return an epsilon rounded up: to one decimal, or to two digits where it is below one; None is infinite."""
    if epsilon is None or not math.isfinite(epsilon):
        return "∞"
    if epsilon < 1:
        return f"{_up(epsilon, 2):f}"
    return f"{_exact(epsilon).quantize(Decimal('0.1'), ROUND_CEILING):f}"


def _up(bound: float, digits: int) -> Decimal:
    return Context(prec=digits, rounding=ROUND_CEILING).create_decimal(_exact(bound))


def _exact(bound: float) -> Decimal:
    """The decimal that a float is written as: 0.1 is meant by it, though its bits are a hair more."""
    return Decimal(repr(float(bound)))
