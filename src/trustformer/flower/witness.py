# SPDX-License-Identifier: Apache-2.0
"""Where a client of a deployment keeps what an audit reads."""

from __future__ import annotations

from pathlib import Path

from trustformer.experiment.testimony import Witness
from trustformer.flower.settings import NodeConfig


def witness(folder: Path) -> Witness:
    """Return what the client of `folder`, that of its `node.toml`, has to show; raises `ConfigError`."""
    settings = NodeConfig.load(folder / "node.toml")
    return Witness(folder / settings.state, folder / settings.terms, folder / settings.policy, settings.client)
