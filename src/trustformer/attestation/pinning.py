# SPDX-License-Identifier: Apache-2.0
"""What a policy takes of a signed release, and how it knows an older one again.

A comment line of the policy names the newest release that was pinned of each publisher: whoever hands out an older
one may want its faults back. Lines that a release does not change stay as a person wrote them.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from trustformer.attestation.files import read_bounded, write_atomic
from trustformer.attestation.parsing import show_time
from trustformer.attestation.policy_file import (
    MAX_POLICY_BYTES,
    PolicyFile,
    make_policy_file,
    parse_policy,
    set_keys,
)
from trustformer.attestation.release import MAX_RELEASE_BYTES, Release, fingerprint, publisher_key, verify_release
from trustformer.errors import ConfigError

PIN_AHEAD_SECONDS = 86_400
"""A release may be so far in the future of the clock of whoever pins it."""

_LINE = "# release {0.version} of {0.time}, publisher {1}, sha256 {0.digest}\n"
_READ = re.compile(  # before releases had a time to the second: a date, and no digest
    r"# release (\S+) of ([0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)?), publisher ([0-9a-f]{64})"
    r"(?:, sha256 ([0-9a-f]{64}))?"
)


_File = Literal["made", "written", "unchanged"]
_TAKEN = ("mrenclave", "min_isv_svn", "advisories", "min_tcb_evaluation_data_number")


class _Mark(NamedTuple):
    """A release as a policy remembers it; `digest` is the SHA-256 of what its publisher signed."""

    version: str
    time: str
    digest: str


@dataclass(frozen=True)
class Pinned:
    """What `pin` did, and what a reader compares by hand.

    Attributes:
        release: that was pinned.
        publisher: its 32-byte key.
        old, policy: the policy's keys before and now; before a policy was made they are the defaults.
        dropped: comments that stood in or beside values that were replaced.
        file: what became of the policy's file.
    """

    release: Release
    publisher: bytes
    old: PolicyFile
    policy: PolicyFile
    dropped: tuple[str, ...]
    file: _File

    @property
    def added(self) -> tuple[str, ...]:
        """Measurements that the policy did not list before."""
        return tuple(one for one in self.release.mrenclave if one not in (self.old.mrenclave or ()))

    @property
    def removed(self) -> tuple[str, ...]:
        """Measurements that it does not list any more."""
        return tuple(one for one in self.old.mrenclave or () if one not in self.release.mrenclave)

    @property
    def accepted(self) -> tuple[str, ...]:
        """Advisories that it did not list before."""
        return tuple(one for one in self.policy.advisories if one not in self.old.advisories)


def pin(policy_path: Path, release_path: Path, publisher: bytes, *, now: int, older: bool = False) -> Pinned:
    """Verify a release and merge it into a policy file, which is made if absent.

    The release's measurements replace the policy's, so that a withdrawn one goes away; minimums are raised,
    never lowered; accepted advisories are added; everything else stays. The same release again changes nothing.

    Args:
        policy_path: the policy; where it is a link, the file it leads to is written.
        release_path: the release.
        publisher: as `known` of `publisher_key`.
        now: seconds since 1970, by the clock of whoever pins.
        older: take a release that is not newer than the newest of its publisher, which the policy goes on to remember.

    Raises:
        BadSignature, MessageError, ConfigError: as of `verify_release`; a release of the future, or one that is not
            newer; a policy that cannot be read, or whose lines are not its keys. The policy is unchanged.
    """
    data = read_bounded(release_path, MAX_RELEASE_BYTES, "the release")
    publisher = publisher_key(data, publisher)
    release = verify_release(data, publisher)
    release.check_not_after(now, PIN_AHEAD_SECONDS)
    path, where, who = Path(os.path.realpath(policy_path)), str(policy_path), fingerprint(publisher)
    there = path.exists()
    before = read_bounded(path, MAX_POLICY_BYTES, "the policy") if there else b""
    old = parse_policy(before, where) if there else PolicyFile()
    found = _Mark(release.version, release.time, hashlib.sha256(release.to_sign()).hexdigest())
    mark = _remembered(before.decode(), where).get(who)
    if mark and not older:
        _check_newer(found, mark, where, now)
    policy = _merge(old, release, where)
    changed = {name: getattr(policy, name) for name in _TAKEN if getattr(policy, name) != getattr(old, name)}
    text, dropped = set_keys(before.decode(), changed)
    if mark is None or (mark != found and mark.time <= found.time):
        text = _remember(text, who, found)
    after = text.encode()
    if not _says(after, policy):
        hint = f"write each key on a line of its own, all in at most {MAX_POLICY_BYTES} bytes"
        raise ConfigError(f"{where}: the release cannot be put into the policy's text", hint)
    if after != before:
        write_atomic(path, after)
    file: _File = "made" if not there else "written" if after != before else "unchanged"
    return Pinned(release, publisher, old, policy, dropped, file)


def _says(text: bytes, policy: PolicyFile) -> bool:
    """Whether this is what a reader of the text gets."""
    try:
        return parse_policy(text, "the text") == policy
    except ConfigError:
        return False


def _merge(old: PolicyFile, release: Release, where: str) -> PolicyFile:
    least = "min_tcb_evaluation_data_number"
    taken = {
        "mrenclave": release.mrenclave,
        "min_isv_svn": max(old.min_isv_svn or 0, release.min_isv_svn),
        "advisories": tuple(dict.fromkeys([*old.advisories, *release.advisories])),
        least: max(old.min_tcb_evaluation_data_number or 0, release.min_tcb_evaluation_data_number),
    }
    return make_policy_file(msgspec.structs.asdict(old) | taken, where)


def _remembered(text: str, where: str) -> dict[str, _Mark]:
    """The newest release of each publisher, by fingerprint; a line that only looks like one is refused."""
    marks: dict[str, _Mark] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if read := _READ.fullmatch(line.strip()):
            mark = _Mark(read[1], read[2], read[4] or "")
            marks[read[3]] = max(marks.get(read[3], mark), mark, key=lambda one: one.time)
        elif re.match(r"\s*# release .*, publisher ", line):
            raise ConfigError(
                f"{where}: line {number} does not name a release as `attest pin` writes it",
                "restore it, or an older release of that publisher passes; a comment of your own must begin otherwise",
            )
    return marks


def _check_newer(found: _Mark, mark: _Mark, where: str, now: int) -> None:
    if found == mark or found.time > mark.time:
        return
    hint = "get the newest release; --older takes this one all the same"
    if mark.time > show_time(now + PIN_AHEAD_SECONDS):
        hint = "that time is in the future: if the clock of this machine is right, delete the policy's line about it"
    how = "older than" if found.time < mark.time else "of the same second as, and differs from,"
    raise ConfigError(
        f"release {found.version} of {found.time} is {how} {mark.version} of {mark.time} in {where}", hint
    )


def _remember(text: str, publisher: str, mark: _Mark) -> str:
    """Return the text with a line about this release, as the first, in place of those about the publisher's others."""
    lines = [(line, _READ.fullmatch(line.strip())) for line in text.split("\n")]
    kept = [line for line, read in lines if not (read and read[3] == publisher)]
    return _LINE.format(mark, publisher) + "\n".join(kept)
