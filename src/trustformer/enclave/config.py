# SPDX-License-Identifier: Apache-2.0
"""What the enclave enforces in a run, agreed by all clients before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from trustformer.errors import ProtocolError
from trustformer.message import Layout, Reader, digest, enc
from trustformer.secure.sealing import KEY_SIZE, SUITE_NAME

MAX_ROSTER = 10_000
RELEASES = ("immediate", "acknowledged")
RULES = ("mean", "trimmed_mean", "private_mean")
MAX_NOISE_MICRO = 10**12


@dataclass(frozen=True)
class RunConfig:
    """The run's terms; their digest `cfg` is in everything that is signed.

    A client compares `cfg` with the terms it agreed to: otherwise a host could start the right enclave with
    `min_clients = 1` and a roster of its own.

    Attributes:
        run_id: 16 random bytes.
        provider: kind of evidence of the run's enclave.
        experiment: digest of the experiment's config, data, tokenizer and G_0 (32 bytes).
        common_digest: digest of G_0 (32 bytes).
        roster: (client id, Ed25519 public key), sorted by id.
        min_clients: fewest updates a round may combine.
        max_share_ppm: largest share of one client in the mean, in millionths.
        rounds: last exchange of the run.
        seed: of the answer's k-means.
        upload, answer: layouts of the two directions.
        release: when the key of a round is given out: `immediate`, or `acknowledged` by two thirds of the roster.
        rule: how updates are combined: `mean` weighted by examples, `trimmed_mean` of equal weights, or `private_mean`:
            the noised sum over a fixed denominator.
        trim_ppm: of `trimmed_mean`: share of the clients cut off at either end of every entry, in millionths.
        max_norm_milli: largest L2 norm of a decoded update, in thousandths; beyond it, the update is refused.
        expected_milli: of `private_mean`: the denominator, clients expected in a cohort, in thousandths.
        noise_micro: of `private_mean`: standard deviation of the noise of each entry of the sum, in millionths.
        trained: exchanges, from the first, before which clients may have trained; counted only where s fades.
        carry_ppm: share of s that is left after training, in millionths.
    """

    run_id: bytes
    provider: str
    experiment: bytes
    common_digest: bytes
    roster: tuple[tuple[str, bytes], ...]
    min_clients: int
    max_share_ppm: int
    rounds: int
    seed: int
    upload: Layout
    answer: Layout
    release: str = "immediate"
    rule: str = "mean"
    trim_ppm: int = 0
    max_norm_milli: int = 1_000_000
    expected_milli: int = 0
    noise_micro: int = 0
    trained: int = 0
    carry_ppm: int = 1_000_000

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        return enc(
            *("tfl/1 config", SUITE_NAME, self.run_id, self.provider, self.experiment, self.common_digest),
            enc(*(part for client, key in self.roster for part in (client, key))),
            *(self.min_clients, self.max_share_ppm, self.rounds, self.seed),
            *(self.upload.to_bytes(), self.answer.to_bytes()),
            *(self.release, self.rule, self.trim_ppm, self.max_norm_milli),
            *((self.expected_milli, self.noise_micro) if self.rule == "private_mean" else ()),
            *((self.trained, self.carry_ppm) if self.trained else ()),
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> RunConfig:
        """Read what `to_bytes` wrote and check it; raises `MessageError` or `ProtocolError`."""
        reader = Reader(data, "run config")
        reader.label("tfl/1 config")
        reader.label(SUITE_NAME)
        run_id, provider = reader.raw(limit=16, exactly=16), reader.text()
        experiment, common = reader.bytes32(), reader.bytes32()
        inner = Reader(reader.raw(limit=2**21), "roster")
        roster = []
        while inner.more():
            roster.append((inner.text(64), inner.bytes32()))
        min_clients, max_share_ppm, rounds, seed = (reader.integer() for _ in range(4))
        upload, answer = (Layout.from_bytes(reader.raw(limit=2**22)) for _ in range(2))
        release, rule, trim_ppm, max_norm_milli = reader.text(), reader.text(), reader.integer(), reader.integer()
        noised = [reader.integer() for _ in range(2)] if rule == "private_mean" else [0, 0]
        fading = [reader.integer() for _ in range(2)] if reader.more() else [0, 1_000_000]
        reader.end()
        config = cls(
            *(run_id, provider, experiment, common, tuple(roster)),
            *(min_clients, max_share_ppm, rounds, seed),
            *(upload, answer),
            *(release, rule),
            *(trim_ppm, max_norm_milli, *noised, *fading),
        )
        config.check()
        if config.to_bytes() != data:
            raise ProtocolError("run config: not in its one form")
        return config

    @property
    def quorum(self) -> int:
        """Clients that must have acknowledged a round before its key is given out: two thirds of the roster."""
        return -(-2 * len(self.roster) // 3)

    @property
    def vouchers(self) -> int:
        """Clients that must say they hold a G before one that is behind takes it (none or less: one is enough).

        A round leaves out N - min_clients at most; so many of any min_clients are up to date if no state was lost.
        """
        return min(self.min_clients - 1, 2 * self.min_clients - len(self.roster))

    @property
    def digest(self) -> bytes:
        """The run's `cfg`, 32 bytes."""
        return digest(self.to_bytes())

    def key_of(self, client_id: str) -> bytes:
        """Public key of an enrolled client; raises `ProtocolError` for any other."""
        for client, key in self.roster:
            if client == client_id:
                return key
        raise ProtocolError(f"client {client_id!r} is not on the roster of this run", "enrolling one takes a new run")

    def check(self) -> None:
        """Refuse terms under which one client's update could be read off the result.

        Raises:
            ProtocolError: naming the setting.
        """
        clients = [client for client, _ in self.roster]
        if not clients or clients != sorted(set(clients)) or len(clients) > MAX_ROSTER:
            raise ProtocolError("the roster is empty, too long, unsorted or names a client twice")
        keys = {key for _, key in self.roster}
        if len(keys) < len(clients) or {len(key) for key in keys} != {KEY_SIZE}:
            raise ProtocolError("the roster holds a key twice, or one that has not 32 bytes")
        if not 1 <= self.min_clients <= len(clients):
            raise ProtocolError(f"min_clients is {self.min_clients} with {len(clients)} clients on the roster")
        if not 500_000 <= self.max_share_ppm <= 1_000_000:
            raise ProtocolError(f"max_share is {self.max_share_ppm / 1e6:g}; it must be from 0.5 to 1")
        if self.release not in RELEASES or self.rule not in RULES:
            raise ProtocolError(f"release {self.release!r} or rule {self.rule!r} is not known")
        if self.release == "acknowledged" and self.min_clients + self.quorum <= len(clients):
            raise ProtocolError(
                f"min_clients is {self.min_clients}: those who have not acknowledged a round could do it again",
                f"with release acknowledged it must be at least {len(clients) - self.quorum + 1}",
            )
        if not 0 <= self.trim_ppm < 500_000 or self.max_norm_milli < 1:
            raise ProtocolError("trim must be from 0 to less than 0.5, max_norm at least 0.001")
        if not 0 <= self.trained <= self.rounds or (0 <= self.carry_ppm < 1_000_000) != (self.trained > 0):
            raise ProtocolError("trained must be from 0 to rounds, and above 0 if and only if carry is below 1")
        if self.rule == "private_mean" and not (self.expected_milli > 0 and 0 <= self.noise_micro <= MAX_NOISE_MICRO):
            raise ProtocolError("a private mean takes a denominator above 0 and noise of at most 1e6")
        upload, answer = ({t.name: t.shape for t in layout.tensors} for layout in (self.upload, self.answer))
        if upload != answer:
            raise ProtocolError("the layouts of upload and answer describe different tensors")
