# SPDX-License-Identifier: Apache-2.0
"""Federated training of Transformers in which only sealed k-means centroids, with their codes, leave a client.

The names here are those of `trustformer.library`, for use from other programs; everything else can change without
notice. They are loaded when they are first used: the enclave side must not load a machine-learning framework.
"""

from importlib import import_module
from typing import Any

__all__ = ["ExchangeCallback", "Federation", "MethodConfig", "TrustformerError"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.library"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
