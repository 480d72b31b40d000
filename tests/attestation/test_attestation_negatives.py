# SPDX-License-Identifier: Apache-2.0
"""What a client must refuse, one numbered test a case: quotes that are rightly signed and wrong in content."""

from __future__ import annotations

import hashlib
import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pki import END, MRENCLAVE, MRSIGNER, NOW, PPID, REPORT_DATA, START, Pki

from trustformer.attestation import errors
from trustformer.attestation.evidence import Binding, Evidence
from trustformer.attestation.handshake import appraise, check_config, check_progress, check_signature
from trustformer.attestation.policy import Policy
from trustformer.errors import ConfigError
from trustformer.message import digest
from trustformer.secure.identity import Identity

STATUSES = (
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
)


def check(policy: dict[str, Any], evidence: Evidence, *, now: int = NOW, expected: bytes | None = REPORT_DATA) -> Any:
    return Policy.make(policy).check(evidence, now=now, expected_report_data=expected)


def made(quote: bytes, collateral: bytes | None) -> Evidence:
    return Evidence("simulated", quote, collateral)


def real(samples: Path, name: str) -> tuple[Evidence, dict[str, Any]]:
    folder = samples / "real" / name
    expected = json.loads((folder / "expected.json").read_text())
    return (
        Evidence("gramine-dcap", (folder / "quote.bin").read_bytes(), (folder / "collateral.json").read_bytes()),
        expected,
    )


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_00_the_valid_quote_is_accepted_under_its_root_only(pki: Pki, other_pki: Pki) -> None:
    for one in (pki, other_pki):
        results = check(one.policy(), made(one.quote(), one.collateral()))
        assert {result.result for result in results} == {"passed"}
        assert [result.check for result in results] == sorted(result.check for result in results)


def test_01_real_quotes_outside_their_window(samples: Path) -> None:
    for name in ("sgx_processor_ca", "sgx_debug_enclave", "tdx_not_sgx"):
        evidence, expected = real(samples, name)
        policy = {"mrenclave": ["00" * 32]}
        with pytest.raises(errors.NotYetValid, match="is valid from 20"):
            check(policy, evidence, now=expected["window"]["not_before"] - 1)
        with pytest.raises(errors.Expired, match="expired at 20") as caught:
            check(policy, evidence, now=expected["window"]["not_after"] + 1)
        assert "attest fetch" in caught.value.hint
        assert "clock" in caught.value.hint


def test_02_real_debug_quote(samples: Path) -> None:
    evidence, expected = real(samples, "sgx_debug_enclave")
    with pytest.raises(errors.DebugEnclave):
        check({"mrenclave": [expected["fields"]["mr_enclave"]]}, evidence, now=expected["verify_at"])


def test_03_real_tdx_quote(samples: Path) -> None:
    evidence, expected = real(samples, "tdx_not_sgx")
    with pytest.raises(errors.WrongTee):
        check({"mrenclave": ["00" * 32]}, evidence, now=expected["verify_at"])


def test_04_real_quote_needs_its_status_and_its_advisories(samples: Path) -> None:
    evidence, expected = real(samples, "sgx_processor_ca")
    now, policy = expected["verify_at"], {"mrenclave": [expected["fields"]["mr_enclave"]]}
    with pytest.raises(errors.TcbStatus):
        check(policy, evidence, now=now)
    policy["tcb_status"] = [expected["at_verify_at"]["tcb_status"]]
    with pytest.raises(errors.Advisory, match="INTEL-SA-00289, INTEL-SA-00615"):
        check(policy, evidence, now=now)
    policy["advisories"] = ["INTEL-SA-00289"]
    with pytest.raises(errors.Advisory, match="accept INTEL-SA-00615"):
        check(policy, evidence, now=now)
    policy["advisories"] = expected["at_verify_at"]["advisory_ids"]
    check(policy, evidence, now=now, expected=bytes.fromhex(expected["fields"]["report_data"]))


# Offsets in a version 3 quote: report body at 48, signature data at 436.
PARTS = {
    "MRENCLAVE": 48 + 64,
    "MRSIGNER": 48 + 128,
    "report data": 48 + 320,
    "ATTRIBUTES": 48 + 48,
    "DEBUG": 48 + 48,
    "ISVSVN": 48 + 258,
    "header user data": 30,
    "signature": 436 + 3,
    "attestation key": 436 + 64,
    "QE report": 436 + 128 + 70,
    "QE signature": 436 + 512,
    "auth data": 436 + 578,
}


