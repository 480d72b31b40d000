# SPDX-License-Identifier: Apache-2.0
"""The exchange alone, for models and training loops that are not this package's.

These names are for use from other programs; everything else can change without notice. They are loaded when they are
first used.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "ExchangeCallback": "trustformer.library.callback",
    "Federation": "trustformer.library.federation",
    "MethodConfig": "trustformer.methods.config",
    "TrustformerError": "trustformer.errors",
}

__all__ = ["ExchangeCallback", "Federation", "MethodConfig", "TrustformerError"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
