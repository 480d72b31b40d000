# SPDX-License-Identifier: Apache-2.0
"""What a call of the command line in this process gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Outcome(NamedTuple):
    """Exit code and what was written."""

    code: int
    out: str
    err: str


Cli = Callable[..., Outcome]
