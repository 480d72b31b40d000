# SPDX-License-Identifier: Apache-2.0
"""A federation of many machines: Flower carries sealed bytes between clients and the enclave, and reads none.

The only folder that imports flwr. Nothing here decides about content: clients, channel, host and enclave are those
of `trustformer run`.
"""

from __future__ import annotations

import importlib.util
import os

from trustformer.errors import ConfigError

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""Keeps every Flower process from calling anyone but its own SuperLink; flwr reads it when it is imported."""

os.environ.update(QUIET)


def require_flwr() -> None:
    """Raise `ConfigError` where Flower is not installed."""
    if importlib.util.find_spec("flwr") is None:
        raise ConfigError(
            "a deployment needs Flower, which is not installed", "pip install -e '.[flower]' in the repository's folder"
        )