@pytest.mark.parametrize("part", PARTS)
def test_05_bit_flips(pki: Pki, part: str) -> None:
    quote = bytearray(pki.quote())
    quote[PARTS[part]] ^= 2 if part == "DEBUG" else 1
    with pytest.raises(errors.BadQuote):
        check(pki.policy(), made(bytes(quote), pki.collateral()))


def test_05_bit_flips_of_the_certificates(pki: Pki) -> None:
    quote, collateral, policy = pki.quote(), pki.collateral(), Policy.make(pki.policy())
    start = quote.index(b"-----BEGIN") + 28
    for at in range(start, quote.index(b"-----END") - 2, 7):
        damaged = bytearray(quote)
        damaged[at] = ord("A") if damaged[at] != ord("A") else ord("B")
        with pytest.raises(errors.BadQuote):
            policy.check(made(bytes(damaged), collateral), now=NOW, expected_report_data=None)


def test_06_trailing_bytes(pki: Pki) -> None:
    for extra in (b"\0", bytes(100)):
        with pytest.raises(errors.BadQuote, match="declares"):
            check(pki.policy(), made(pki.quote() + extra, pki.collateral()))


def test_07_no_bytes_are_a_traceback_or_slow(pki: Pki) -> None:
    quote, collateral, policy = pki.quote(), pki.collateral(), Policy.make(pki.policy())
    noise = random.Random(7)
    bad = [quote[:size] for size in range(0, len(quote), 64)]
    bad += [noise.randbytes(size) for size in (1, 47, 48, 435, 436, 1000, 16_000)]
    bad += [bytes(2**20), b"", quote[:432] + b"\xff\xff\xff\xff" + quote[436:], b"\xff" * 5000]
    for one in bad:
        start = time.thread_time()  # not what else runs on the machine
        with pytest.raises(errors.BadQuote):
            policy.check(made(one, collateral), now=NOW, expected_report_data=None)
        assert time.thread_time() - start < 0.05


def test_08_other_measurement(pki: Pki) -> None:
    with pytest.raises(errors.Measurement) as caught:
        check(pki.policy(), made(pki.quote(mrenclave="ab" * 32), pki.collateral()))
    assert (caught.value.check, caught.value.got, caught.value.expected) == ("d", "ab" * 32, MRENCLAVE)


@pytest.mark.parametrize("field", [{"mrsigner": "ab" * 32}, {"isv_prod_id": 2}, {"isv_svn": 2}])
def test_09_signer_policy(pki: Pki, field: dict[str, Any]) -> None:
    policy = pki.policy(mrenclave=None, mrsigner=[MRSIGNER], isv_prod_id=1, min_isv_svn=3)
    check(policy, made(pki.quote(mrenclave="cd" * 32, isv_svn=9), pki.collateral()))
    with pytest.raises(errors.Measurement):
        check(policy, made(pki.quote(**field), pki.collateral()))
    # every key given is checked, also beside a list of measurements
    with pytest.raises(errors.Measurement):
        check(policy | {"mrenclave": [MRENCLAVE]}, made(pki.quote(**field), pki.collateral()))


def test_10_well_signed_debug_enclave(pki: Pki) -> None:
    with pytest.raises(errors.DebugEnclave):
        check(pki.policy(), made(pki.quote(flags=7), pki.collateral()))


@pytest.mark.parametrize("flags", [0x15, 0x25, 0x04, 0x01, 0x85, 0x05 | 1 << 63])
def test_11_attributes(pki: Pki, flags: int) -> None:
    with pytest.raises(errors.Attributes):
        check(pki.policy(), made(pki.quote(flags=flags), pki.collateral()))


@pytest.mark.parametrize("status", STATUSES)
def test_12_tcb_status(pki: Pki, status: str) -> None:
    evidence = made(pki.quote(), pki.collateral(tcb_status=status))
    with pytest.raises(errors.TcbStatus):
        check(pki.policy(), evidence)
    listed = pki.policy(tcb_status=["UpToDate", status])
    if status == "Revoked":
        with pytest.raises(errors.TcbStatus):
            check(listed, evidence)
    else:
        check(listed, evidence)


