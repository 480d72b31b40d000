# SPDX-License-Identifier: Apache-2.0
"""Mutate quotes, collateral and policies, and record how each input ends: accepted, or in which typed error.

Two of the five targets are signed anew after the mutation, so that what lies behind the signatures is reached.

    python benchmarks/fuzz_attestation.py --inputs 100000 --seed 1

Writes benchmarks/results/fuzz_attestation.json and exits 1 if anything but a typed error came out, or if a
quote was accepted whose report differs from the signed one.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from trustformer.attestation import simulated_pki as pki
from trustformer.attestation.evidence import Evidence
from trustformer.attestation.policy import Policy
from trustformer.attestation.quote import SIGNED_BYTES
from trustformer.attestation.simulated import SimulatedAttester
from trustformer.errors import AttestationError, ConfigError

NOW = 1_780_000_000
REPORT_DATA = b"r" * 32 + bytes(32)
RESULT = Path(__file__).parent / "results" / "fuzz_attestation.json"
TOKENS = (b"{", b"}", b"[", b"]", b'"', b"-----BEGIN", b"null", b"true", b"1e9999", b"=", b"#", b"\\u0000", b"\n")
EXTREMES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\1\0\0\0")
STATEMENTS = ("tcb_info", "qe_identity")
VALUES = (None, -1, 0, 2**31, 2**64, 1.5, "", "Revoked", "OutOfDate", "2026-99-99T00:00:00Z", [], {}, [{}], True)
POLICY = """\
root_ca_sha256 = ["{root}"]
mrenclave = ["{mrenclave}"]
min_isv_svn = 1
isv_prod_id = 1
tcb_status = ["UpToDate", "SWHardeningNeeded"]
advisories = ["INTEL-SA-00615"]
min_tcb_evaluation_data_number = 17
allow_smt = true
fmspc = ["00906ea10000"]
allow_simulated = true  # a comment
"""


@dataclass
class Seeds:
    """One accepted triple and the keys that sign it."""

    quote: bytes
    collateral: bytes
    policy: bytes
    attestation_key: ec.EllipticCurvePrivateKey
    signer: pki.Authority


@dataclass
class Tally:
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    raw: list[str] = field(default_factory=list)
    forged: int = 0
    slowest: float = 0.0


def make_seeds() -> Seeds:
    when = datetime.fromtimestamp(NOW, UTC)
    root = pki.Authority.make("Fuzz SGX Root CA", None, when, path=1)
    pck_ca = pki.Authority.make("Fuzz SGX PCK Processor CA", root, when, path=0)
    signer = pki.Authority.make("Fuzz SGX TCB Signing", root, when, path=None)
    sgx = pki.sgx_extension(bytes(range(16)))
    pck = pki.Authority.make("Fuzz SGX PCK Certificate", pck_ca, when, path=None, sgx=sgx)
    key = ec.generate_private_key(ec.SECP256R1())
    attester = SimulatedAttester(
        measurement=bytes(range(32)),
        root_der=root.der,
        collateral=pki.collateral(root, pck_ca, when),
        quoting_enclave=pki.quoting_enclave(pck, key, pck.pem + pck_ca.pem + root.pem),
        key=key,
    )
    evidence = attester.evidence(REPORT_DATA)
    fields = json.loads(evidence.collateral or b"")
    fields |= {name: signer.pem + root.pem for name in ("tcb_info_issuer_chain", "qe_identity_issuer_chain")}
    for name in STATEMENTS:
        fields[f"{name}_signature"] = pki.sign_p256(signer.key, fields[name].encode()).hex()
    text = POLICY.format(root=attester.root_sha256, mrenclave=attester.mrenclave.hex())
    return Seeds(evidence.quote, json.dumps(fields).encode(), text.encode(), key, signer)


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """One to four small changes anywhere."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at, end = rng.randrange(len(changed) + 1), rng.randrange(1, 200)
        other = rng.randrange(len(changed) + 1)
        first, last, new = rng.choice(
            [
                (at, at + 1, bytes(byte ^ 1 << rng.randrange(8) for byte in changed[at : at + 1])),
                (at, at + 1, rng.randbytes(1)),
                (at, at, rng.randbytes(rng.choice((1, 4, 64)))),
                (at, at + end, b""),
                (at, len(changed), b""),
                (at, at + 4, rng.choice(EXTREMES)),
                (at, at, rng.choice(TOKENS) * rng.choice((1, 1, 3, 300))),
                (at, at, bytes(changed[at : at + end])),
                (at, at + end, bytes(changed[other : other + end])),
            ]
        )
        changed[first:last] = new
    return bytes(changed)


def mutate_quote(data: bytes, rng: random.Random) -> bytes:
    """Change a quote; half the time repair its outer length, so that what lies deeper is reached."""
    changed = bytearray(mutate_bytes(data, rng))
    if rng.random() < 0.5 and len(changed) > 436:
        changed[432:436] = (len(changed) - 436).to_bytes(4, "little")
    return bytes(changed)


