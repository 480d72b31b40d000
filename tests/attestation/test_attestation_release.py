# SPDX-License-Identifier: Apache-2.0
"""Signed releases: what a publisher vouches for, and by which key."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trustformer.attestation.errors import BadSignature
from trustformer.attestation.parsing import show_time
from trustformer.attestation.policy_file import read_policy_file
from trustformer.attestation.release import Release, sign_release, verify_release
from trustformer.errors import ConfigError, MessageError, TrustformerError
from trustformer.secure.identity import Identity

NEW, OLD = "ab" * 32, "cd" * 32
NOW = 1_746_100_800  # 2025-05-01T12:00:00Z
RELEASE = Release(
    version="1.4.0",
    time="2025-05-01T12:00:00Z",
    mrenclave=(NEW,),
    min_isv_svn=4,
    advisories=("INTEL-SA-00615",),
    min_tcb_evaluation_data_number=17,
)


@pytest.fixture(scope="module")
def publisher() -> Identity:
    return Identity.generate()


def test_round_trip(publisher: Identity) -> None:
    assert verify_release(sign_release(RELEASE, publisher, now=NOW), publisher.public) == RELEASE


def test_another_key_or_a_changed_field_is_refused(publisher: Identity) -> None:
    data = sign_release(RELEASE, publisher, now=NOW)
    with pytest.raises(BadSignature, match="not signed by this publisher"):
        verify_release(data, Identity.generate().public)
    for name, value in {
        "version": "1.4.1",
        "time": "2025-05-01T12:00:01Z",
        "mrenclave": [OLD],
        "min_isv_svn": 3,
        "advisories": [],
        "min_tcb_evaluation_data_number": 16,
    }.items():
        changed = json.loads(data)
        changed["release"][name] = value
        with pytest.raises(BadSignature):
            verify_release(json.dumps(changed).encode(), publisher.public)


def test_fields_cannot_move_between_lists(publisher: Identity) -> None:
    one = msgspec.structs.replace(RELEASE, version="1", time="2025-05-01T12:00:00Z")
    assert one.to_sign() != msgspec.structs.replace(one, mrenclave=(NEW, OLD)).to_sign()
    assert one.to_sign() != msgspec.structs.replace(one, min_isv_svn=17, min_tcb_evaluation_data_number=4).to_sign()


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b'{"release":{}}', b"x" * 70_000, b'{"release":{},"release":{}}', b"\xff", b"[" * 9999],
)
def test_what_is_no_release_file(publisher: Identity, data: bytes) -> None:
    with pytest.raises(MessageError):
        verify_release(data, publisher.public)


def test_signature_of_another_form(publisher: Identity) -> None:
    good = json.loads(sign_release(RELEASE, publisher, now=NOW))
    for field in ({"signature": "zz"}, {"signature": good["signature"][2:]}, {"publisher": "00"}, {"extra": 1}):
        with pytest.raises(MessageError):
            verify_release(json.dumps(good | field).encode(), publisher.public)


@pytest.mark.parametrize(
    "field",
    [
        {"mrenclave": ()},
        {"mrenclave": ("ab",)},
        {"mrenclave": (NEW.upper(),)},
        {"version": "1\n# x"},
        {"version": ""},
        {"time": "yesterday"},
        {"time": "2025-05-01"},
        {"time": "2025-05-01T12:00:00"},
        {"time": "2025-05-01T12:00:00+00:00"},
        {"time": "2025-05-01t12:00:00z"},
        {"time": "2025-02-29T12:00:00Z"},
        {"time": "2025-05-01T12:00:60Z"},
        {"time": "0000-05-01T12:00:00Z"},
        {"time": "٢٠٢٥-05-01T12:00:00Z"},
        {"min_isv_svn": -1},
        {"advisories": ("a b",)},
    ],
)
def test_values_that_a_policy_could_not_hold(publisher: Identity, field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        sign_release(msgspec.structs.replace(RELEASE, **field), publisher, now=NOW)


@pytest.mark.parametrize(("ahead", "taken"), [(300, True), (301, False)])
def test_a_time_in_the_future_is_signed_only_as_far_as_clocks_differ(
    publisher: Identity, ahead: int, taken: bool
) -> None:
    release = msgspec.structs.replace(RELEASE, time=show_time(NOW + ahead))
    if taken:
        assert verify_release(sign_release(release, publisher, now=NOW), publisher.public) == release
    else:
        with pytest.raises(ConfigError, match="the time is 2025-05-01T12:00:00Z"):
            sign_release(release, publisher, now=NOW)


def test_a_release_of_before_is_to_be_signed_again(publisher: Identity) -> None:
    old = json.loads(sign_release(RELEASE, publisher, now=NOW))
    old["release"]["date"] = old["release"].pop("time")[:10]
    with pytest.raises(MessageError, match="not a release file") as refused:
        verify_release(json.dumps(old).encode(), publisher.public)
    assert "signed again" in refused.value.hint


def test_a_release_file_cannot_write_lines_of_its_own(publisher: Identity) -> None:
    bad = {"release": {"x\n\x1b[2Jpolicy.toml: written": 1}}
    with pytest.raises(MessageError) as refused:
        verify_release(json.dumps(bad).encode(), publisher.public)
    assert refused.value.message.isprintable()


def test_a_release_signed_by_the_verb_is_what_another_pins(tmp_path: Path, cli: Callable[..., Any]) -> None:
    key, release, policy = (tmp_path / name for name in ("publisher.key", "release.json", "policy.toml"))
    signed = cli(
        *("sign", "--key", key, "--version", "1.4.0", "--time", RELEASE.time, "--out", release),
        *("--mrenclave", NEW.upper(), "--mrenclave", OLD, "--advisory", "INTEL-SA-00615", "--min-isv-svn", 4),
        *("--min-tcb-evaluation-data-number", 17),
    )
    assert signed.code == 0
    assert key.stat().st_mode & 0o777 == 0o600
    public = signed.out.split()[1]
    assert hashlib.sha256(bytes.fromhex(public)).hexdigest() in signed.out
    assert verify_release(release.read_bytes(), bytes.fromhex(public)) == msgspec.structs.replace(
        RELEASE, mrenclave=(NEW, OLD)
    )
    assert cli("pin", "--policy", policy, "--release", release, "--publisher", public).code == 0
    assert read_policy_file(policy).mrenclave == (NEW, OLD)


def test_sign_goes_on_with_its_key_and_writes_nothing_when_refused(tmp_path: Path, cli: Callable[..., Any]) -> None:
    key, release = tmp_path / "publisher.key", tmp_path / "release.json"
    for wrong in (
        ("--mrenclave", "zz"),
        ("--mrenclave", NEW, "--time", "May"),
        ("--mrenclave", NEW, "--time", ""),
        ("--mrenclave", NEW, "--time", show_time(int(time.time()) + 600)),
        ("--mrenclave", NEW, "--min-isv-svn", -1),
    ):
        refused = cli("sign", "--key", key, "--version", "1", "--out", release, *wrong)
        assert (refused.code, type(refused.error)) == (2, ConfigError)
        assert not list(tmp_path.iterdir())
    files = ("--key", key, "--version", "1", "--mrenclave", NEW, "--out", release)
    assert cli("sign", *files).out == cli("sign", *files).out
    key.write_bytes(b"short")
    assert isinstance(cli("sign", *files).error, TrustformerError)
    missing = cli("sign", *files[2:], "--key", tmp_path / "none" / "publisher.key")
    assert (missing.code, type(missing.error)) == (2, ConfigError)


def test_the_release_is_not_written_over_its_key(tmp_path: Path, cli: Callable[..., Any]) -> None:
    key, link = tmp_path / "publisher.key", tmp_path / "link"
    link.symlink_to(key)
    for there in (False, True):
        if there:
            Identity.generate().save(key)
        before = key.read_bytes() if there else None
        for out in (key, link, tmp_path / "." / "publisher.key"):
            refused = cli("sign", "--key", key, "--version", "1", "--mrenclave", NEW, "--out", out)
            assert (refused.code, type(refused.error)) == (2, ConfigError)
        assert (key.read_bytes() if key.exists() else None) == before
