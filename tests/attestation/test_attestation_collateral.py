# SPDX-License-Identifier: Apache-2.0
"""Collateral over a real HTTP server on loopback that speaks the routes of a PCCS, and from files without one."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from pki import END, NOW, START, Pki, raw_signature

from trustformer.attestation import collateral, errors
from trustformer.attestation.evidence import Evidence
from trustformer.attestation.policy import Policy
from trustformer.errors import ConfigError, TrustformerError


class Pccs(ThreadingHTTPServer):
    """Serves the collateral of one platform under /sgx/certification/v4."""

    daemon_threads = True

    def __init__(self, body: bytes, fmspc: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.collateral = json.loads(body)
        self.fmspc = fmspc
        self.asked: list[str] = []
        self.broken = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Pccs

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        parts, data = urlsplit(self.path), self.server.collateral
        query = parse_qs(parts.query)
        route = parts.path.removeprefix("/sgx/certification/v4/")
        if self.server.broken:
            self._answer(b"<html>proxy error</html>")
        elif route == "pckcrl" and query["ca"] == ["processor"]:
            crl = bytes.fromhex(data["pck_crl"])
            self._answer(crl, "SGX-PCK-CRL-Issuer-Chain", data["pck_crl_issuer_chain"])
        elif route == "rootcacrl":
            self._answer(data["root_ca_crl"].encode())
        elif route == "tcb" and query["fmspc"][0].lower() == self.server.fmspc:
            text = f'{{"tcbInfo":{data["tcb_info"]},"signature":"{data["tcb_info_signature"]}"}}'
            self._answer(text.encode(), "TCB-Info-Issuer-Chain", data["tcb_info_issuer_chain"])
        elif route == "qe/identity":
            text = f'{{"enclaveIdentity":{data["qe_identity"]},"signature":"{data["qe_identity_signature"]}"}}'
            chain = data["qe_identity_issuer_chain"]
            self._answer(text.encode(), "SGX-Enclave-Identity-Issuer-Chain", chain)
        else:
            self.send_error(404)

    def _answer(self, body: bytes, header: str = "", chain: str = "") -> None:
        self.send_response(200)
        if header:
            self.send_header(header, quote(chain))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def served(pki: Pki, end: datetime = END) -> bytes:
    """Collateral as a service has it: texts without spaces, in the exact bytes that were signed."""
    info, identity = (json.dumps(json.loads(text), separators=(",", ":")) for text in pki.statements(end=end))
    fields = {"tcb_info": info, "tcb_info_signature": raw_signature(pki.signer.key, info.encode()).hex()}
    signature = raw_signature(pki.signer.key, identity.encode()).hex()
    fields |= {"qe_identity": identity, "qe_identity_signature": signature}
    return pki.collateral(fields=fields)


@pytest.fixture
def pccs(pki: Pki) -> Iterator[Pccs]:
    server = Pccs(served(pki), pki.fmspc)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_what_a_pccs_serves_verifies_the_quote(pccs: Pccs, pki: Pki) -> None:
    fetched = collateral.fetch(pki.quote(), pccs.url + "/")
    evidence = Evidence("simulated", pki.quote(), fetched)
    Policy.make(pki.policy()).check(evidence, now=NOW, expected_report_data=None)
    assert len(pccs.asked) == 4


def test_the_verb_writes_a_file_that_check_reads(pccs: Pccs, pki: Pki, tmp_path: Path, cli: Callable[..., Any]) -> None:
    files = {name: tmp_path / name for name in ("quote.bin", "collateral.json", "policy.toml")}
    files["quote.bin"].write_bytes(pki.quote())
    files["policy.toml"].write_text(Policy.make(pki.policy()).keys.to_toml())
    arguments = ("--quote", files["quote.bin"])
    out = ("--out", files["collateral.json"])
    assert cli("fetch", *arguments, "--service", pccs.url, *out).code == 0
    check = (*arguments, "--collateral", files["collateral.json"], "--policy", files["policy.toml"])
    assert cli("check", *check, "--at", "2026-05-28T00:00:00Z").code == 0
    expired = cli("check", *check, "--at", "2026-08-01T00:00:00Z")
    assert (expired.code, expired.json["failed"]["error"]) == (3, "Expired")
    assert "2026-07-01T00:00:00Z" in expired.error.message
    assert "attest fetch" in expired.error.hint


def test_nothing_is_fetched_unless_asked(pccs: Pccs, pki: Pki) -> None:
    with pytest.raises(errors.BadCollateral, match="no collateral"):
        Policy.make(pki.policy()).check(Evidence("simulated", pki.quote(), None), now=NOW, expected_report_data=None)
    assert pccs.asked == []


def test_the_cache_serves_until_it_expires(pccs: Pccs, pki: Pki, tmp_path: Path) -> None:
    first = collateral.cached(tmp_path, pki.quote(), pccs.url, now=NOW)
    asked = len(pccs.asked)
    assert collateral.cached(tmp_path, pki.quote(), "http://127.0.0.1:9", now=NOW) == first
    assert len(pccs.asked) == asked
    (name,) = os.listdir(tmp_path)
    assert name == f"collateral-{pki.fmspc}-processor.json"
    end = int(END.timestamp())
    assert collateral.cached(tmp_path, pki.quote(), "http://127.0.0.1:9", now=end - 100) == first  # nobody answers
    collateral.cached(tmp_path, pki.quote(), pccs.url, now=end - 100)  # renewed before it expires
    assert len(pccs.asked) == 2 * asked
    with pytest.raises(TrustformerError, match="gave no collateral"):
        collateral.cached(tmp_path, pki.quote(), "http://127.0.0.1:9", now=end + 1)
    (tmp_path / name).write_bytes(b"half of")
    assert collateral.cached(tmp_path, pki.quote(), pccs.url, now=NOW) == first
    assert len(pccs.asked) == 3 * asked
    assert collateral.cached(tmp_path, pki.quote(), pccs.url, now=end - 100, renew=False) == first
    assert len(pccs.asked) == 3 * asked


def test_a_service_with_an_older_answer_does_not_replace_what_is_still_valid(
    pccs: Pccs, pki: Pki, tmp_path: Path
) -> None:
    """A PCCS may serve what it cached long ago."""
    end = int(END.timestamp())
    first = collateral.cached(tmp_path, pki.quote(), pccs.url, now=NOW)
    (name,) = os.listdir(tmp_path)
    for days in (1, 8):  # before `END`: valid for less long, and expired
        pccs.collateral = json.loads(served(pki, END - timedelta(days)))
        assert collateral.cached(tmp_path, pki.quote(), pccs.url, now=end - 6 * 86_400) == first
        assert (tmp_path / name).read_bytes() == first
    with pytest.raises(errors.Expired):
        collateral.cached(tmp_path / "new", pki.quote(), pccs.url, now=end - 6 * 86_400)
    assert not (tmp_path / "new").exists()


def test_collateral_that_clients_would_refuse_is_not_kept(pccs: Pccs, pki: Pki, other_pki: Pki, tmp_path: Path) -> None:
    """Whoever answers once in the service's place, with dates far off, must not have the last word."""
    good = pccs.collateral
    forged = json.loads(served(pki, END + timedelta(3650)))
    for change in (
        {"tcb_info_signature": "11" * 64},
        {"qe_identity": forged["qe_identity"]},
        {"pck_crl": json.loads(served(other_pki))["pck_crl"]},
        json.loads(served(other_pki, END + timedelta(3650))),
    ):
        pccs.collateral = good | change
        with pytest.raises(TrustformerError, match="does not fit the quote"):
            collateral.cached(tmp_path / "new", pki.quote(), pccs.url, now=NOW)
        assert not (tmp_path / "new").exists()
    pccs.collateral = good
    held = collateral.cached(tmp_path, pki.quote(), pccs.url, now=NOW)
    pccs.collateral = good | forged | {"tcb_info_signature": "11" * 64}
    assert collateral.cached(tmp_path, pki.quote(), pccs.url, now=int(END.timestamp()) - 100) == held