def test_12_a_platform_below_every_level(pki: Pki) -> None:
    level = json.loads(pki.statements()[0])["tcbLevels"][0]
    level["tcb"]["sgxtcbcomponents"][0]["svn"] = 12
    with pytest.raises(errors.TcbStatus, match="older than every level"):
        check(pki.policy(), made(pki.quote(), pki.collateral(tcb={"tcbLevels": [level]})))


def test_13_quoting_enclave_out_of_date(pki: Pki) -> None:
    evidence = made(pki.quote(), pki.collateral(qe_status="OutOfDate"))
    with pytest.raises(errors.TcbStatus):
        check(pki.policy(), evidence)
    check(pki.policy(tcb_status=["UpToDate", "OutOfDate"]), evidence)
    with pytest.raises(errors.TcbStatus):
        check(pki.policy(tcb_status=["UpToDate", "Revoked"]), made(pki.quote(), pki.collateral(qe_status="Revoked")))
    with pytest.raises(errors.TcbStatus):
        check(pki.policy(), made(pki.quote(qe={"isv_svn": 7}), pki.collateral()))


@pytest.mark.parametrize("qe", [{"mrsigner": "01" * 32}, {"isv_prod_id": 2}, {"flags": 0x17}])
def test_13_not_the_quoting_enclave(pki: Pki, qe: dict[str, Any]) -> None:
    with pytest.raises(errors.BadQuote, match="quoting enclave"):
        check(pki.policy(), made(pki.quote(qe=qe), pki.collateral()))


@pytest.mark.parametrize("who", ["pck", "pck_ca", "signer"])
def test_14_revoked(pki: Pki, who: str) -> None:
    with pytest.raises(errors.Revoked):
        check(pki.policy(), made(pki.quote(), pki.collateral(revoked=(getattr(pki, who),))))


@pytest.mark.parametrize("low", ["number", "qe_number"])
def test_15_evaluation_number(pki: Pki, low: str) -> None:
    policy = pki.policy(min_tcb_evaluation_data_number=17)
    check(policy, made(pki.quote(), pki.collateral(**{low: 17})))
    with pytest.raises(errors.StaleCollateral):
        check(policy, made(pki.quote(), pki.collateral(**{low: 16})))


def test_16_collateral_that_is_not_for_this_quote(pki: Pki, other_pki: Pki) -> None:
    info, identity = pki.statements()
    good, platform = json.loads(pki.collateral()), Pki(flags={"dynamic": False, "cached": False, "smt": False})
    of_platform_ca = json.loads(platform.collateral())
    cases = {
        "edited TCB info": pki.collateral(fields={"tcb_info": info.replace("UpToDate", "upToDate")}),
        "later date, not signed": pki.collateral(fields={"tcb_info": info.replace("2026-07-01", "2027-07-01")}),
        "edited QE identity": pki.collateral(fields={"qe_identity": identity.replace("UpToDate", "UpTodate")}),
        "flipped signature": pki.collateral(fields={"tcb_info_signature": "00" * 64}),
        "other platform": pki.collateral(tcb={"fmspc": "00906ea10000"}),
        "other PCE": pki.collateral(tcb={"pceId": "0001"}),
        "TDX": pki.collateral(tcb={"id": "TDX"}),
        "TDX quoting enclave": pki.collateral(qe={"id": "TD_QE"}),
        "version 2": pki.collateral(tcb={"version": 2}),
        "other root": other_pki.collateral(),
        "CRL of another CA": json.dumps(
            good | {name: of_platform_ca[name] for name in ("pck_crl", "pck_crl_issuer_chain")}
        ).encode(),
        "none": None,
        "empty": b"",
        "no object": b"[]",
        "too few fields": b"{}",
        "duplicate key": pki.collateral()[:-1] + b',"pck_crl":""}',
        "too large": pki.collateral() + b" " * 2**20,
        "deep": b"[" * 100_000,
        "no CRL": pki.collateral(fields={"pck_crl": ""}),
        "not hex": pki.collateral(fields={"pck_crl": "zz"}),
        "half a surrogate": pki.collateral(fields={"qe_identity": "\ud800"}),
        "huge number": pki.collateral(fields={"qe_identity": "1" * 5000}),
        "bad date": pki.collateral(tcb={"nextUpdate": "soon"}),
    }
    for collateral in cases.values():
        with pytest.raises(errors.BadCollateral):
            check(pki.policy(), made(pki.quote(), collateral))