def mutate_collateral(data: bytes, rng: random.Random) -> bytes:
    """Change the JSON text, a field's text, or the binary or JSON inside a field."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    fields: dict[str, Any] = json.loads(data)
    name = rng.choice(sorted(fields))
    text = fields[name]
    kind = rng.random()
    if kind < 0.1:
        fields[name] = rng.choice((None, 0, [], {}, "", True, text * 3))
    elif kind < 0.2:
        del fields[name]
    elif kind < 0.6 and name in ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"):
        fields[name] = mutate_bytes(bytes.fromhex(text), rng).hex()
    else:
        fields[name] = mutate_bytes(text.encode(), rng).decode("utf-8", rng.choice(("replace", "surrogateescape")))
    return json.dumps(fields).encode()


def mutate_json(value: Any, rng: random.Random) -> Any:
    """Replace, drop or double one value somewhere inside."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        name = rng.choice(sorted(value))
        rest = {key: item for key, item in value.items() if key != name}
        return rest if rng.random() < 0.1 else rest | {name: mutate_json(value[name], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return value[:at] + [mutate_json(value[at], rng)] * rng.choice((0, 1, 1, 1, 2)) + value[at + 1 :]
    return rng.choice(VALUES)


def signed_collateral(seeds: Seeds, rng: random.Random) -> bytes:
    """Change a signed statement and sign it again."""
    fields, name = json.loads(seeds.collateral), rng.choice(STATEMENTS)
    if rng.random() < 0.7:
        text = json.dumps(mutate_json(json.loads(fields[name]), rng))
    else:
        text = mutate_bytes(fields[name].encode(), rng).decode("utf-8", "replace")
    fields[name] = text
    fields[f"{name}_signature"] = pki.sign_p256(seeds.signer.key, text.encode()).hex()
    return json.dumps(fields).encode()


def signed_quote(seeds: Seeds, rng: random.Random) -> bytes:
    """Change header or report and sign it again."""
    signed = bytearray(seeds.quote[:SIGNED_BYTES])
    for _ in range(rng.choice((1, 1, 3))):
        signed[rng.randrange(SIGNED_BYTES)] ^= 1 << rng.randrange(8)
    tail = seeds.quote[SIGNED_BYTES + 4 + 64 :]
    return bytes(signed) + seeds.quote[SIGNED_BYTES:][:4] + pki.sign_p256(seeds.attestation_key, signed) + tail


MUTATORS: dict[str, Callable[[Seeds, random.Random], bytes]] = {
    "quote": lambda seeds, rng: mutate_quote(seeds.quote, rng),
    "quote, signed": signed_quote,
    "collateral": lambda seeds, rng: mutate_collateral(seeds.collateral, rng),
    "collateral, signed": signed_collateral,
    "policy": lambda seeds, rng: mutate_bytes(seeds.policy, rng),
}


def fuzz(inputs: int, seed: int) -> Tally:
    """Make `inputs` mutated triples, one part changed in each, and appraise them."""
    seeds, rng, tally = make_seeds(), random.Random(seed), Tally()
    good = Policy.parse(seeds.policy)
    good.check(Evidence("simulated", seeds.quote, seeds.collateral), now=NOW, expected_report_data=REPORT_DATA)
    for _ in range(inputs):
        target, mutator = rng.choice(sorted(MUTATORS.items()))
        data = mutator(seeds, rng)
        start = time.perf_counter()
        try:
            policy = Policy.parse(data) if target == "policy" else good
            quote = data if target.startswith("quote") else seeds.quote
            collateral = data if target.startswith("collateral") else seeds.collateral
            tried = Evidence("simulated" if rng.random() < 0.97 else "gramine-dcap", quote, collateral)
            policy.check(tried, now=NOW, expected_report_data=rng.choice((REPORT_DATA, None)))
            outcome = "accepted"
            other = tried.quote[:SIGNED_BYTES] != seeds.quote[:SIGNED_BYTES]
            tally.forged += other and target != "quote, signed"
        except (AttestationError, ConfigError) as error:
            outcome = type(error).__name__
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # what must not happen is what is looked for
            outcome = "RAW"
            if len(tally.raw) < 20:
                tally.raw.append(f"{target}: {type(error).__name__}: {str(error)[:200]}")
        tally.slowest = max(tally.slowest, time.perf_counter() - start)
        tally.outcomes.setdefault(target, Counter())[outcome] += 1
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in {"--inputs": 100_000, "--seed": 1, "--out": RESULT}.items():
        parser.add_argument(name, type=Path if default is RESULT else int, default=default)
    options = parser.parse_args()
    start = time.perf_counter()
    tally = fuzz(options.inputs, options.seed)
    result = {
        "inputs": options.inputs,
        "seed": options.seed,
        "seconds": round(time.perf_counter() - start, 1),
        "slowest_ms": round(1000 * tally.slowest, 1),
        "outcomes": {name: dict(counts.most_common()) for name, counts in sorted(tally.outcomes.items())},
        "raw_exceptions": sum(counts["RAW"] for counts in tally.outcomes.values()),
        "raw_examples": tally.raw,
        "accepted_with_another_report": tally.forged,
        "versions": {name: version(name) for name in ("dcap-qvl", "cryptography", "msgspec")},
        "python": platform.python_version(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return 1 if tally.raw or tally.forged else 0


if __name__ == "__main__":
    sys.exit(main())
