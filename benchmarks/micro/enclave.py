# SPDX-License-Identifier: Apache-2.0
"""What the enclave costs: sealing against raw AES-256-GCM, requests per second, memory against clients.

    OMP_NUM_THREADS=1 nice -n 10 python benchmarks/micro/enclave.py [--memory CLIENTSxMILLIONS ...] [--coding codebook]

Uploads are sealed by another process than the one that is measured: the enclave runs as in `trustformer run`,
and its peak memory is VmHWM of that process, less what it had after its first hello. Writes
benchmarks/results/enclave.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from trustformer.attestation.simulated import SimulatedAttester
from trustformer.enclave.config import RunConfig
from trustformer.enclave.measurement import simulated_measurement
from trustformer.enclave.protocol import (
    MAX_MESSAGE,
    NO_HASH,
    Hello,
    Manifest,
    Receipt,
    SealedUpdate,
    UploadHeader,
    Welcome,
    sign,
    signed_body,
    split_signed,
)
from trustformer.federation.channel import NO_BOOT
from trustformer.federation.remote import RemoteEnclave
from trustformer.message import Codebook, Coding, Dense, Group, Layout, Reader, TensorSpec, Update
from trustformer.secure.identity import Identity
from trustformer.secure.sealing import decrypt_chunks, encrypt_chunks, new_content_key, wrap_key
from trustformer.vq import body_size

COMMON = b"\1" * 32
RESULT = Path(__file__).parents[1] / "results" / "enclave.json"
MEGABYTE = 1e6


def best(work: Callable[[], object], repeat: int) -> float:
    """Median seconds of `repeat` calls, after one that is not counted."""
    work()
    times = []
    for _ in range(repeat):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def sealing(size: int, repeat: int) -> dict[str, Any]:
    """Throughput of seal and open, hashing and signing included, and of AES-256-GCM alone on the same bytes."""
    payload = np.random.default_rng(0).bytes(size)
    key, nonce, identity = os.urandom(32), bytes(12), Identity.generate()
    aead = AESGCM(key)
    raw = aead.encrypt(nonce, payload, None)
    chunks = encrypt_chunks(key, payload)
    to_sign = SealedUpdate.to_sign(b"header", b"wrap", chunks)
    signature = identity.sign(to_sign)

    def seal() -> bytes:
        sealed = encrypt_chunks(key, payload)
        return identity.sign(SealedUpdate.to_sign(b"header", b"wrap", sealed))

    def unseal() -> bytes:
        signed_body(sign(SealedUpdate.to_sign(b"header", b"wrap", chunks), identity), identity.public, "upload")
        return decrypt_chunks(key, chunks, size)

    seconds = {
        "raw_encrypt": best(lambda: aead.encrypt(nonce, payload, None), repeat),
        "raw_decrypt": best(lambda: aead.decrypt(nonce, raw, None), repeat),
        "seal": best(seal, repeat),
        "open": best(unseal, repeat),
    }
    assert len(signature) == 64
    rates = {name: round(size / MEGABYTE / value, 1) for name, value in seconds.items()}
    return {
        "payload_bytes": size,
        "megabytes_per_second": rates,
        "seal_to_raw": round(seconds["raw_encrypt"] / seconds["seal"], 3),
        "open_to_raw": round(seconds["raw_decrypt"] / seconds["open"], 3),
    }


class Site:
    """A run of many clients against one enclave process."""

    def __init__(self, folder: Path, clients: int, parameters: int, coding: Coding) -> None:
        # Two groups of eight equal tensors: as feed-forward matrices beside all others in a Transformer.
        tensors = tuple(TensorSpec(f"w{i}", (parameters // 16,)) for i in range(16))
        layout = Layout((Group(coding, tensors[:8]), Group(coding, tensors[8:])))
        width = len(str(clients - 1))
        self.identities = {f"{index:0{width}d}": Identity.generate() for index in range(clients)}
        self.config = RunConfig(
            run_id=os.urandom(16),
            provider="simulated",
            experiment=bytes(32),
            common_digest=COMMON,
            roster=tuple((client, identity.public) for client, identity in self.identities.items()),
            min_clients=1,
            max_share_ppm=1_000_000,
            rounds=2,
            seed=1,
            upload=layout,
            answer=layout,
        )
        (folder / "terms.bin").write_bytes(self.config.to_bytes())
        SimulatedAttester.create(folder / "root", measurement=simulated_measurement(), now=int(time.time()))
        started = time.perf_counter()
        self.enclave = RemoteEnclave(
            *(folder / "terms.bin", folder / "state"),
            provider="simulated",
            evidence=folder / "root",
            log=folder / "log.txt",
        )
        self.start_seconds = time.perf_counter() - started

    def hello(self, client: str, newest: Manifest | None = None) -> Welcome:
        seen = (newest.round, newest.hash) if newest else (0, NO_HASH)
        hello = Hello(*(self.config.run_id, client, os.urandom(32), NO_BOOT), *seen, COMMON)
        reader = Reader(self.enclave.hello(sign(hello.to_bytes(), self.identities[client])), "welcome")
        return Welcome.from_bytes(split_signed(reader.raw(limit=MAX_MESSAGE), "welcome")[0])

    def upload(self, client: str, welcome: Welcome, body: bytes, number: int = 1) -> str:
        payload = Update(number, COMMON, 100, os.urandom(32), body).to_bytes()
        ids = (self.config.run_id, welcome.boot_id, welcome.cfg)
        header = UploadHeader(*ids, number, welcome.attempt, client, len(payload))
        key = new_content_key()
        wrap = wrap_key(key, welcome.recipient, header.info)
        chunks = encrypt_chunks(key, payload)
        signature = self.identities[client].sign(SealedUpdate.to_sign(header.to_bytes(), wrap, chunks))
        reply = self.enclave.upload(SealedUpdate(header.to_bytes(), wrap, signature, chunks).to_bytes())
        return Receipt.from_bytes(signed_body(reply, welcome.signer, "receipt")).status

    def memory(self, name: str) -> int:
        """VmHWM (peak) or VmRSS (now) of the enclave process in bytes."""
        for line in Path(f"/proc/{self.enclave.pid}/status").read_text("ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise ValueError(name)


def random_body(layout: Layout, seed: int) -> bytes:
    """A body of the right form without k-means: random centroids, scales and codes."""
    rng = np.random.default_rng(seed)
    parts = []
    for group in layout.groups:
        size = body_size(Layout((group,)))
        if isinstance(group.coding, Dense):
            parts.append((rng.standard_normal(size // 4, np.float32) * np.float32(0.01)).tobytes())
            continue
        entries = group.coding.clusters * group.coding.block
        parts += [np.full(1, 0.01, "<f4").tobytes(), rng.standard_normal(entries).astype("<f2").tobytes()]
        parts.append(rng.bytes(size - 4 - 2 * entries))
    return b"".join(parts)


def requests(folder: Path, count: int) -> dict[str, Any]:
    """Requests per second of a small model: the cost of everything but tensors."""
    site = Site(folder, 50, 8192, Codebook(8, 256))
    try:
        clients = list(site.identities)
        started = time.perf_counter()
        welcomes = [site.hello(clients[index % len(clients)]) for index in range(count)]
        hello = count / (time.perf_counter() - started)
        started = time.perf_counter()
        for client in clients:
            assert site.upload(client, welcomes[0], random_body(site.config.upload, 1)) == "accepted"
        upload = len(clients) / (time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(count):
            assert site.enclave.round == 0
        status = count / (time.perf_counter() - started)
    finally:
        site.enclave.stop()
    rates = {"hello_with_quote": hello, "upload_8192_parameters": upload, "status": status}
    return {name: round(value, 1) for name, value in rates.items()} | {
        "start_seconds": round(site.start_seconds, 2),
        "note": "the client's half, signing and sealing, runs in the same thread and is included",
    }


def memory(folder: Path, clients: int, parameters: int, coding: Coding) -> dict[str, Any]:
    """Peak memory of one round against four fp32 model sizes, and how it grows with clients."""
    site = Site(folder, clients, parameters, coding)
    model = 4 * parameters
    try:
        welcome = site.hello(next(iter(site.identities)))
        before = site.memory("VmRSS")
        body = random_body(site.config.upload, 1)
        started, first = time.perf_counter(), 0
        for index, client in enumerate(site.identities):
            assert site.upload(client, welcome, body) == "accepted"
            first = first or site.memory("VmHWM")
            if index % 100 == 99:
                print(f"  {index + 1} of {clients} clients", file=sys.stderr, flush=True)
        uploading, peak_uploads = time.perf_counter() - started, site.memory("VmHWM")
        started = time.perf_counter()
        released = site.enclave.close(1)
        closing, peak_close = time.perf_counter() - started, site.memory("VmHWM")
        newest = Manifest.from_bytes(split_signed(released.manifest, "manifest")[0])
        for client in list(site.identities)[:2]:  # a second round, which begins with s of the first
            site.hello(client, newest)
            assert site.upload(client, welcome, body, 2) == "accepted"
        site.enclave.close(2)
        peak = site.memory("VmHWM")
    finally:
        site.enclave.stop()
    return {
        "clients": clients,
        "parameters": parameters,
        "coding": type(coding).__name__.lower(),
        "message_bytes": len(body),
        "model_fp32_bytes": model,
        "resident_before_bytes": before,
        "peak_in_models": {
            "after_one_client": round((first - before) / model, 2),
            "after_all_clients": round((peak_uploads - before) / model, 2),
            "after_closing": round((peak_close - before) / model, 2),
            "after_a_second_round": round((peak - before) / model, 2),
        },
        "within_four_models": peak - before <= 4 * model,
        "seconds": {"uploads": round(uploading, 1), "close": round(closing, 1)},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="payload of the sealing measurement")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--memory", nargs="*", default=["20x1"], help="CLIENTSxMILLIONS of parameters; 1000x10, 20x100")
    parser.add_argument("--coding", choices=("codebook", "dense"), default="codebook")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    coding: Coding = Codebook(8, 256) if options.coding == "codebook" else Dense("float32")
    result: dict[str, Any] = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": platform.machine(), "count": os.cpu_count(), "load": os.getloadavg()},
        "versions": {name: version(name) for name in ("numpy", "cryptography")},
        "sealing": sealing(options.megabytes * 10**6, options.repeat),
    }
    with tempfile.TemporaryDirectory() as folder:
        result["requests_per_second"] = requests(Path(folder), options.requests)
    result["memory"] = []
    for size in options.memory:
        clients, millions = size.split("x")
        print(f"memory: {clients} clients, {millions} M parameters", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            result["memory"].append(memory(Path(folder), int(clients), round(float(millions) * 1e6), coding))
        options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    options.out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
