# SPDX-License-Identifier: Apache-2.0
"""What one Flower message carries: a kind, a few numbers, and bytes that only client and enclave understand.

    host -> client    take part (in a round) | finish | answer | error
    client -> host    hello | upload | sync | common | sponsor | done | failed | busy

Flower hands a client messages and takes one reply to each, so the conversation runs backwards: a client's reply is its
next request, and the host's next message the answer to it.
"""

from __future__ import annotations

from dataclasses import dataclass

from flwr.app import ConfigRecord, RecordDict

from trustformer.errors import MessageError

CHUNK = 4 * 2**20
"""Bytes of one Flower object: one HTTP request each, and small enough for its timeout of 30 s on a slow line."""
MAX_CHUNKS = 2**14
MAX_ANSWER = 2**32 - 1
"""Bytes of the longest field there is: bounds what the run's terms do not, such as the dense common model."""
_MAX_TEXT = 128
_FIELDS = {"kind": str, "round": int, "call": int, "after": int, "note": str}


@dataclass(frozen=True)
class Parcel:
    """One message of either direction.

    Attributes:
        kind: one of those above.
        round: of `take part`; of everything a client sends: the last round it has trained for.
        call: number of the request that this is or answers, or whose answer a `busy` client waits for; else 0.
        after: of `sync`: the last round the client holds.
        note: a word about it: a receipt's status, the class of an error, `manifests` for a sync without aggregates.
        body: opaque.
    """

    kind: str
    round: int = 0
    call: int = 0
    after: int = 0
    note: str = ""
    body: bytes = b""

    def to_record(self) -> RecordDict:
        """Pack for Flower: one record with the body's first chunk, and one for each further chunk."""
        body = memoryview(self.body)
        records = {"parcel": ConfigRecord({name: getattr(self, name) for name in _FIELDS})}
        records["parcel"]["body"] = bytes(body[:CHUNK])
        for number, start in enumerate(range(CHUNK, len(body), CHUNK), 1):
            records[f"body {number}"] = ConfigRecord({"body": bytes(body[start : start + CHUNK])})
        return RecordDict(records)

    @classmethod
    def from_record(cls, records: RecordDict, limit: int = MAX_CHUNKS * CHUNK) -> Parcel:
        """Unpack; raises `MessageError` for anything that `to_record` does not make, or a body beyond `limit` bytes."""
        if len(records) > MAX_CHUNKS:
            raise MessageError(f"parcel: {len(records)} chunks where {MAX_CHUNKS} are allowed")
        try:
            fields = dict(records.config_records["parcel"])
            further = [records.config_records[f"body {number}"]["body"] for number in range(1, len(records))]
        except KeyError as error:
            raise MessageError(f"parcel: {error} is missing") from None
        chunks = [fields.pop("body", None), *further]
        if fields.keys() != _FIELDS.keys() or any(type(fields[name]) is not kind for name, kind in _FIELDS.items()):
            raise MessageError("parcel: its fields are not those of a parcel")
        if any(len(fields[name]) > _MAX_TEXT for name, kind in _FIELDS.items() if kind is str):
            raise MessageError(f"parcel: a text of more than {_MAX_TEXT} characters")
        body = [chunk for chunk in chunks if isinstance(chunk, bytes)]
        if len(body) < len(chunks):
            raise MessageError("parcel: its body is not bytes")
        longest, length = max(map(len, body)), sum(map(len, body))
        if longest > CHUNK:
            raise MessageError(f"parcel: a chunk of {longest} bytes where {CHUNK} are allowed")
        if length > limit:
            raise MessageError(f"parcel: a body of {length} bytes where {limit} are allowed")
        numbers = (fields[name] for name, kind in _FIELDS.items() if kind is int)
        if not all(0 <= number < 2**62 for number in numbers):
            raise MessageError("parcel: a number out of range")
        return cls(**fields, body=b"".join(body))
