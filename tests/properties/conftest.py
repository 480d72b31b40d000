# SPDX-License-Identifier: Apache-2.0
"""Lets these tests import the kit that drives an enclave."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
