# SPDX-License-Identifier: Apache-2.0
"""The enclave's state between boots, encrypted to a key of this machine.

Under Gramine the key is the CPU's `_sgx_mrenclave` sealing key. With the simulated provider it is a plain file of
mode 0600: whoever reads that file reads the state. There is no protection against an older copy being put
back; clients notice that, since they hold the newest manifest hash.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from trustformer.errors import SealError
from trustformer.message import Reader, enc
from trustformer.secure.identity import write_secret
from trustformer.secure.sealing import KEY_SIZE, chunks_at_rest, decrypt_at_rest


@dataclass(frozen=True)
class Released:
    """What the last round gave: kept until the next, so that a host that crashed can ask again."""

    manifest: bytes
    aggregate: bytes


@dataclass(frozen=True)
class State:
    """Everything that outlives a boot.

    Attributes:
        round: last round closed, 0 for none.
        keys: (manifest hash, round key) of the newest rounds, the last entry being `round`.
        residual: s, fp32 tensors in the layout's order; empty for zero.
        released: the last round's manifest and sealed aggregate; None before the first.
    """

    round: int
    keys: tuple[tuple[bytes, bytes], ...]
    residual: bytes
    released: Released | None

    def to_bytes(self) -> bytes:
        """Canonical bytes (plaintext: to be encrypted)."""
        released = self.released or Released(b"", b"")
        keys = enc(*(part for entry in self.keys for part in entry))
        return enc("tfl/1 state", self.round, keys, self.residual, released.manifest, released.aggregate)

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        """Read what `to_bytes` wrote; raises `MessageError`."""
        reader = Reader(data, "state")
        reader.label("tfl/1 state")
        number, inner = reader.integer(), Reader(reader.raw(limit=2**28), "state")
        keys = []
        while inner.more():
            keys.append((inner.bytes32(), inner.bytes32()))
        residual, manifest, aggregate = (reader.raw(limit=2**32 - 1) for _ in range(3))
        reader.end()
        return cls(number, tuple(keys), residual, Released(manifest, aggregate) if manifest else None)


class StateStore:
    """One encrypted state file, replaced as a whole.

    Args:
        folder: where `state.sealed` and `sealing.key` lie.
        cfg: digest of the run's terms; a state of another run does not open.
    """

    def __init__(self, folder: Path, cfg: bytes) -> None:
        self._path = folder / "state.sealed"
        self._label = "tfl/1 state " + cfg.hex()
        key_path = folder / "sealing.key"
        folder.mkdir(parents=True, exist_ok=True)
        if not key_path.exists():
            write_secret(key_path, os.urandom(KEY_SIZE))
        self._key = key_path.read_bytes()
        if len(self._key) != KEY_SIZE:  # left by a crash while it was written: anyone could guess it
            raise SealError(f"{key_path} has {len(self._key)} bytes, not {KEY_SIZE}", "remove it and state.sealed")

    def load(self) -> State | None:
        """Return the stored state, None where there is none; raises `SealError` if it was altered."""
        if not self._path.exists():
            return None
        try:
            return State.from_bytes(decrypt_at_rest(self._key, self._path.read_bytes(), self._label))
        except SealError as error:
            raise SealError(
                f"{self._path} is of other terms, or was altered", "move the folder's files away"
            ) from error

    def save(self, state: State) -> None:
        """Replace the stored state; after a crash either the old or the new one is there."""
        temporary = self._path.with_suffix(".new")
        temporary.unlink(missing_ok=True)  # an encrypted mount does not open what a kill left half-written
        with open(temporary, "wb") as file:
            file.writelines(chunks_at_rest(self._key, state.to_bytes(), self._label))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        with suppress(OSError), ExitStack() as stack:  # not every file system of a library OS syncs folders
            folder = os.open(self._path.parent, os.O_RDONLY)
            stack.callback(os.close, folder)
            os.fsync(folder)
