# SPDX-License-Identifier: Apache-2.0
"""Mutate every message an enclave takes, and record how each ends: answered, or in which typed error.

Half of the inputs are signed anew after the mutation, so that what lies behind the signature is reached, and sealed
payloads are mutated before they are sealed. The enclave is a process of its own, spoken to over its socket.

    python benchmarks/fuzz_enclave.py --inputs 100000 --seed 1

Writes benchmarks/results/fuzz_enclave.json. Exits 1 if the process died, if an error was not one of the protocol's, if
a mutated update was accepted that differs from what its client signed, or if the honest round afterwards differs
from one without any fuzzing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from trustformer.attestation.simulated import SimulatedAttester
from trustformer.enclave import service
from trustformer.enclave.config import RunConfig
from trustformer.enclave.measurement import simulated_measurement
from trustformer.enclave.protocol import (
    MAX_MESSAGE,
    NO_HASH,
    Hello,
    Manifest,
    Receipt,
    SealedUpdate,
    Sync,
    Synced,
    UploadHeader,
    Welcome,
    sign,
    signed_body,
    split_signed,
)
from trustformer.errors import MessageError, ProtocolError, RoundsGoneError, SealError, TrustformerError
from trustformer.federation.channel import NO_BOOT
from trustformer.federation.remote import RemoteEnclave
from trustformer.message import Aggregate, Codebook, Dense, Group, Layout, Reader, TensorSpec, Update
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import RecipientKey, decrypt_chunks, encrypt_chunks, new_content_key, wrap_key
from trustformer.vq import body_size, encode

RESULT = Path(__file__).parent / "results" / "fuzz_enclave.json"
TYPED = (MessageError, SealError, ProtocolError, RoundsGoneError)
LAYOUT = Layout(
    (
        Group(Codebook(4, 16), (TensorSpec("w", (24, 16)), TensorSpec("v", (16, 12)))),
        Group(Dense("float16"), (TensorSpec("b", (33,)),)),
    )
)
COMMON = b"\1" * 32
EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\xff\xff", b"\x80\0\0\0\0\0\0\0")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Change a few bits, bytes, lengths or pieces; never returns the input."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                changed[at : at + 4] = rng.choice(EXTREMES)
            case 2:
                del changed[at:]
            case 3:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 32, 1000)))
            case 4:
                del changed[at : at + rng.choice((1, 4, 32))]
            case 5:
                to = rng.randrange(len(changed) + 1)
                changed[to : to + 32] = changed[at : at + 32]
            case _:
                changed[at : at + 8] = rng.randbytes(8)
    return bytes(changed) if bytes(changed) != data else data + b"\0"


def drift(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    tensors = {t.name: (rng.standard_normal(t.shape) * 0.01).astype(np.float32) for t in LAYOUT.tensors}
    return encode(LAYOUT, tensors, np.random.default_rng(0))


class Site:
    """Three clients and an enclave process in one folder."""

    def __init__(self, folder: Path) -> None:
        self.identities = {name: Identity.generate() for name in ("a", "b", "c")}
        self.config = RunConfig(
            run_id=bytes(16),
            provider="simulated",
            experiment=bytes(32),
            common_digest=COMMON,
            roster=tuple((client, identity.public) for client, identity in self.identities.items()),
            min_clients=2,
            max_share_ppm=1_000_000,
            rounds=10,
            seed=1,
            upload=LAYOUT,
            answer=LAYOUT,
        )
        folder.mkdir()
        (folder / "terms.bin").write_bytes(self.config.to_bytes())
        SimulatedAttester.create(folder / "root", measurement=simulated_measurement(), now=int(time.time()))
        self.enclave = RemoteEnclave(
            *(folder / "terms.bin", folder / "state"),
            provider="simulated",
            evidence=folder / "root",
            log=folder / "log.txt",
            restarts=0,
        )
        self.round, self.manifest_hash = 0, NO_HASH
        self.welcome = self.greet("a")

    def hello(self, client: str) -> Hello:
        return Hello(*(self.config.run_id, client, os.urandom(32), NO_BOOT), self.round, self.manifest_hash, COMMON)

    def greet(self, client: str) -> Welcome:
        request = sign(self.hello(client).to_bytes(), self.identities[client])
        reader = Reader(self.enclave.hello(request), "welcome")
        return Welcome.from_bytes(split_signed(reader.raw(limit=MAX_MESSAGE), "welcome")[0])

    def update(self, seed: int) -> Update:
        return Update(self.round + 1, COMMON, 10 + seed, os.urandom(32), drift(seed))

    def sealed(self, client: str, payload: bytes, header: bytes | None = None) -> SealedUpdate:
        ids = (self.config.run_id, self.welcome.boot_id, self.welcome.cfg)
        own = UploadHeader(*ids, self.round + 1, self.welcome.attempt, client, Update.length(body_size(LAYOUT)))
        key = new_content_key()
        wrap = wrap_key(key, self.welcome.recipient, own.info)
        chunks, raw = encrypt_chunks(key, payload), header or own.to_bytes()
        return SealedUpdate(raw, wrap, self.identities[client].sign(SealedUpdate.to_sign(raw, wrap, chunks)), chunks)

    def sync(self, key: RecipientKey) -> bytes:
        ids = (self.config.run_id, self.welcome.boot_id, "a")
        return Sync(*ids, round=self.round, manifest_hash=self.manifest_hash, recipient=key.public).to_bytes()

    def honest_round(self) -> bytes:
        """Play a round of three and return the body of its aggregate."""
        for client in self.identities:
            self.welcome = self.greet(client)
        for index, client in enumerate(self.identities):
            sealed = self.sealed(client, self.update(index).to_bytes())
            reply = self.enclave.upload(sealed.to_bytes())
            assert Receipt.from_bytes(signed_body(reply, self.welcome.signer, "receipt")).status == "accepted"
        released = self.enclave.close(self.round + 1)
        key, size = RecipientKey(), body_size(LAYOUT)
        reply = self.enclave.sync(sign(self.sync(key), self.identities["a"]))
        synced = Synced.from_bytes(signed_body(reply, self.welcome.signer, "synced"))
        manifest = Manifest.from_bytes(split_signed(released.manifest, "manifest")[0])
        round_key = key.unwrap(synced.rounds[0][1], Synced.info(manifest.hash, "a"))
        self.round, self.manifest_hash = manifest.round, manifest.hash
        plain = decrypt_chunks(round_key, released.aggregate, len(Aggregate(0, b"").to_bytes()) + size)
        return Aggregate.from_bytes(plain, size).body


def inputs(site: Site, rng: random.Random) -> dict[str, Callable[[], tuple[bytes, bytes]]]:
    """Targets: each makes one mutated request as (operation, body)."""
    identity, honest = site.identities["a"], site.update(0)

    def upload(sealed: SealedUpdate) -> tuple[bytes, bytes]:
        return service.UPLOAD, sealed.to_bytes()

    def resigned(sealed: SealedUpdate) -> SealedUpdate:
        return replace(sealed, signature=identity.sign(SealedUpdate.to_sign(sealed.header, sealed.wrap, sealed.chunks)))

    def part(name: str) -> tuple[bytes, bytes]:
        sealed = site.sealed("a", honest.to_bytes())
        return upload(resigned(replace(sealed, **{name: mutate(getattr(sealed, name), rng)})))

    signed_hello = sign(site.hello("a").to_bytes(), identity)
    signed_sync = sign(site.sync(RecipientKey()), identity)
    return {
        "hello": lambda: (service.HELLO, mutate(signed_hello, rng)),
        "hello, signed anew": lambda: (service.HELLO, sign(mutate(site.hello("a").to_bytes(), rng), identity)),
        "sync": lambda: (service.SYNC, mutate(signed_sync, rng)),
        "sync, signed anew": lambda: (service.SYNC, sign(mutate(site.sync(RecipientKey()), rng), identity)),
        "upload": lambda: (service.UPLOAD, mutate(site.sealed("a", honest.to_bytes()).to_bytes(), rng)),
        "upload header, signed anew": lambda: part("header"),
        "upload wrap, signed anew": lambda: part("wrap"),
        "upload chunks, signed anew": lambda: part("chunks"),
        "upload payload, sealed anew": lambda: upload(site.sealed("a", mutate(honest.to_bytes(), rng))),
        "upload payload, same length": lambda: upload(site.sealed("a", flip(honest.to_bytes(), rng))),
        "close": lambda: (service.CLOSE, mutate(b"\0\0\0\x08" + bytes(7) + b"\x63", rng)),
        "other operation": lambda: (rng.choice((service.HELLO, service.SYNC, service.CLOSE)), rng.randbytes(200)),
    }


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 16))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def fuzz(count: int, seed: int) -> dict[str, Any]:
    """Fuzz one enclave between two honest rounds; play the same two on an untouched one."""
    rng = random.Random(seed)
    outcomes: dict[str, Counter[str]] = {}
    untyped: list[str] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        fuzzed, fresh = Site(Path(folder) / "fuzzed"), None
        try:
            fuzzed.honest_round()
            fuzzed.welcome = fuzzed.greet("a")
            targets = inputs(fuzzed, rng)
            for number in range(count):
                name = list(targets)[number % len(targets)]
                operation, body = targets[name]()
                outcomes.setdefault(name, Counter())[send(fuzzed, operation, body, untyped)] += 1
                if number % 500 == 499:
                    drop_accepted(fuzzed)
            seconds = time.perf_counter() - started
            drop_accepted(fuzzed)
            fresh = Site(Path(folder) / "fresh")
            fresh.honest_round()
            same = fuzzed.honest_round() == fresh.honest_round()
            log = (Path(folder) / "fuzzed" / "log.txt").read_text("utf-8")
        finally:
            fuzzed.enclave.stop()
            if fresh is not None:
                fresh.enclave.stop()
    return {
        "inputs": count,
        "seed": seed,
        "outcomes": {name: dict(counter.most_common()) for name, counter in outcomes.items()},
        "untyped": untyped[:20],
        "faults_logged": log.count("error:"),
        "honest_round_unaffected": same,
        "seconds": round(seconds, 1),
    }


def drop_accepted(site: Site) -> None:
    """Payloads whose mutation left a valid update were accepted, as they must: an attempt to close drops them."""
    try:
        site.enclave.close(site.round + 1)
    except ProtocolError:
        site.welcome = site.greet("a")


def send(site: Site, operation: bytes, body: bytes, untyped: list[str]) -> str:
    calls = {service.HELLO: site.enclave.hello, service.UPLOAD: site.enclave.upload, service.SYNC: site.enclave.sync}
    try:
        reply = site.enclave._ask(service.CLOSE, body) if operation == service.CLOSE else calls[operation](body)
    except TYPED as error:
        return type(error).__name__
    except TrustformerError as error:
        untyped.append(f"{operation!r}: {error.message}")
        return "UNTYPED"
    if operation == service.UPLOAD:
        return Receipt.from_bytes(signed_body(reply, site.welcome.signer, "receipt")).status
    return "answered"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    result = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("numpy", "cryptography")},
        **fuzz(options.inputs, options.seed),
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))
    return 0 if result["honest_round_unaffected"] and not result["untyped"] and not result["faults_logged"] else 1


if __name__ == "__main__":
    sys.exit(main())
