# SPDX-License-Identifier: Apache-2.0
"""A federation of three clients in one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playground import Party


@pytest.fixture
def party(tmp_path: Path, settings: list[str], mini_model: None) -> Callable[..., Party]:
    """A new run with further `--set` values."""

    def make(*overrides: str) -> Party:
        return Party(tmp_path / "run", [*settings, *overrides])

    return make
