# SPDX-License-Identifier: Apache-2.0
"""Signed releases: what a publisher vouches for, and how it becomes part of a policy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from trustformer.attestation.errors import BadSignature
from trustformer.attestation.policy_file import read_policy_file
from trustformer.attestation.release import Release, pin, sign_release, verify_release
from trustformer.errors import ConfigError, MessageError, TrustformerError
from trustformer.secure.identity import Identity

NEW, OLD = "ab" * 32, "cd" * 32
RELEASE = Release(
    version="1.4.0",
    date="2026-05-01",
    mrenclave=(NEW,),
    min_isv_svn=4,
    advisories=("INTEL-SA-00615",),
    min_tcb_evaluation_data_number=17,
)


@pytest.fixture(scope="module")
def publisher() -> Identity:
    return Identity.generate()


def test_round_trip(publisher: Identity) -> None:
    assert verify_release(sign_release(RELEASE, publisher), publisher.public) == RELEASE


def test_another_key_or_a_changed_field_is_refused(publisher: Identity) -> None:
    data = sign_release(RELEASE, publisher)
    with pytest.raises(BadSignature, match="not signed by this publisher"):
        verify_release(data, Identity.generate().public)
    for name, value in {
        "version": "1.4.1",
        "date": "2026-05-02",
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
    one = msgspec.structs.replace(RELEASE, version="1", date="2026-05-01")
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
    good = json.loads(sign_release(RELEASE, publisher))
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
        {"date": "yesterday"},
        {"date": "20260501"},
        {"min_isv_svn": -1},
        {"advisories": ("a b",)},
    ],
)
def test_values_that_a_policy_could_not_hold(publisher: Identity, field: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        sign_release(msgspec.structs.replace(RELEASE, **field), publisher)


def test_pin_makes_a_policy(publisher: Identity, tmp_path: Path) -> None:
    (tmp_path / "release.json").write_bytes(sign_release(RELEASE, publisher))
    pinned = pin(tmp_path / "policy.toml", tmp_path / "release.json", publisher.public)
    policy = read_policy_file(tmp_path / "policy.toml")
    assert policy == pinned.policy
    assert (policy.mrenclave, policy.min_isv_svn, policy.advisories) == ((NEW,), 4, ("INTEL-SA-00615",))
    assert policy.min_tcb_evaluation_data_number == 17
    assert not policy.allow_simulated


def test_pin_replaces_measurements_and_never_lowers_a_minimum(publisher: Identity, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        f'mrenclave = ["{OLD}"]\nmin_isv_svn = 9\nadvisories = ["INTEL-SA-00289"]\n'
        'tcb_status = ["UpToDate", "SWHardeningNeeded"]\nppid = ["d04ec06d4e6d92dc90d0ad3cf5ee2ddf"]\n'
    )
    (tmp_path / "release.json").write_bytes(sign_release(RELEASE, publisher))
    pinned = pin(path, tmp_path / "release.json", publisher.public)
    policy = read_policy_file(path)
    assert (pinned.added, pinned.removed) == ((NEW,), (OLD,))
    assert (policy.mrenclave, policy.min_isv_svn) == ((NEW,), 9)
    assert policy.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")
    assert policy.tcb_status == ("UpToDate", "SWHardeningNeeded")
    assert policy.ppid == ("d04ec06d4e6d92dc90d0ad3cf5ee2ddf",)


def test_an_older_release_is_refused_unless_it_is_asked_for(
    publisher: Identity, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    policy, key = tmp_path / "policy.toml", publisher.public.hex()
    releases = {}
    for name, date, mrenclave in (("new", "2026-05-01", NEW), ("old", "2026-04-30", OLD)):
        releases[name] = tmp_path / f"{name}.json"
        made = msgspec.structs.replace(RELEASE, date=date, mrenclave=(mrenclave,))
        releases[name].write_bytes(sign_release(made, publisher))
    files = {name: ("--policy", policy, "--release", path, "--publisher", key) for name, path in releases.items()}
    assert cli("pin", *files["new"]).code == 0
    refused = cli("pin", *files["old"])
    assert (refused.code, type(refused.error)) == (2, ConfigError)
    assert read_policy_file(policy).mrenclave == (NEW,)
    assert cli("pin", *files["new"]).code == 0  # the same again
    assert cli("pin", *files["old"], "--older").code == 0
    assert read_policy_file(policy).mrenclave == (OLD,)


def test_a_refused_release_leaves_the_policy_alone(publisher: Identity, tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(f'mrenclave = ["{OLD}"]\n')
    (tmp_path / "release.json").write_bytes(sign_release(RELEASE, Identity.generate()))
    for file in ("release.json", "none.json"):
        with pytest.raises(TrustformerError):
            pin(path, tmp_path / file, publisher.public)
    assert path.read_text() == f'mrenclave = ["{OLD}"]\n'


def test_the_verb_prints_what_to_compare_in_full(publisher: Identity, tmp_path: Path, cli: Callable[..., Any]) -> None:
    (tmp_path / "release.json").write_bytes(sign_release(RELEASE, publisher))
    (tmp_path / "key.hex").write_text(publisher.public.hex() + "\n")
    (tmp_path / "key.raw").write_bytes(publisher.public)
    for key in (publisher.public.hex(), tmp_path / "key.hex", tmp_path / "key.raw"):
        files = ("--policy", tmp_path / "policy.toml", "--release", tmp_path / "release.json")
        outcome = cli("pin", *files, "--publisher", key)
        assert outcome.code == 0
        for text in (NEW, publisher.public.hex(), hashlib.sha256(publisher.public).hexdigest(), "2026-05-01"):
            assert text in outcome.out
    bad = cli("pin", *files, "--publisher", "zz")
    assert (bad.code, type(bad.error)) == (2, ConfigError)
    assert cli("pin", *files, "--publisher", "00" * 32).code == 3


def test_a_release_signed_by_the_verb_is_what_another_pins(tmp_path: Path, cli: Callable[..., Any]) -> None:
    key, release, policy = (tmp_path / name for name in ("publisher.key", "release.json", "policy.toml"))
    signed = cli(
        *("sign", "--key", key, "--version", "1.4.0", "--date", "2026-05-01", "--out", release),
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
        ("--mrenclave", NEW, "--date", "May"),
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
