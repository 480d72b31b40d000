# SPDX-License-Identifier: Apache-2.0
"""Certificates, collateral and quotes in Intel's formats, for the simulated attester.

Sources: Intel "SGX ECDSA Quote Library Reference" (quote v3, appendix A.4), "SGX PCK Certificate and CRL
Specification", "SGX Provisioning Certification Service API" v4 (TCB info v3, QE identity v2).
This module is imported by the enclave process: it needs the standard library and `cryptography` only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

ISV_PROD_ID, ISV_SVN = 1, 1
TCB_EVALUATION_DATA_NUMBER = 20
LIFETIME = timedelta(days=3650)
CLOCK_MARGIN = timedelta(days=1)
"""Parties of one simulation may disagree about the time by this much."""

FLAGS_ENCLAVE = 0x05  # INIT | MODE64BIT
FLAGS_QUOTING_ENCLAVE = 0x15  # and PROVISION_KEY
XFRM = 0xE7
QE_VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
QE_MRSIGNER = bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff")
QE_ISV_SVN = 8
FMSPC, PCE_ID, PCE_SVN = bytes.fromhex("00906ea10000"), bytes(2), 13
CPU_SVN = bytes([11, 11, 2, 2, 255, 1]).ljust(16, b"\0")
SGX_EXTENSION = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
_SGX_ARC = bytes.fromhex("2a864886f84d010d01")  # the same, in DER
_TCB_DATE = "2025-06-15T00:00:00Z"


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _item(arc: bytes, value: bytes) -> bytes:
    return _der(0x30, _der(0x06, _SGX_ARC + arc) + value)


def _integer(value: int) -> bytes:
    return _der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def sgx_extension(ppid: bytes) -> bytes:
    """Return the DER of the SGX extension of a PCK certificate (PCK specification, section 1.3.5)."""
    components = [_item(bytes([2, i + 1]), _integer(svn)) for i, svn in enumerate(CPU_SVN)]
    tcb = [*components, _item(b"\2\x11", _integer(PCE_SVN)), _item(b"\2\x12", _der(0x04, CPU_SVN))]
    fields = [
        _item(b"\1", _der(0x04, ppid)),
        _item(b"\2", _der(0x30, b"".join(tcb))),
        _item(b"\3", _der(0x04, PCE_ID)),
        _item(b"\4", _der(0x04, FMSPC)),
        _item(b"\5", _der(0x0A, b"\0")),  # SGX type: standard
    ]
    return _der(0x30, b"".join(fields))


def report_body(*, flags: int, mrenclave: bytes, mrsigner: bytes, isv_svn: int, report_data: bytes) -> bytes:
    """Return the 384 bytes of an enclave report."""
    body = [
        bytes(16 + 4 + 28),  # CPUSVN, MISCSELECT, reserved
        flags.to_bytes(8, "little") + XFRM.to_bytes(8, "little"),
        mrenclave + bytes(32) + mrsigner + bytes(96),
        ISV_PROD_ID.to_bytes(2, "little") + isv_svn.to_bytes(2, "little") + bytes(60),
        report_data,
    ]
    return b"".join(body)


def sign_p256(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return the 64 bytes r || s of ECDSA P-256 over SHA-256."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _name(common: str) -> x509.Name:
    organisation = "trustformer simulation, not Intel"
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
        ]
    )


def _key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True)
class Authority:
    """A key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(
        cls,
        name: str,
        issuer: Authority | None,
        now: datetime,
        *,
        path: int | None,
        sgx: bytes = b"",
    ) -> Authority:
        """Issue a certificate; `path` is the path length of a CA, None for an end entity."""
        key = ec.generate_private_key(ec.SECP256R1())
        signer = issuer.key if issuer else key
        public, issuer_public = key.public_key(), signer.public_key()
        ca = path is not None
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(issuer.certificate.subject if issuer else _name(name))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_MARGIN)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca, path), critical=True)
            .add_extension(_key_usage(ca=ca), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), critical=False)
        )
        if sgx:
            builder = builder.add_extension(x509.UnrecognizedExtension(SGX_EXTENSION, sgx), critical=False)
        return cls(key, builder.sign(signer, hashes.SHA256()))

    def empty_crl(self, now: datetime) -> str:
        """Return the hex DER of a revocation list that revokes nothing."""
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - CLOCK_MARGIN)
            .next_update(now + LIFETIME)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(issuer, critical=False)
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER).hex()

    @property
    def pem(self) -> str:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


