# SPDX-License-Identifier: Apache-2.0
"""What clients kept of an enclave: the quotes they appraised and its receipts, read again by a third party.

The clients of a run on one machine keep theirs together in the run's directory; in a deployment each has its own.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec

from trustformer.attestation.files import read_bounded
from trustformer.attestation.handshake import VerificationRecord, reappraise
from trustformer.attestation.policy import Policy
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import Receipt, Welcome, split_signed
from trustformer.errors import ConfigError, DataError, TrustformerError
from trustformer.secure.identity import verify

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on foreign JSON; the last where it is nested too deeply."""
_LONGEST = 2**28
"""Bytes of the longest file of records or receipts that is read: thousands of quotes, a million receipts."""
_LONGEST_TERMS = 2**24


@dataclass(frozen=True)
class Witness:
    """Who kept quotes and receipts, and by which policy.

    Attributes:
        folder: holds `attestation.json`, `welcomes.jsonl` and `receipts.jsonl`.
        terms: the terms agreed to.
        policy: file that says which enclaves were let read updates.
        client: of a deployment, whose folder it is; None: all clients of a run on one machine.
    """

    folder: Path
    terms: Path
    policy: Path
    client: str | None = None

    def kept(self, name: str) -> bytes:
        """The bytes of one file; a client of a deployment that has none has nothing to show."""
        path = self.folder / name
        return b"" if self.client is not None and not path.exists() else read_file(path)


@dataclass
class Quotes:
    """What the records that passed vouch for.

    Attributes:
        keys: signing key by boot, hex.
        accepted: (client, boot) that a client accepted, hex.
        count: records accepted: a client that was started again has verified the same boot twice.
        changed: those of them that were made under another policy than the one they are judged by.
        problems: what speaks against the others.
    """

    keys: dict[str, str] = field(default_factory=dict)
    accepted: set[tuple[str, str]] = field(default_factory=set)
    count: int = 0
    changed: int = 0
    problems: list[str] = field(default_factory=list)

    def check(self, boot_id: bytes, signed: tuple[bytes, bytes], what: str) -> None:
        """Raise `SealError` if a message is not signed by an attested key of its boot."""
        body, signature = signed
        verify(bytes.fromhex(self.keys.get(boot_id.hex(), "")), signature, body, what)


class _Record(VerificationRecord, frozen=True, kw_only=True, forbid_unknown_fields=True):
    client: str


class _Records(msgspec.Struct, frozen=True):
    verifications: list[_Record]


class _Line(msgspec.Struct, frozen=True):
    client: str
    receipt: str = ""
    welcome: str = ""


Wired = TypeVar("Wired", Receipt, Welcome)


_AS_LEFT = "get the file as the run left it"


def read_file(path: Path, limit: int = _LONGEST) -> bytes:
    """Return the bytes of a file that an audit cannot do without; raises `ConfigError`, `DataError` if it is longer."""
    check_file(path)
    data = read_bounded(path, limit, "it: an audit needs every file as it was left")
    if len(data) > limit:
        raise DataError(f"{path} is longer than {limit:,} bytes", _AS_LEFT)
    return data


def check_file(path: Path) -> None:
    """Raise `ConfigError` for a pipe or a device, which has no end or waits for ever."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is no file", "an audit reads files alone")


def read_terms(path: Path) -> RunConfig:
    """Return the terms of a run; raises `ConfigError`, `DataError` naming the file."""
    data = read_file(path, _LONGEST_TERMS)
    try:
        return RunConfig.from_bytes(data)
    except TrustformerError as error:
        raise DataError(f"{path}: {error.message}", "get the file the clients agreed to") from None


def quotes_of(witnesses: Sequence[Witness], terms: RunConfig, policies: Sequence[Policy]) -> Quotes:
    """Appraise every record again, as of its time, each witness's by the policy in its place.

    Raises:
        ConfigError, DataError: a file that cannot be read, or is damaged as a whole; names it.
    """
    quotes = Quotes()
    for witness, policy in zip(witnesses, policies, strict=True):
        for record in _records(witness):
            if record.client not in {client for client, _ in terms.roster}:
                quotes.problems.append(f"{witness.folder} has a record of no client of the roster")
            elif witness.client not in (None, record.client):
                quotes.problems.append(f"{witness.folder} has a record of client {record.client}")
            else:
                _appraise(record, policy, terms, quotes)
    return quotes


def _records(witness: Witness) -> list[_Record]:
    data = witness.kept("attestation.json")
    if witness.client is not None and not data:
        return []
    try:
        return msgspec.json.decode(data, type=_Records).verifications
    except _UNREADABLE as error:
        path = witness.folder / "attestation.json"
        raise DataError(f"{path} does not hold verification records: {str(error)[:200]}", _AS_LEFT) from None


def _appraise(record: _Record, policy: Policy, terms: RunConfig, quotes: Quotes) -> None:
    client, binding = record.client, record.binding or {}
    expected = {"run_id": terms.run_id.hex(), "cfg": terms.digest.hex(), "client_id": client}
    changed = record.policy != policy.digest.hex()
    if record.kind != terms.provider:
        quotes.problems.append(f"client {client} has evidence of another provider than {terms.provider}, as agreed")
        return
    try:
        reappraise(msgspec.structs.replace(record, policy=policy.digest.hex()), policy)
    except TrustformerError as error:
        if record.decision == "accepted":
            quotes.problems.append(f"client {client} accepted evidence that does not verify: {error.message}")
        return
    if any(binding.get(key) != value for key, value in expected.items()):
        quotes.problems.append(f"a quote for client {client} is bound to another run, config or client")
    elif quotes.keys.setdefault(binding["boot_id"], binding["vk_e"]) != binding["vk_e"]:
        quotes.problems.append(f"two signing keys for the boot {binding['boot_id']}")
    elif record.decision == "accepted":
        quotes.accepted.add((client, binding["boot_id"]))
        quotes.count += 1
        quotes.changed += changed


def signed_lines(
    witnesses: Sequence[Witness], quotes: Quotes, kind: type[Wired], problems: list[str]
) -> Iterator[tuple[str, Wired]]:
    """Yield who kept it and every receipt or welcome by an attested key; say what is wrong with the other lines.

    A last line without its end is that of a process that was killed and counts for nothing.

    Raises:
        ConfigError, DataError: a file that cannot be read.
    """
    name = kind.__name__.lower()
    for witness in witnesses:
        path = witness.folder / f"{name}s.jsonl"
        for number, line in enumerate(witness.kept(path.name).split(b"\n")[:-1], 1):
            where = f"{path.name if witness.client is None else path}, line {number},"
            try:
                entry = msgspec.json.decode(line, type=_Line)
                body, signature = split_signed(base64.b64decode(getattr(entry, name)), name)
                message = kind.from_bytes(body)
                quotes.check(message.boot_id, (body, signature), name)
            except (TrustformerError, ValueError, *_UNREADABLE) as error:
                problems.append(f"{where} is not by an attested key or damaged: {str(error)[:200]}")
                continue
            whose = message.client_id if isinstance(message, Receipt) else entry.client
            if witness.client not in (None, whose):
                problems.append(f"{where} is another client's")
                continue
            yield whose, message
