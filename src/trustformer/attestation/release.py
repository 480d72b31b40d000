# SPDX-License-Identifier: Apache-2.0
"""Reference values: a release file by which a publisher says which measurements are its program.

A measurement is worth what the reader knows about it. The signature moves that to one key; the key's
fingerprint, and the measurements if the reader can rebuild them, are compared by hand.
The signature covers canonical fields, not the JSON text they travel in.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

import msgspec

from trustformer.attestation.errors import BadSignature
from trustformer.attestation.parsing import Malformed, show_time, strict_json
from trustformer.attestation.policy_file import make_policy_file
from trustformer.errors import ConfigError, MessageError, SealError
from trustformer.foreign import shown
from trustformer.message import enc
from trustformer.secure.identity import Identity, verify

LABEL = "tfl/1 release"
MAX_RELEASE_BYTES = 64 * 1024
HEX32 = re.compile(r"[0-9a-f]{64}")
HEX64 = re.compile(r"[0-9a-f]{128}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")  # such texts are ordered as their times
SIGN_AHEAD_SECONDS = 300
"""A time given to `sign_release` may be so far in the future: clocks differ."""


class Release(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a publisher vouches for.

    Attributes:
        version: of the program, as text.
        time: of the release, in UTC to the second, as 2026-05-01T12:00:00Z; of two releases of one publisher the later
            one is the newer one.
        mrenclave: measurements of its builds, 64 lower-case hex digits each.
        min_isv_svn: least security version.
        advisories: advisories the program copes with.
        min_tcb_evaluation_data_number: how recent the collateral must be.
    """

    version: str
    time: str
    mrenclave: tuple[str, ...]
    min_isv_svn: int
    advisories: tuple[str, ...]
    min_tcb_evaluation_data_number: int

    def to_sign(self) -> bytes:
        """Bytes the publisher signs."""
        numbers = (self.min_isv_svn, self.min_tcb_evaluation_data_number)
        return enc(LABEL, self.version, self.time, enc(*self.mrenclave), enc(*self.advisories), *numbers)

    def check(self) -> None:
        """Refuse what a policy would refuse, and a version or time that would not fit on a comment line.

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
            if not TIME.fullmatch(self.time):
                raise ValueError
            datetime.fromisoformat(self.time)
        except ValueError as error:
            raise ConfigError(
                f"release: the time {self.time[:80]!r} is not one", "write it in UTC, as 2026-05-01T12:00:00Z"
            ) from error

    def check_not_after(self, now: int, ahead: int) -> None:
        """Refuse a release of the future, beside which every proper one would be older for as long.

        Args:
            now: seconds since 1970, by this machine's clock.
            ahead: seconds that clocks may differ by.

        Raises:
            ConfigError: names both times.
        """
        if self.time > show_time(now + ahead):
            raise ConfigError(
                f"release {self.version} is of {self.time}, and the time is {show_time(now)}",
                "a release is not of the future; check the clock of this machine, and that of the publisher",
            )


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    release: Release
    publisher: str
    signature: str


def fingerprint(public: bytes) -> str:
    """Return the SHA-256 of a publisher's 32-byte key, as 64 hex digits."""
    return hashlib.sha256(public).hexdigest()


def sign_release(release: Release, publisher: Identity, *, now: int) -> bytes:
    """Return the bytes of a release file; `now`: seconds since 1970.

    Raises:
        ConfigError: a value could not go into a policy, or the time is in the future.
    """
    release.check()
    release.check_not_after(now, SIGN_AHEAD_SECONDS)
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
    signed = _read(data)
    signed.release.check()
    try:
        verify(publisher, bytes.fromhex(signed.signature), signed.release.to_sign(), "the release")
    except SealError as error:
        raise BadSignature(
            "the release is not signed by this publisher, or was changed",
            "compare the publisher's fingerprint with the one you know",
            got=f"a file of the key {signed.publisher}, fingerprint {fingerprint(bytes.fromhex(signed.publisher))}",
            expected=f"a signature of the publisher known by {publisher.hex()}",
        ) from error
    return signed.release


def publisher_key(data: bytes, known: bytes) -> bytes:
    """Return the 32-byte key to verify a release with.

    Args:
        data: bytes of a release file.
        known: what the reader has of the publisher: its 32-byte key, or the 32 bytes of that key's fingerprint. Only
            where the fingerprint of the key in the file is `known`, that key is returned.

    Raises:
        MessageError: not a release file.
    """
    key = bytes.fromhex(_read(data).publisher)
    return key if bytes.fromhex(fingerprint(key)) == known else known


def _read(data: bytes) -> _Signed:
    if len(data) > MAX_RELEASE_BYTES:
        raise MessageError(f"a release file has at most {MAX_RELEASE_BYTES} bytes")
    try:
        signed = msgspec.convert(strict_json(data, "the release file"), _Signed)
    except (Malformed, msgspec.ValidationError) as error:
        hint = "releases signed before they had a time to the second must be signed again"
        raise MessageError(f"not a release file: {shown(str(error), 200)}", hint) from error
    if not HEX64.fullmatch(signed.signature) or not HEX32.fullmatch(signed.publisher):
        raise MessageError("the release file's key or signature is not in lower-case hexadecimal")
    return signed
