# SPDX-License-Identifier: Apache-2.0
"""A stand-in for MRENCLAVE where there is no SGX: a digest of the source files the enclave side consists of.

It changes when that code changes, as a real measurement does. It says nothing about what really runs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import trustformer
from trustformer.message import enc

MEASURED = (
    "errors.py",
    "message.py",
    "aggregation.py",
    "vq",
    "secure",
    "enclave",
    "attestation/__init__.py",
    "attestation/errors.py",
    "attestation/evidence.py",
    "attestation/gramine.py",
    "attestation/simulated.py",
    "attestation/simulated_pki.py",
)


def simulated_measurement() -> bytes:
    """Return SHA-256 over names and contents of the enclave side's source files, 32 bytes."""
    root = Path(trustformer.__file__).parent
    files = [
        file for name in MEASURED for file in ([root / name] if name.endswith(".py") else (root / name).glob("*.py"))
    ]
    parts = [(file.relative_to(root).as_posix(), file.read_bytes()) for file in sorted(files)]
    return hashlib.sha256(enc("tfl/1 measurement", *(field for part in parts for field in part))).digest()
