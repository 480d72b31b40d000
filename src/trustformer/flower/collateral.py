# SPDX-License-Identifier: Apache-2.0
"""Collateral for an enclave without a network: fetched by the host, signed by Intel, checked by every client."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from trustformer.attestation.collateral import INTEL, cached, load
from trustformer.errors import TrustformerError

_RETRY_SECONDS = 30.0
"""A service that failed is not asked again before: asking holds up every client's messages, a minute at most."""


class CollateralSource:
    """Gives the collateral of a quote; called as `Host` calls it.

    Args:
        source: `intel`, the URL of a PCCS, or a file; a relative one is in `folder`.
        folder: of the host; what was fetched is kept in `collateral` there until it expires.
        note: shows one line, whenever there is none to be had.
    """

    def __init__(self, source: str, folder: Path, note: Callable[[str], None]) -> None:
        self._source, self._folder, self._note = source, folder, note
        self._failed: tuple[float, TrustformerError] | None = None

    def __call__(self, quote: bytes) -> bytes:
        """Return collateral; raises `TrustformerError`, again without asking where that was a moment ago."""
        if self._failed is not None and time.monotonic() < self._failed[0]:
            raise self._failed[1]
        try:
            return self._get(quote, int(time.time()))
        except TrustformerError as error:
            hint = f" ({error.hint})" if error.hint else ""
            self._note(f"no collateral for the enclave's quote: {error.message}{hint}")
            self._failed = time.monotonic() + _RETRY_SECONDS, error
            raise

    def _get(self, quote: bytes, now: int) -> bytes:
        if self._source != INTEL and not urlsplit(self._source).netloc:
            return load(self._folder / self._source, now=now)
        cache = self._folder / "collateral"
        cache.mkdir(exist_ok=True)
        return cached(cache, quote, self._source, now=now)
