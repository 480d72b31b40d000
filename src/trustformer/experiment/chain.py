# SPDX-License-Identifier: Apache-2.0
"""The released rounds of a run, read again by a third party: one chain, signed by keys that quotes vouch for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trustformer.enclave.config import RunConfig
from trustformer.enclave.protocol import MAX_MESSAGE, NO_HASH, Manifest, split_signed
from trustformer.errors import TrustformerError
from trustformer.experiment.testimony import Quotes, read_file
from trustformer.federation.host import split_kept
from trustformer.message import digest
from trustformer.secure.sealing import sealed_length
from trustformer.vq import body_size


@dataclass
class Chain:
    """What a folder of released rounds shows.

    Attributes:
        manifests: by round.
        length: number of files.
        unvouched: rounds at the end by boots that no client at hand met, so that nobody vouches for their keys.
        relayed: rounds by such boots that an attested one names as its past: in a manifest that follows, or in a
            welcome.
        problems: what is wrong with the others.
    """

    manifests: dict[int, Manifest] = field(default_factory=dict)
    length: int = 0
    unvouched: list[int] = field(default_factory=list)
    relayed: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def vouch(self) -> None:
        """What follows them vouches for the rounds that nobody vouched for so far."""
        self.relayed += self.unvouched
        self.unvouched.clear()

    def give_up(self) -> None:
        """Nothing that follows can vouch for them."""
        self.problems += [f"round-{number:05d}.sealed is not signed by an attested key" for number in self.unvouched]
        self.unvouched.clear()


def read_chain(folder: Path, terms: RunConfig, quotes: Quotes, told: Mapping[tuple[int, bytes], str]) -> Chain:
    """Read and check every `round-*.sealed`, in order.

    Args:
        folder: where they are.
        terms: of the run.
        quotes: whose keys are attested.
        told: round and hash of its manifest, by attested welcomes; the client that was told.
    """
    chain, previous = Chain(), NO_HASH
    limit = MAX_MESSAGE + sealed_length(body_size(terms.answer) + 1024)
    known = {client for client, _ in terms.roster}
    files = sorted(folder.glob("round-*.sealed"), key=lambda file: (len(file.name), file.name))
    chain.length = len(files)
    if chain.length > terms.rounds:
        chain.problems.append(f"there are {chain.length} where {terms.rounds} were agreed")
    for number, file in enumerate(files[: terms.rounds], 1):
        try:
            signed, sealed = split_kept(read_file(file, 2 * limit), limit)
            body, signature = split_signed(signed, "manifest")
            manifest = Manifest.from_bytes(body)
            attested = manifest.boot_id.hex() in quotes.keys
            if attested:
                quotes.check(manifest.boot_id, (body, signature), "manifest")
        except (TrustformerError, ValueError) as error:
            chain.problems.append(f"{file.name} is not signed by an attested key or damaged: {error}")
            continue
        follows = (manifest.round, manifest.previous, manifest.cfg) == (number, previous, terms.digest)
        if not attested:
            chain.unvouched.append(number)
        if not follows:
            chain.problems.append(f"{file.name} does not follow the round before it, or belongs to other terms")
            chain.give_up()
        elif attested or (number, manifest.hash) in told:
            chain.vouch()
        for other, client in ((other, client) for (where, other), client in told.items() if where == number):
            if other != manifest.hash:
                chain.problems.append(f"client {client} was told of another round {number} than this one")
        if manifest.aggregate_digest != digest(sealed):
            chain.problems.append(f"{file.name}: the sealed aggregate is not the one its manifest names")
        listed = {client for client, _ in manifest.uploads}
        if len(listed) < terms.min_clients or not listed <= known:
            chain.problems.append(f"{file.name} combines too few clients, or one that is not on the roster")
        chain.manifests[number], previous = manifest, manifest.hash
    return chain
