# SPDX-License-Identifier: Apache-2.0
"""Folders of a deployment, which have the config of a run and nothing else of one."""

from __future__ import annotations

from pathlib import Path

from trustformer.errors import ConfigError


def check_not_deployed(path: Path) -> None:
    """Refuse a folder that `init-federation` made for the host or a client; raises `ConfigError`."""
    if (path / "host.toml").is_file():
        raise ConfigError(
            f"{path} is the host's folder of a deployment: it holds no model or score",
            "clients have the models, in their common/ and model/ (docs/deploy-flower.md); "
            "trustformer attest audit reads this folder",
        )
    if (path / "node.toml").is_file():
        raise ConfigError(
            f"{path} is a client's folder of a deployment, not a run",
            f"trustformer translate and transformers load its models {path / 'common'} and {path / 'model'} as they "
            "are; sacrebleu scores their translations (docs/deploy-flower.md)",
        )
