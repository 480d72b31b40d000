# SPDX-License-Identifier: Apache-2.0
"""The app bundle that Flower wants of every run; it holds no code, and clients pin it."""

from __future__ import annotations

import hashlib

from flwr.cli.build import build_fab_from_files

_MANIFEST = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "trustformer"
version = "1.0.0"
description = "Names the run; holds no code"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "trustformer"

[tool.flwr.app.components]
serverapp = "trustformer:none"
clientapp = "trustformer:none"

[tool.flwr.app.config]
"""


def make_bundle() -> bytes:
    """The app bundle of every run: Flower wants one, and this holds no code."""
    bundle: bytes = build_fab_from_files({"pyproject.toml": _MANIFEST.encode()})[0]
    return bundle


def bundle_hash(bundle: bytes) -> str:
    """What clients pin, in hex."""
    return hashlib.sha256(bundle).hexdigest()
