# SPDX-License-Identifier: Apache-2.0
"""Collateral for an enclave without a network: fetched by the host, signed by Intel, checked by every client."""

from __future__ import annotations

import time
from pathlib import Path

from trustformer.attestation.collateral import INTEL, cached, check_service, load
from trustformer.attestation.files import write_atomic
from trustformer.errors import ConfigError, TrustformerError

_RETRY_SECONDS = 30.0
"""A service is not asked again before: asking holds up every client's messages, a minute at most."""


class CollateralSource:
    """Gives the collateral of a quote; called as `Host` calls it.

    Args:
        source: `intel`, the URL of a PCCS, or a file; a relative one is in `folder`.
        folder: of the host. What was fetched is kept in `collateral` there and renewed a week before it expires; beside
            it `quote.bin`, the last quote that collateral was wanted for.

    Raises:
        ConfigError: the source is none of the three, or a file without valid collateral.
    """

    def __init__(self, source: str, folder: Path) -> None:
        self._source, self._cache = source, folder / "collateral"
        self._file = folder / source if source != INTEL and "://" not in source else None
        self._failed: tuple[float, TrustformerError] | None = None
        self._renew_at = 0.0
        if self._file is None:
            check_service(source)
        else:
            self._load(self._file)

    def __call__(self, quote: bytes) -> bytes:
        """Return collateral; raises `TrustformerError`, again without asking where that was a moment ago."""
        if self._file is not None:
            return self._load(self._file)
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise self._failed[1]
        renew = time.monotonic() >= self._renew_at
        try:
            write_atomic(self._cache / "quote.bin", quote)
            data = cached(self._cache, quote, self._source, now=int(time.time()), renew=renew)
            if renew:
                self._renew_at = time.monotonic() + _RETRY_SECONDS
            return data
        except TrustformerError as error:
            wrapped = TrustformerError(f"no collateral for the enclave's quote: {error.message}", error.hint)
            self._failed = time.monotonic() + _RETRY_SECONDS, wrapped
            raise wrapped from error

    def _load(self, file: Path) -> bytes:
        try:
            return load(file, now=int(time.time()))
        except TrustformerError as error:
            raise ConfigError(f"the collateral of host.toml, {file}: {error.message}", error.hint) from error