def test_16_dates_of_collateral(pki: Pki) -> None:
    start, end = int(START.timestamp()), int(END.timestamp())
    quote, collateral, policy = pki.quote(), pki.collateral(), pki.policy()
    check(policy, made(quote, collateral), now=start)
    check(policy, made(quote, collateral), now=end - 1)
    with pytest.raises(errors.NotYetValid):
        check(policy, made(quote, collateral), now=start - 1)
    with pytest.raises(errors.Expired):
        check(policy, made(quote, collateral), now=end + 1)
    with pytest.raises(errors.Expired, match="revocation list"):
        check(policy, made(quote, pki.collateral(crl_end=START.replace(day=20))))
    year = 365 * 86400
    for wrong in (NOW - year, NOW + year):
        with pytest.raises((errors.Expired, errors.NotYetValid)) as caught:
            check(policy, made(quote, collateral), now=wrong)
        assert "clock" in caught.value.hint


def test_17_other_root_with_equal_names(pki: Pki, other_pki: Pki) -> None:
    for collateral in (pki.collateral(), other_pki.collateral()):
        with pytest.raises(errors.BadQuote, match="root"):
            check(pki.policy(), made(other_pki.quote(), collateral))


def test_18_simulated_evidence_under_a_policy_with_intels_root(pki: Pki) -> None:
    evidence = made(pki.quote(), pki.collateral())
    no_pin, not_allowed = pki.policy(root_ca_sha256=None), pki.policy(allow_simulated=None)
    for policy in ({"mrenclave": [MRENCLAVE]}, no_pin, not_allowed):
        with pytest.raises(errors.ProviderNotAllowed):
            check(policy, evidence)


def test_19_simulated_bytes_that_say_gramine_dcap(pki: Pki) -> None:
    evidence = replace(made(pki.quote(), pki.collateral()), kind="gramine-dcap")
    with pytest.raises(errors.BadQuote, match="pinned root"):
        check({"mrenclave": [MRENCLAVE]}, evidence)
    # a policy for simulations has no use for evidence that says it is real
    with pytest.raises(errors.ProviderNotAllowed):
        check(pki.policy(), evidence)
    intel = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
    with pytest.raises(errors.BadQuote):
        check(pki.policy(root_ca_sha256=[intel, pki.root_sha256]), evidence)


def test_20_simulated_evidence_under_another_pin(pki: Pki, other_pki: Pki) -> None:
    with pytest.raises(errors.BadQuote, match="pinned root"):
        check(other_pki.policy(), made(pki.quote(), pki.collateral()))


