# SPDX-License-Identifier: Apache-2.0
"""A share of the recorded fuzz run: whatever the bytes, the answer is a decision or a typed error."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "fuzz_attestation.py"


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_mutated_inputs_end_in_typed_errors(seed: int) -> None:
    spec = importlib.util.spec_from_file_location("fuzz_attestation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    fuzz_attestation = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_attestation"] = fuzz_attestation
    spec.loader.exec_module(fuzz_attestation)
    tally = fuzz_attestation.fuzz(100, seed)
    assert tally.raw == []
    assert tally.forged == 0
    assert sum(sum(counts.values()) for counts in tally.outcomes.values()) == 100
    assert set(tally.outcomes) == set(fuzz_attestation.MUTATORS)