def _statement(now: datetime, kind: str, version: int, body: dict[str, object]) -> str:
    """Return the exact text that the TCB signer signs."""
    stamp = "%Y-%m-%dT%H:%M:%SZ"
    head = {
        "id": kind,
        "version": version,
        "issueDate": (now - CLOCK_MARGIN).strftime(stamp),
        "nextUpdate": (now + LIFETIME).strftime(stamp),
        "tcbEvaluationDataNumber": TCB_EVALUATION_DATA_NUMBER,
    }
    return json.dumps(head | body, separators=(",", ":"))


def collateral(root: Authority, pck_ca: Authority, now: datetime) -> bytes:
    """Return collateral under which the simulated platform is up to date."""
    signer = Authority.make("Simulated SGX TCB Signing", root, now, path=None)
    level = {"tcbDate": _TCB_DATE, "tcbStatus": "UpToDate"}
    components = [{"svn": svn} for svn in CPU_SVN]
    platform: dict[str, object] = {
        "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex(),
        "tcbType": 0,
        "tcbLevels": [{"tcb": {"sgxtcbcomponents": components, "pcesvn": PCE_SVN}, "advisoryIDs": []} | level],
    }
    quoting: dict[str, object] = {
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_MRSIGNER.hex().upper(),
        "isvprodid": ISV_PROD_ID,
        "tcbLevels": [{"tcb": {"isvsvn": QE_ISV_SVN}} | level],
    }
    tcb_info, identity = _statement(now, "SGX", 3, platform), _statement(now, "QE", 2, quoting)
    fields = {
        "pck_crl_issuer_chain": pck_ca.pem + root.pem,
        "root_ca_crl": root.empty_crl(now),
        "pck_crl": pck_ca.empty_crl(now),
        "tcb_info_issuer_chain": signer.pem + root.pem,
        "tcb_info": tcb_info,
        "tcb_info_signature": sign_p256(signer.key, tcb_info.encode()).hex(),
        "qe_identity_issuer_chain": signer.pem + root.pem,
        "qe_identity": identity,
        "qe_identity_signature": sign_p256(signer.key, identity.encode()).hex(),
    }
    return json.dumps(fields, indent=1).encode()


def quoting_enclave(pck: Authority, attestation: ec.EllipticCurvePrivateKey, chain: str) -> bytes:
    """Return the part of a quote's signature data that is the same in every quote of one attestation key."""
    form = serialization.PublicFormat.UncompressedPoint
    public = attestation.public_key().public_bytes(serialization.Encoding.X962, form)[1:]
    auth = bytes(range(32))
    report = report_body(
        flags=FLAGS_QUOTING_ENCLAVE,
        mrenclave=hashlib.sha256(b"simulated quoting enclave").digest(),
        mrsigner=QE_MRSIGNER,
        isv_svn=QE_ISV_SVN,
        report_data=hashlib.sha256(public + auth).digest() + bytes(32),
    )
    certification = (5).to_bytes(2, "little") + len(chain).to_bytes(4, "little") + chain.encode()
    signed = public + report + sign_p256(pck.key, report)
    return signed + len(auth).to_bytes(2, "little") + auth + certification


def quote_header() -> bytes:
    """Return the 48 bytes before the report: version 3, ECDSA P-256, SGX."""
    return (3).to_bytes(2, "little") + (2).to_bytes(2, "little") + bytes(8) + QE_VENDOR + bytes(20)
