# SPDX-License-Identifier: Apache-2.0
"""What clients kept of an enclave: the quotes they appraised and its receipts, read again by a third party.

The clients of a run on one machine keep theirs together in the run's directory; in a deployment each has its own.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from trustformer.attestation.handshake import VerificationRecord, reappraise
from trustformer.attestation.policy import Policy
from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import Receipt, split_signed
from trustformer.errors import ConfigError, DataError, TrustformerError
from trustformer.secure.identity import verify

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises on foreign JSON; the last where it is nested too deeply."""


@dataclass(frozen=True)
class Witness:
    """Who kept quotes and receipts, and by which policy.

    Attributes:
        folder: holds `attestation.json`, `receipts.jsonl` and, of a run that was finished, `result.json`.
        terms: the terms agreed to.
        policy: file that says which enclaves were let read updates.
        client: of a deployment, whose folder it is; None: all clients of a run on one machine.
    """

    folder: Path
    terms: Path
    policy: Path
    client: str | None = None

    @property
    def finished(self) -> bool:
        """Whether the run was seen to its end."""
        return (self.folder / "result.json").is_file()


@dataclass
class Quotes:
    """What the records that passed vouch for: signing key by boot, and (client, boot) that a client accepted; hex.

    `count` is the number of records accepted: a client that was started again has verified the same boot twice.
    """

    keys: dict[str, str] = field(default_factory=dict)
    accepted: set[tuple[str, str]] = field(default_factory=set)
    count: int = 0
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
    receipt: str


def read_file(path: Path) -> bytes:
    """Return the bytes of a file that an audit cannot do without; raises `ConfigError`."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}", "an audit needs the whole directory as it was left"
        ) from None


def read_terms(path: Path) -> RunConfig:
    """Return the terms of a run; raises `ConfigError`, `DataError` naming the file."""
    try:
        return RunConfig.from_bytes(read_file(path))
    except ConfigError:
        raise
    except TrustformerError as error:
        raise DataError(f"{path}: {error.message}", "get the file the clients agreed to") from None


def quotes_of(witnesses: Sequence[Witness], terms: RunConfig, policy: Path | None) -> Quotes:
    """Appraise every record again, by the witness's own policy or by the auditor's.

    Raises:
        ConfigError, DataError: a file that is missing, or damaged as a whole; names it.
    """
    quotes = Quotes()
    for witness in witnesses:
        insisted = Policy.load(policy or witness.policy)
        for record in _records(witness.folder / "attestation.json"):
            if witness.client not in (None, record.client):
                quotes.problems.append(f"{witness.folder} holds a record of client {record.client}")
                continue
            if policy is not None:
                record = msgspec.structs.replace(record, policy=insisted.digest.hex())
            _appraise(record, insisted, terms, quotes)
    return quotes


def _records(path: Path) -> list[_Record]:
    try:
        return msgspec.json.decode(read_file(path), type=_Records).verifications
    except _UNREADABLE as error:
        raise DataError(
            f"{path} does not hold verification records: {str(error)[:200]}", "get the file as the run left it"
        ) from None


def _appraise(record: _Record, policy: Policy, terms: RunConfig, quotes: Quotes) -> None:
    client, binding = record.client, record.binding or {}
    expected = {"run_id": terms.run_id.hex(), "cfg": terms.digest.hex(), "client_id": client}
    try:
        reappraise(record, policy)
        terms.key_of(client)
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


def receipts_of(witnesses: Sequence[Witness], quotes: Quotes) -> tuple[list[Receipt], list[str]]:
    """Return receipts by attested keys, and what is wrong with all other lines; raises `ConfigError`."""
    receipts, problems = [], []
    for witness in witnesses:
        path = witness.folder / "receipts.jsonl"
        for number, line in enumerate(read_file(path).splitlines(), 1):
            try:
                entry = msgspec.json.decode(line, type=_Line)
                body, signature = split_signed(base64.b64decode(entry.receipt), "receipt")
                receipt = Receipt.from_bytes(body)
                quotes.check(receipt.boot_id, (body, signature), "receipt")
            except (TrustformerError, ValueError, *_UNREADABLE) as error:
                where = path.name if witness.client is None else path
                problems.append(f"{where}, line {number}, is not by an attested key or damaged: {str(error)[:200]}")
                continue
            receipts.append(receipt)
    return receipts, problems
