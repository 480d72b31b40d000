# SPDX-License-Identifier: Apache-2.0
"""`trustformer attest sign` and `pin`: a publisher's release file, and what a client takes of it.

What this module needs is imported in the functions, so that `--help` stays fast.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustformer.errors import ConfigError
from trustformer.foreign import shown

if TYPE_CHECKING:
    from trustformer.secure.identity import Identity

MAX_KEY_BYTES = 128
PIN_EXAMPLES = """\
examples:
  trustformer attest pin --policy policy.toml --release release.json --publisher 3b6a27bc...

The release's measurements take the place of those in the policy; minimums are raised, never lowered, and advisories
added. Comments in or beside a value that is replaced go with it, and are printed; all other lines stay. Comment lines
of the policy name the newest release of each publisher: one that is not newer is refused, as is one of the future.
While an old enclave must still be accepted, pin a release that lists its measurement too.
"""
SIGN_EXAMPLES = """\
examples:
  trustformer attest sign --key publisher.key --version 1.4.0 --mrenclave 6efbe3e0... --min-isv-svn 3 \\
      --advisory INTEL-SA-00615 --min-tcb-evaluation-data-number 17 --out release.json
  trustformer attest sign --key publisher.key --version 1.4.1 --mrenclave NEW OLD --out both.json    while OLD runs

Prints the publisher's key and its fingerprint: give them to clients another way than the file. Use a key for one
program alone: clients take the later of two releases for the newer one.
"""


def add_verbs(verbs: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `sign` and `pin`; `verb(verbs, name, summary, examples)` makes a parser."""
    sign = verb(verbs, "sign", "sign a release: which measurements are your program", SIGN_EXAMPLES)
    sign.add_argument("--key", type=Path, required=True, metavar="FILE", help="your Ed25519 key; made if absent")
    sign.add_argument("--version", required=True, metavar="VERSION", help="version of the program")
    sign.add_argument(
        "--mrenclave", nargs="+", action="extend", required=True, metavar="HEX", help="measurements of its builds"
    )
    sign.add_argument("--min-isv-svn", type=int, default=0, metavar="N", help="least security version (0)")
    sign.add_argument(
        "--advisory", nargs="+", action="extend", default=[], metavar="ID", help="advisories the program copes with"
    )
    number = "--min-tcb-evaluation-data-number"
    sign.add_argument(number, type=int, default=0, metavar="N", help="how recent Intel's judgement must be (0)")
    sign.add_argument("--time", metavar="TIME", help="of the release, in UTC, such as 2026-05-01T12:00:00Z (now)")
    sign.add_argument("--out", type=Path, required=True, metavar="FILE", help="the release file")
    sign.set_defaults(run=run_sign)

    pin = verb(verbs, "pin", "merge a publisher's signed release into a policy", PIN_EXAMPLES)
    pin.add_argument("--policy", type=Path, required=True, metavar="FILE", help="made if absent")
    pin.add_argument("--release", type=Path, required=True, metavar="FILE", help="signed release file")
    pin.add_argument(
        "--publisher",
        required=True,
        metavar="KEY",
        help="its Ed25519 key or that key's fingerprint: 64 hex digits or a file",
    )
    pin.add_argument("--older", action="store_true", help="take a release that is not newer, too")
    pin.set_defaults(run=run_pin)


def run_sign(args: argparse.Namespace) -> int:
    """Write a signed release and print what clients compare by hand."""
    from trustformer.attestation.files import write_atomic
    from trustformer.attestation.parsing import show_time
    from trustformer.attestation.release import SIGN_AHEAD_SECONDS, Release, fingerprint, sign_release

    keep_apart(args.out, args.key, "--key")
    now = int(time.time())
    release = Release(
        version=args.version,
        time=show_time(now) if args.time is None else args.time,
        mrenclave=tuple(one.lower() for one in args.mrenclave),
        min_isv_svn=args.min_isv_svn,
        advisories=tuple(args.advisory),
        min_tcb_evaluation_data_number=args.min_tcb_evaluation_data_number,
    )
    release.check()
    release.check_not_after(now, SIGN_AHEAD_SECONDS)  # before a key is made
    publisher = _key(args.key)
    write_atomic(args.out, sign_release(release, publisher, now=now))
    print(f"publisher    {publisher.public.hex()}")
    print(f"fingerprint  {fingerprint(publisher.public)}  (SHA-256 of the key)")
    print(f"{shown(str(args.out), None)}: written", file=sys.stderr)
    return 0


def run_pin(args: argparse.Namespace) -> int:
    """Merge a verified release into a policy and print what to compare by hand, in full."""
    from trustformer.attestation.pinning import pin
    from trustformer.attestation.release import fingerprint

    known = _publisher(args.publisher)
    pinned = pin(args.policy, args.release, known, now=int(time.time()), older=args.older)
    release, policy, publisher = pinned.release, pinned.policy, pinned.publisher
    print(f"release      {release.version} of {release.time}")
    print(f"publisher    {publisher.hex()}")
    print(f"fingerprint  {fingerprint(publisher)}  (SHA-256 of the key)")
    for one in release.mrenclave:
        print(f"mrenclave    {one}{'  new' if one in pinned.added else ''}")
    for one in pinned.removed:
        print(f"removed      {one}")
    print(f"min_isv_svn  {policy.min_isv_svn}")
    print(f"min_tcb_evaluation_data_number  {policy.min_tcb_evaluation_data_number}")
    listed = [f"{one} (new)" if one in pinned.accepted else one for one in policy.advisories]
    print(f"advisories   {', '.join(listed) or 'none'}")
    for comment in pinned.dropped:
        print(f"comment that went with the former value: {shown(comment, None)}", file=sys.stderr)
    print(f"{shown(str(args.policy), None)}: {pinned.file}", file=sys.stderr)
    print("compare the fingerprint with one you got another way, and the measurements", file=sys.stderr)
    print("with your own build, before you rely on them", file=sys.stderr)
    return 0


def keep_apart(out: Path, given: Path, option: str) -> None:
    """Refuse to write over a file that was given to be read; raises `ConfigError`."""
    if os.path.realpath(out) == os.path.realpath(given):
        raise ConfigError(f"--out: {out} is the file of {option}", "name another file")


def _key(path: Path) -> Identity:
    """Read the publisher's key, or make one that its owner alone can read."""
    from trustformer.secure.identity import Identity

    if path.exists():
        return Identity.load(path)
    identity = Identity.generate()
    try:
        identity.save(path)
    except OSError as error:
        raise ConfigError(
            f"--key: {path} cannot be made: {error.strerror}", "name a file in a folder of yours"
        ) from None
    print(f"{shown(str(path), None)}: a new key; whoever has this file can publish in your name", file=sys.stderr)
    return identity


def _publisher(text: str) -> bytes:
    from trustformer.attestation.files import read_bounded

    try:
        digits = re.fullmatch(r"[0-9a-fA-F]{64}", text)
        data = text.encode() if digits else read_bounded(Path(text), MAX_KEY_BYTES, "the key")
        key = data if len(data) == 32 else bytes.fromhex(data.decode().strip())
        if len(key) != 32:
            raise ValueError
        return key
    except (ConfigError, ValueError) as error:
        hint = "give 64 hexadecimal digits, or a file with them or with the 32 bytes"
        raise ConfigError(
            f"--publisher: {text[:80]!r} is neither an Ed25519 public key nor a fingerprint of one", hint
        ) from error
