# SPDX-License-Identifier: Apache-2.0
"""Reference values: a release file by which a publisher says which measurements are its program.

A measurement is worth what the reader knows about it. The signature moves that to one key; the key's
fingerprint, and the measurements if the reader can rebuild them, are compared by hand.
The signature covers canonical fields, not the JSON text they travel in.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import msgspec

from trustformer.attestation.errors import BadSignature
from trustformer.attestation.files import read_bounded, write_atomic
from trustformer.attestation.parsing import Malformed, strict_json
from trustformer.attestation.policy_file import PolicyFile, make_policy_file, read_policy_file
from trustformer.errors import ConfigError, MessageError, SealError
from trustformer.message import enc
from trustformer.secure.identity import Identity, verify

LABEL = "tfl/1 release"
MAX_RELEASE_BYTES = 64 * 1024
HEX32 = re.compile(r"[0-9a-f]{64}")
HEX64 = re.compile(r"[0-9a-f]{128}")
_HEAD = "# release {0.version} of {0.date}, publisher {1}\n"


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a publisher vouches for.

    Attributes:
        version: of the program, as text.
        date: of the release, YYYY-MM-DD.
        mrenclave: measurements of its builds, 64 lower-case hex digits each.
        min_isv_svn: least security version.
        advisories: advisories the program copes with.
        min_tcb_evaluation_data_number: how recent the collateral must be.
    """

    version: str
    date: str
    mrenclave: tuple[str, ...]
    min_isv_svn: int
    advisories: tuple[str, ...]
    min_tcb_evaluation_data_number: int

    def to_sign(self) -> bytes:
        """Bytes the publisher signs."""
        numbers = (self.min_isv_svn, self.min_tcb_evaluation_data_number)
        return enc(LABEL, self.version, self.date, enc(*self.mrenclave), enc(*self.advisories), *numbers)

    def check(self) -> None:
        """Refuse what a policy would refuse, and a version or date that would not fit on a comment line.

        Raises:
            ConfigError: names the field.
        """
        keys = {
            "mrenclave": self.mrenclave,
            "advisories": self.advisories,
            "min_isv_svn": self.min_isv_svn,
            "min_tcb_evaluation_data_number": self.min_tcb_evaluation_data_number,
        }
        make_policy_file(keys, "release")
        if not all(HEX32.fullmatch(one) for one in self.mrenclave):
            raise ConfigError("release: mrenclave is not in lower-case hexadecimal")
        if not re.fullmatch(r"[0-9A-Za-z.+-]{1,64}", self.version):
            raise ConfigError(f"release: version {self.version[:80]!r} is not one")
        try:
            if date.fromisoformat(self.date).isoformat() != self.date:
                raise ValueError
        except ValueError as error:
            raise ConfigError(f"release: date {self.date[:80]!r} is not YYYY-MM-DD") from error


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    release: Release
    publisher: str
    signature: str


@dataclass(frozen=True)
class Pinned:
    """What `pin` changed, and what a reader compares by hand."""

    release: Release
    key: str
    fingerprint: str
    added: tuple[str, ...]
    removed: tuple[str, ...]
    policy: PolicyFile


def fingerprint(public: bytes) -> str:
    """Return the SHA-256 of a publisher's 32-byte key, as 64 hex digits."""
    return hashlib.sha256(public).hexdigest()


def sign_release(release: Release, publisher: Identity) -> bytes:
    """Return the bytes of a release file.

    Raises:
        ConfigError: a value could not go into a policy.
    """
    release.check()
    signed = _Signed(release, publisher.public.hex(), publisher.sign(release.to_sign()).hex())
    return msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n"


def verify_release(data: bytes, publisher: bytes) -> Release:
    """Return a release signed by this publisher.

    Args:
        data: bytes of a release file.
        publisher: the 32-byte key the reader trusts; the one in the file is for information only.

    Raises:
        BadSignature: signed by another key, or changed since.
        MessageError: not a release file.
        ConfigError: a value in it could not go into a policy.
    """
    if len(data) > MAX_RELEASE_BYTES:
        raise MessageError(f"a release file has at most {MAX_RELEASE_BYTES} bytes")
    try:
        signed = msgspec.convert(strict_json(data, "the release file"), _Signed)
    except (Malformed, msgspec.ValidationError) as error:
        raise MessageError(f"not a release file: {str(error)[:200]}") from error
    if not HEX64.fullmatch(signed.signature) or not HEX32.fullmatch(signed.publisher):
        raise MessageError("the release file's key or signature is not in lower-case hexadecimal")
    signed.release.check()
    try:
        verify(publisher, bytes.fromhex(signed.signature), signed.release.to_sign(), "the release")
    except SealError as error:
        raise BadSignature(
            "the release is not signed by this publisher, or was changed",
            "compare the publisher's fingerprint with the one you know",
            got=f"a file of {fingerprint(bytes.fromhex(signed.publisher))}",
            expected=f"a signature of {fingerprint(publisher)}",
        ) from error
    return signed.release


def pin(policy_path: Path, release_path: Path, publisher: bytes, *, older: bool = False) -> Pinned:
    """Verify a release and merge it into a policy file, which is made if absent.

    The release's measurements replace the policy's, so that a withdrawn one goes away; minimums are raised,
    never lowered; accepted advisories are added; everything else stays. Comments of the file are not kept.

    Args:
        policy_path: the policy.
        release_path: the release.
        publisher: as of `verify_release`.
        older: take a release that is older than the one the policy names, too.

    Raises:
        BadSignature, MessageError, ConfigError: as of `verify_release`, or an older release; the policy is unchanged.
    """
    release = verify_release(read_bounded(release_path, MAX_RELEASE_BYTES, "the release"), publisher)
    old = read_policy_file(policy_path) if policy_path.exists() else None
    if old and not older:
        _check_age(policy_path, release, publisher)
    keys = msgspec.structs.asdict(old) if old else {}
    before = tuple(keys.get("mrenclave") or ())
    least = "min_tcb_evaluation_data_number"
    merged = make_policy_file(
        keys
        | {
            "mrenclave": release.mrenclave,
            "advisories": tuple(dict.fromkeys([*keys.get("advisories", ()), *release.advisories])),
            "min_isv_svn": max(keys.get("min_isv_svn") or 0, release.min_isv_svn),
            least: max(keys.get(least) or 0, release.min_tcb_evaluation_data_number),
        },
        str(policy_path),
    )
    head = _HEAD.format(release, fingerprint(publisher))
    write_atomic(policy_path, (head + merged.to_toml()).encode())
    return Pinned(
        release=release,
        key=publisher.hex(),
        fingerprint=fingerprint(publisher),
        added=tuple(one for one in release.mrenclave if one not in before),
        removed=tuple(one for one in before if one not in release.mrenclave),
        policy=merged,
    )


def _check_age(policy_path: Path, release: Release, publisher: bytes) -> None:
    """Refuse a release older than the last one of its publisher: whoever hands it out may want its faults back."""
    first = policy_path.read_text("utf-8").partition("\n")[0]
    pinned = re.fullmatch(r"# release (\S+) of (\d{4}-\d\d-\d\d), publisher ([0-9a-f]{64})", first)
    if pinned and pinned[3] == fingerprint(publisher) and release.date < pinned[2]:
        raise ConfigError(
            f"release {release.version} of {release.date} is older than {pinned[1]} of {pinned[2]} in {policy_path}",
            "get the newest release; --older takes it all the same",
        )
