# SPDX-License-Identifier: Apache-2.0
"""Attester for machines without SGX: real DCAP v3 bytes, signed under a root made on this machine.

INSECURE BY DESIGN. Whoever can read the folder can sign any measurement. Only the hardware is simulated: the
same verifier and the same policy read the result, and a policy accepts it only if it says `allow_simulated`
and pins this root. This module is imported by the enclave process: standard library and `cryptography` only.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from trustformer.attestation import simulated_pki as pki
from trustformer.attestation.evidence import REPORT_DATA_BYTES, Evidence, Kind
from trustformer.errors import ConfigError

BANNER = (
    "SIMULATED ATTESTATION: no SGX hardware is involved. Quotes are signed by a key in an "
    "ordinary file and prove nothing about what reads your data."
)
"""To be shown at every start of anything that attests with this provider."""

MRSIGNER = hashlib.sha256(b"trustformer simulated signer").digest()
ROOT_KEY, ATTESTATION_KEY = "root.key", "attestation.key"
ROOT, COLLATERAL, QUOTING_ENCLAVE, MEASUREMENT = (
    "root.der",
    "collateral.json",
    "quoting_enclave.bin",
    "mrenclave",
)


class SimulatedAttester:
    """Signs quotes of one measurement under the root of one folder."""

    kind: Kind = "simulated"

    def __init__(
        self,
        *,
        measurement: bytes,
        root_der: bytes,
        collateral: bytes,
        quoting_enclave: bytes,
        key: ec.EllipticCurvePrivateKey,
    ) -> None:
        if len(measurement) != 32:
            raise ConfigError(f"a measurement is 32 bytes, not {len(measurement)}")
        self.mrenclave = measurement
        self.root_der = root_der
        self._collateral = collateral
        self._quoting_enclave = quoting_enclave
        self._key = key

    @property
    def root_sha256(self) -> str:
        """What a policy must pin, as 64 hex digits."""
        return hashlib.sha256(self.root_der).hexdigest()

    @classmethod
    def create(cls, folder: Path, *, measurement: bytes, now: int) -> SimulatedAttester:
        """Make a root and everything under it, and keep it in `folder`.

        Args:
            folder: made if absent; must not hold a simulated root already.
            measurement: 32 bytes to report as MRENCLAVE.
            now: seconds since 1970; the collateral is valid from a day before to ten years after.

        Raises:
            ConfigError: the folder cannot be written or already holds a root.
        """
        when = datetime.fromtimestamp(now, UTC)
        root = pki.Authority.make("Simulated SGX Root CA", None, when, path=1)
        pck_ca = pki.Authority.make("Simulated SGX PCK Processor CA", root, when, path=0)
        sgx = pki.sgx_extension(os.urandom(16))
        pck = pki.Authority.make("Simulated SGX PCK Certificate", pck_ca, when, path=None, sgx=sgx)
        key = ec.generate_private_key(ec.SECP256R1())
        signed = pki.quoting_enclave(pck, key, pck.pem + pck_ca.pem + root.pem)
        collateral = pki.collateral(root, pck_ca, when)
        files = {ROOT_KEY: _private_pem(root.key), ATTESTATION_KEY: _private_pem(key), ROOT: root.der}
        files |= {COLLATERAL: collateral, QUOTING_ENCLAVE: signed, MEASUREMENT: measurement.hex().encode()}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, data in files.items():
                _write_new(folder / name, data)
        except FileExistsError as error:
            message = f"{error.filename} exists: the folder holds a simulated root"
            raise ConfigError(message, "load that root, or choose another folder") from error
        except OSError as error:
            raise ConfigError(f"{folder}: cannot write a simulated root: {error.strerror}") from error
        return cls(
            measurement=measurement,
            root_der=root.der,
            collateral=collateral,
            quoting_enclave=signed,
            key=key,
        )

    @classmethod
    def load(cls, folder: Path, *, measurement: bytes | None = None) -> SimulatedAttester:
        """Read what `create` wrote; `measurement` replaces the stored one.

        Raises:
            ConfigError: a file is missing, damaged, or a private key is readable by others.
        """
        try:
            _refuse_shared(folder / ATTESTATION_KEY)
            key = serialization.load_pem_private_key((folder / ATTESTATION_KEY).read_bytes(), None)
            stored = bytes.fromhex((folder / MEASUREMENT).read_text())
            root, collateral = (folder / ROOT).read_bytes(), (folder / COLLATERAL).read_bytes()
            quoting_enclave = (folder / QUOTING_ENCLAVE).read_bytes()
        except (OSError, ValueError, TypeError) as error:  # TypeError: a key behind a password
            raise ConfigError(
                f"{folder}: no complete simulated root here: {error}",
                "remove the folder and start again; a simulated root is worth nothing",
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{folder / ATTESTATION_KEY} is not an elliptic-curve key")
        return cls(
            measurement=stored if measurement is None else measurement,
            root_der=root,
            collateral=collateral,
            quoting_enclave=quoting_enclave,
            key=key,
        )

    def evidence(self, report_data: bytes) -> Evidence:
        """Return a freshly signed quote over these 64 bytes, with its collateral."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"report_data has {len(report_data)} bytes, not {REPORT_DATA_BYTES}")
        body = pki.report_body(
            flags=pki.FLAGS_ENCLAVE,
            mrenclave=self.mrenclave,
            mrsigner=MRSIGNER,
            isv_svn=pki.ISV_SVN,
            report_data=report_data,
        )
        signed = pki.quote_header() + body
        signature = pki.sign_p256(self._key, signed) + self._quoting_enclave
        quote = signed + len(signature).to_bytes(4, "little") + signature
        return Evidence(self.kind, quote, self._collateral)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_new(path: Path, data: bytes) -> None:
    """Write a file that must not exist: O_EXCL follows no link and shares no key with an earlier run."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)


def _refuse_shared(path: Path) -> None:
    if path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} is readable by others", f"chmod 600 {path}")
