# SPDX-License-Identifier: Apache-2.0
"""What is stated of a guarantee is never smaller than it is, wherever it is stated."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustformer.privacy.stated import stated_epsilon, upper

ROOT = Path(__file__).parents[2]


@given(bound=st.floats(1e-12, 1e6), digits=st.integers(1, 9))
def test_a_bound_is_rounded_up_to_its_digits(bound: float, digits: int) -> None:
    shown = upper(bound, digits)
    assert bound <= float(shown) < bound * (1 + 10.0 ** (1 - digits)) * (1 + 1e-12)


@given(epsilon=st.floats(0, 200))
def test_an_epsilon_is_stated_by_a_tenth_more_at_most(epsilon: float) -> None:
    assert epsilon <= float(stated_epsilon(epsilon)) < epsilon + 0.1


def test_what_has_few_digits_is_stated_as_it_is() -> None:
    assert [upper(delta) for delta in (1e-3, 1e-5, 0.01, 1.25e-4)] == ["0.001", "1e-05", "0.01", "0.000125"]
    assert [upper(bound) for bound in (8.0, 0.5, math.inf)] == ["8", "0.5", "∞"]
    assert [stated_epsilon(epsilon) for epsilon in (None, math.inf, 0.0, 8.0)] == ["∞", "∞", "0.0", "8.0"]


@pytest.mark.parametrize("folder", ["src", "benchmarks", "docs/tools"])
def test_no_text_rounds_an_epsilon_or_delta_by_itself(folder: str) -> None:
    formatted = re.compile(r"\{[^{}]*\b(epsilon\w*|delta)\b[^{}]*:[^{}]*[efg]\}")
    for file in {*(ROOT / folder).rglob("*.py")} - {ROOT / "src/trustformer/privacy/stated.py"}:
        assert not formatted.search(file.read_text("utf-8")), file
