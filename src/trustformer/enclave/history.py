# SPDX-License-Identifier: Apache-2.0
"""What clients say about the run's history: how one boot knows that its state is the newest, and who holds what."""

from __future__ import annotations

from collections import Counter

from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import NO_HASH, Hello
from trustformer.errors import ProtocolError


class History:
    """Claims of clients in one boot. A position is (last round closed, hash of its manifest).

    Attributes:
        acknowledged: clients that have shown, signed, that they know the newest manifest.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._claims: dict[str, Hello] = {}
        self._confirmed = False  # whether this boot knows that nobody has seen more than it remembers
        self.acknowledged: set[str] = set()

    @property
    def may_release(self) -> bool:
        """Whether the newest round's key may be given out."""
        return self._config.release == "immediate" or len(self.acknowledged) >= self._config.quorum

    def hear(self, hello: Hello, ours: tuple[int, bytes]) -> tuple[int, bytes] | None:
        """Take in what a client claims to hold, verified to be by that client.

        Returns:
            The position a quorum of clients brings this boot forward to, without its state; else None.

        Raises:
            ProtocolError: a history this boot does not have and too few others confirm (yet).
        """
        known = self._claims.get(hello.client_id)
        if known is not None and hello.round < known.round:
            return None  # held back by the host and repeated
        if hello.round > ours[0] and self._confirmed:
            raise ProtocolError(f"hello: round {hello.round} has not been closed", "this client's history is another's")
        self._claims[hello.client_id] = hello
        if (hello.round, hello.manifest_hash) == ours:
            self.acknowledged.add(hello.client_id)
        if hello.round < ours[0] or (hello.round, hello.manifest_hash) == ours:
            return None
        newest = max(claim.round for claim in self._claims.values())
        same = Counter(claim.manifest_hash for claim in self._claims.values() if claim.round == newest)
        manifest_hash, count = same.most_common(1)[0]
        if count < self._config.min_clients or len(same) > 1:
            raise ProtocolError(
                f"hello: clients are at round {newest}, the enclave's state at {ours[0]}",
                f"{count} of {self._config.min_clients} clients needed confirm round {newest}; waiting for more",
            )
        self.acknowledged = {client for client, claim in self._claims.items() if claim.round == newest}
        return newest, manifest_hash

    def common_digest(self, ours: tuple[int, bytes], least: int = 1) -> bytes:
        """Digest of G that more clients at this position hold than any other; zero while fewer than `least` say so."""
        if ours[0] == 0:
            return self._config.common_digest
        claims = (c for c in self._claims.values() if c.manifest_hash == ours[1])
        said = Counter(claim.common_digest for claim in claims if claim.common_digest != NO_HASH)
        (most, count), (_, second) = (*said.most_common(2), (NO_HASH, 0), (NO_HASH, 0))[:2]
        return most if count >= least and count > second else NO_HASH

    def confirm(self, ours: tuple[int, bytes]) -> None:
        """After a boot nothing new is released before `min_clients` confirm its state and while any has seen more.

        Hellos may be repeated by the host, but an upload is bound to this boot, and a client uploads only where the
        state is the newest it has seen; so those whose updates are combined have confirmed it afresh.

        Raises:
            ProtocolError: not confirmed.
        """
        if self._confirmed:
            return
        claims = [(claim.round, claim.manifest_hash) for claim in self._claims.values()]
        if ahead := ", ".join(sorted(client for client, claim in self._claims.items() if claim.round > ours[0])):
            raise ProtocolError(f"close: newer rounds than this boot's, seen by {ahead}", "its state was rolled back")
        if claims.count(ours) < self._config.min_clients:
            raise ProtocolError(f"close: {claims.count(ours)} of {self._config.min_clients} clients needed confirm it")

    def advance(self) -> None:
        """This boot has closed a round itself: from now on it knows what is newest."""
        self._confirmed, self.acknowledged = True, set()