@pytest.mark.parametrize("key", ["mrenclave", "mrsigner", "tcb_status", "root_ca_sha256", "ppid", "fmspc"])
def test_21_empty_lists_are_not_any(pki: Pki, key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Policy.make(pki.policy(**{key: []}))


def binding() -> Binding:
    return Binding(
        suite="x25519-aes256gcm",
        run_id=b"r" * 16,
        boot_id=b"b" * 16,
        pk_e=b"p" * 32,
        vk_e=b"v" * 32,
        cfg=b"c" * 32,
        client_id="client-1",
        nonce=b"n" * 32,
    )


OTHER = {"nonce": b"m" * 32, "run_id": b"s" * 16, "boot_id": b"o" * 16, "cfg": b"d" * 32, "client_id": "client-2"}


@pytest.mark.parametrize("name", [*OTHER, "suite", "vk_e"])
def test_22_report_data_of_another_session(pki: Pki, name: str) -> None:
    policy, mine = Policy.make(pki.policy()), binding()
    theirs = replace(mine, **{name: OTHER.get(name, b"x" * 32)})  # type: ignore[arg-type]
    evidence = made(pki.quote(report_data=theirs.report_data()), pki.collateral())
    with pytest.raises(errors.ReportData) as caught:
        appraise(evidence, policy, NOW, binding=mine)
    assert caught.value.check == "f"
    record = appraise(evidence, policy, NOW, binding=theirs)
    assert record.decision == "accepted"


def test_22_upper_half_is_not_zero(pki: Pki) -> None:
    mine = binding()
    data = mine.report_data()[:32] + bytes(31) + b"\1"
    with pytest.raises(errors.ReportData):
        appraise(made(pki.quote(report_data=data), pki.collateral()), Policy.make(pki.policy()), NOW, binding=mine)


def test_22_fields_cannot_move_between_neighbours() -> None:
    mine = binding()
    moved = replace(mine, run_id=mine.run_id + mine.boot_id[:1], boot_id=mine.boot_id[1:])
    assert moved.report_data() != mine.report_data()
    fields = {name: getattr(mine, name) for name in Binding.__dataclass_fields__}
    raw = b"".join(
        len(field).to_bytes(4, "big") + field
        for field in (
            b"tfl/1 report",
            *(value.encode() if isinstance(value, str) else value for value in fields.values()),
        )
    )
    assert mine.report_data() == hashlib.new("sha512_256", raw).digest() + bytes(32)


def test_23_host_substitutes_its_own_key(pki: Pki) -> None:
    mine = binding()
    genuine = made(pki.quote(report_data=mine.report_data()), pki.collateral())
    with pytest.raises(errors.ReportData):
        appraise(genuine, Policy.make(pki.policy()), NOW, binding=replace(mine, pk_e=b"h" * 32))


def test_24_answer_not_signed_by_the_attested_key() -> None:
    enclave, host = Identity.generate(), Identity.generate()
    body = b"tfl/1 welcome, round 3"
    check_signature(enclave.public, enclave.sign(body), body)
    for key, signature, text in (
        (enclave.public, host.sign(body), body),
        (enclave.public, enclave.sign(body), body + b"!"),
        (enclave.public, b"", body),
        (b"short", enclave.sign(body), body),
        (bytes(32), bytes(64), body),
    ):
        with pytest.raises(errors.BadSignature) as caught:
            check_signature(key, signature, text)
        assert caught.value.check == "g"


def test_24_aggregator_behind_or_beside_the_client() -> None:
    seen = digest(b"manifest 3")
    check_progress(round_=3, manifest=seen, stored_round=3, stored_manifest=seen)
    check_progress(round_=4, manifest=digest(b"manifest 4"), stored_round=3, stored_manifest=seen)
    with pytest.raises(errors.Rollback, match="behind"):
        check_progress(round_=2, manifest=digest(b"manifest 2"), stored_round=3, stored_manifest=seen)
    with pytest.raises(errors.Rollback, match="another history"):
        check_progress(round_=3, manifest=digest(b"other 3"), stored_round=3, stored_manifest=seen)


def test_25_config_with_one_client_or_another_roster(pki: Pki) -> None:
    agreed, theirs = digest(b"min_clients 3, roster A"), digest(b"min_clients 1, roster A")
    check_config(agreed, agreed)
    with pytest.raises(errors.ConfigMismatch):
        check_config(theirs, agreed)
    # and if the message lies about it, the quote does not
    evidence = made(pki.quote(report_data=replace(binding(), cfg=theirs).report_data()), pki.collateral())
    with pytest.raises(errors.ReportData):
        appraise(evidence, Policy.make(pki.policy()), NOW, binding=replace(binding(), cfg=agreed))


def test_26_platforms_that_are_not_listed(pki: Pki) -> None:
    evidence = made(pki.quote(), pki.collateral())
    check(pki.policy(ppid=[PPID], fmspc=[pki.fmspc]), evidence)
    for key in ({"ppid": ["00" * 16]}, {"fmspc": ["00" * 6]}):
        with pytest.raises(errors.Platform):
            check(pki.policy(**key), evidence)


@pytest.mark.parametrize("flag", ["dynamic", "cached", "smt"])
def test_26_platform_flags(flag: str) -> None:
    on = Pki(flags={name: name == flag for name in ("dynamic", "cached", "smt")})
    evidence = made(on.quote(), on.collateral())
    with pytest.raises(errors.Platform, match=flag):
        check(on.policy(), evidence)
    key = {"dynamic": "allow_dynamic_platform", "cached": "allow_cached_keys", "smt": "allow_smt"}[flag]
    check(on.policy(**{key: True}), evidence)
