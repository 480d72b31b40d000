# SPDX-License-Identifier: Apache-2.0
"""The temporary folder, where the enclave's socket is; without imports that `doctor` should find missing."""

from __future__ import annotations

import os

from trustformer.errors import ConfigError

PREFIX = "trustformer-"
LONGEST = 107 - len(f"/{PREFIX}12345678/s")
"""Bytes: a Unix socket's path has 107, and ends in the name `tempfile` makes and the socket's."""


def check_temporary(folder: str) -> None:
    """Raise `ConfigError` if the path of the enclave's socket in this temporary folder would be too long."""
    if len(os.fsencode(folder)) > LONGEST:
        raise ConfigError(
            f"the path of the temporary folder {folder} is longer than {LONGEST} bytes: too long for the socket "
            "of the enclave process",
            "set TMPDIR to a shorter folder",
        )
