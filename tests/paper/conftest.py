# SPDX-License-Identifier: Apache-2.0
"""The page's generator is no part of the package: its folder is put on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "paper"))
