# SPDX-License-Identifier: Apache-2.0
"""A real browser without a window, for tests that look at pages."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: apt-get install chromium")
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr"),
)


def screenshot(address: str, width: int, height: int, picture: Path, *, dark: bool = False) -> list[str]:
    """Take a picture of a page; returns what its console says."""
    command = [
        *(str(BROWSER), *_QUIET, f"--user-data-dir={picture.with_suffix('.profile')}", f"--screenshot={picture}"),
        *(f"--window-size={width},{height}", f"--blink-settings=preferredColorScheme={int(not dark)}", address),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=180)
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]