def test_collateral_of_another_platform_is_not_kept(pccs: Pccs, pki: Pki, tmp_path: Path) -> None:
    info = json.dumps(json.loads(pki.statements(tcb={"fmspc": "001122334455"})[0]), separators=(",", ":"))
    pccs.collateral |= {"tcb_info": info, "tcb_info_signature": raw_signature(pki.signer.key, info.encode()).hex()}
    with pytest.raises(TrustformerError, match="for another platform"):
        collateral.cached(tmp_path, pki.quote(), pccs.url, now=NOW)
    assert os.listdir(tmp_path) == []


def test_a_service_that_is_silent(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collateral, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TrustformerError, match=r"did not answer within 0\.2 s"):
            collateral.fetch(pki.quote(), url)


def test_services_that_do_not_answer(pccs: Pccs, pki: Pki) -> None:
    with pytest.raises(TrustformerError, match="gave no collateral"):
        collateral.fetch(pki.quote(), "http://127.0.0.1:9")
    other = Pki(fmspc="001122334455")
    with pytest.raises(TrustformerError, match="404"):
        collateral.fetch(other.quote(), pccs.url)
    pccs.broken = True
    with pytest.raises(TrustformerError):
        collateral.fetch(pki.quote(), pccs.url)


@pytest.mark.parametrize("service", ["", "Intel", "pccs", "ftp://host", "file:///etc/passwd", "http://", "http://[bad"])
def test_services_that_are_none(pki: Pki, service: str) -> None:
    with pytest.raises(ConfigError, match="not a URL") as refused:
        collateral.fetch(pki.quote(), service)
    assert "give intel, http" in refused.value.hint


def test_no_request_for_bytes_that_are_no_quote(pccs: Pccs) -> None:
    for bad in (b"", bytes(1000), b"\xff" * 20_000):
        with pytest.raises(errors.BadQuote):
            collateral.fetch(bad, pccs.url)
    assert pccs.asked == []


def test_window_names_what_ends_first(pki: Pki, tmp_path: Path) -> None:
    data = pki.collateral(crl_end=START.replace(day=20))
    valid = collateral.save(tmp_path / "deep" / "collateral.json", data)
    assert str(valid) == ("valid from 2026-05-01T00:00:00Z to 2026-05-20T00:00:00Z (revocation list of the root)")
    path = tmp_path / "deep" / "collateral.json"
    assert collateral.load(path, now=int(START.timestamp())) == data
    with pytest.raises(errors.Expired):
        collateral.load(path, now=NOW)
    with pytest.raises(errors.NotYetValid):
        collateral.load(path, now=int(START.timestamp()) - 1)


def test_a_bad_file_does_not_replace_a_good_one(pki: Pki, tmp_path: Path) -> None:
    path = tmp_path / "collateral.json"
    collateral.save(path, pki.collateral())
    before = path.read_bytes()
    with pytest.raises(errors.BadCollateral):
        collateral.save(path, b"{}")
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["collateral.json"]
    with pytest.raises(ConfigError, match="cannot write"):
        collateral.save(Path("/proc/none/collateral.json"), pki.collateral())
    with pytest.raises(ConfigError, match="cannot read"):
        collateral.load(tmp_path / "none.json")
