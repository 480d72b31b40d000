# SPDX-License-Identifier: Apache-2.0
"""A stand-in for MRENCLAVE where there is no SGX: a digest of the source files the enclave side consists of.

It changes when that code changes, as a real measurement does. It says nothing about what really runs.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import trustformer
from trustformer.message import enc

_QUOTES = ("__init__", "errors", "evidence", "gramine", "simulated", "simulated_pki")
MEASURED = (
    *("__init__.py", "errors.py", "message.py", "aggregation.py", "vq", "secure", "enclave"),
    *(f"attestation/{name}.py" for name in _QUOTES),
)


def measured_files() -> list[str]:
    """Every source file of the enclave side, relative to the package, sorted: what an enclave's package holds."""
    root = Path(trustformer.__file__).parent
    found = [
        file for name in MEASURED for file in ([root / name] if name.endswith(".py") else (root / name).glob("*.py"))
    ]
    return sorted(file.relative_to(root).as_posix() for file in found)


def simulated_measurement() -> bytes:
    """Return SHA-256 over names and contents of the enclave side's source files, 32 bytes."""
    root = Path(trustformer.__file__).parent
    parts = [(name, (root / name).read_bytes()) for name in measured_files()]
    return hashlib.sha256(enc("tfl/1 measurement", *(field for part in parts for field in part))).digest()
