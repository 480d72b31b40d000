# SPDX-License-Identifier: Apache-2.0
"""Federated training of Transformers in which only sealed k-means centroids leave a client.

The names here are for use from other programs; everything else can change without notice. They are loaded when they are
first used: the enclave side must not load a machine-learning framework.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "ExchangeCallback": "library.callback",
    "Federation": "library.federation",
    "MethodConfig": "methods.config",
    "TrustformerError": "errors",
}

__all__ = ["ExchangeCallback", "Federation", "MethodConfig", "TrustformerError"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
