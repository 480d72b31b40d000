# SPDX-License-Identifier: Apache-2.0
"""The Gramine attester against a folder that behaves like /dev/attestation: real files, and a FIFO that answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from pki import Pki

from pseudo_files import answering, make_folder
from trustformer.attestation.errors import BadQuote, ReportData
from trustformer.attestation.evidence import REPORT_DATA_SLICE
from trustformer.attestation.gramine import GramineAttester
from trustformer.errors import ConfigError


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Callable[[Callable[[bytes], bytes]], Path]]:
    with ExitStack() as stack:
        yield lambda answer: stack.enter_context(answering(tmp_path, answer))


@pytest.mark.parametrize("kind", ["none", "epid", "", "dcap2"])
def test_refuses_to_start_without_dcap(tmp_path: Path, kind: str) -> None:
    make_folder(tmp_path, kind)
    (tmp_path / "quote").write_bytes(b"")
    with pytest.raises(ConfigError, match="dcap"):
        GramineAttester(tmp_path)


@pytest.mark.parametrize("missing", ["attestation_type", "user_report_data", "quote"])
def test_refuses_to_start_without_its_files(tmp_path: Path, missing: str) -> None:
    make_folder(tmp_path)
    (tmp_path / "quote").write_bytes(b"")
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError):
        GramineAttester(tmp_path)


def test_refuses_to_start_outside_an_enclave() -> None:
    with pytest.raises(ConfigError, match="not inside an SGX enclave"):
        GramineAttester()


@pytest.mark.parametrize("size", [0, 32, 63, 65, 1000])
def test_report_data_has_64_bytes(tmp_path: Path, size: int) -> None:
    make_folder(tmp_path)
    (tmp_path / "quote").write_bytes(b"")
    with pytest.raises(ValueError, match="64"):
        GramineAttester(tmp_path).evidence(bytes(size))


@pytest.mark.parametrize("size", [0, 431, 16 * 1024 + 1])
def test_answers_that_are_not_quotes(tmp_path: Path, size: int) -> None:
    make_folder(tmp_path)
    (tmp_path / "quote").write_bytes(bytes(size))
    with pytest.raises(BadQuote, match="answered"):
        GramineAttester(tmp_path).evidence(bytes(64))


def test_a_quote_over_other_bytes_does_not_leave(tmp_path: Path, pki: Pki) -> None:
    make_folder(tmp_path)
    (tmp_path / "quote").write_bytes(pki.quote(report_data=b"a" * 64))
    attester = GramineAttester(tmp_path)
    assert attester.evidence(b"a" * 64).kind == "gramine-dcap"
    with pytest.raises(ReportData):
        attester.evidence(b"b" * 64)


def test_27_two_threads_each_get_their_own_nonce(device: Callable[..., Path], pki: Pki) -> None:
    folder = device(lambda report_data: pki.quote(report_data=report_data))
    attesters = [GramineAttester(folder), GramineAttester(folder)]  # one process, one kernel buffer, one lock
    nonces = [bytes([number]) * 64 for number in range(1, 13)]
    with ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(attesters[i % 2].evidence, nonce) for i, nonce in enumerate(nonces)]
        quotes = [future.result(timeout=20).quote for future in futures]
    assert [quote[REPORT_DATA_SLICE] for quote in quotes] == nonces
