# SPDX-License-Identifier: Apache-2.0
"""Attester inside a Gramine SGX enclave: the pseudo-files of /dev/attestation.

Source: Gramine documentation, "Attestation and Secret Provisioning". Writing 64 bytes to user_report_data
and reading quote gives a DCAP quote over them. The report data is one buffer of the whole process, so the
pair write, read is under a lock, and the quote is compared with what was asked before it leaves.
"""

from __future__ import annotations

import threading
from pathlib import Path

from trustformer.attestation.errors import BadQuote, ReportData
from trustformer.attestation.evidence import (
    MAX_QUOTE_BYTES,
    REPORT_DATA_BYTES,
    REPORT_DATA_SLICE,
    Evidence,
    Kind,
)
from trustformer.errors import ConfigError

DEFAULT_DIRECTORY = Path("/dev/attestation")
OUTSIDE = "start it with gramine-sgx from a manifest with sgx.remote_attestation = 'dcap'"

_locks: dict[Path, threading.Lock] = {}
_locks_guard = threading.Lock()


class GramineAttester:
    """Answers with quotes of this enclave.

    Raises:
        ConfigError: on construction, when the process does not run in an SGX enclave with DCAP.
    """

    kind: Kind = "gramine-dcap"

    def __init__(self, directory: Path = DEFAULT_DIRECTORY) -> None:
        self._directory = directory
        try:
            with (directory / "attestation_type").open("rb") as file:
                found = file.read(64).strip(b"\0\n ").decode("ascii", "replace")
        except OSError as error:
            raise ConfigError(f"{directory}: this process is not inside an SGX enclave", OUTSIDE) from error
        if found != "dcap":
            raise ConfigError(f"{directory / 'attestation_type'} says {found!r}, not 'dcap'", OUTSIDE)
        for name in ("user_report_data", "quote"):
            if not (directory / name).exists():
                raise ConfigError(f"{directory / name} is missing", OUTSIDE)
        # Two attesters in one process share the kernel's buffer, so they share the lock too.
        with _locks_guard:
            self._lock = _locks.setdefault(directory.resolve(), threading.Lock())

    def evidence(self, report_data: bytes) -> Evidence:
        """Return a quote over exactly these 64 bytes, without collateral: that comes from outside an enclave.

        Raises:
            ReportData: the quote carries other bytes than were asked for.
            BadQuote: the answer is not the size of a quote.
        """
        if len(report_data) != REPORT_DATA_BYTES:
            # Gramine would pad a shorter value and silently cut a longer one.
            raise ValueError(f"report_data has {len(report_data)} bytes, not {REPORT_DATA_BYTES}")
        with self._lock:
            (self._directory / "user_report_data").write_bytes(report_data)
            with (self._directory / "quote").open("rb") as file:
                quote = file.read(MAX_QUOTE_BYTES + 1)
        if not REPORT_DATA_SLICE.stop <= len(quote) <= MAX_QUOTE_BYTES:
            raise BadQuote(
                f"{self._directory / 'quote'} answered {len(quote)} bytes",
                got=f"{len(quote)} bytes",
                expected=f"{REPORT_DATA_SLICE.stop} to {MAX_QUOTE_BYTES} bytes",
            )
        if quote[REPORT_DATA_SLICE] != report_data:
            raise ReportData(
                "the quote carries other report data than was written",
                "something else in this process wrote user_report_data at the same time",
                got=quote[REPORT_DATA_SLICE].hex(),
                expected=report_data.hex(),
            )
        return Evidence(self.kind, quote, None)
