# SPDX-License-Identifier: Apache-2.0
"""A made-up Intel for tests: any certificate, collateral or quote, rightly signed, right or wrong in content.

Written apart from `attestation.simulated_pki`, so that the two check each other through the verifier.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.x509.oid import NameOID

NOW = 1_780_000_000  # 2026-05-28
START = datetime(2026, 5, 1, tzinfo=UTC)
END = datetime(2026, 7, 1, tzinfo=UTC)
DER, PEM = serialization.Encoding.DER, serialization.Encoding.PEM

MRENCLAVE = hashlib.sha256(b"test enclave").hexdigest()
MRSIGNER = hashlib.sha256(b"test signer").hexdigest()
REPORT_DATA = hashlib.sha256(b"test report data").digest() + bytes(32)
QE_SIGNER = "8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff"
FMSPC = "00a067110000"
PPID = "d04ec06d4e6d92dc90d0ad3cf5ee2ddf"
SVNS = (11, 11, 2, 2, 255, 1) + (0,) * 10


def tlv(tag: int, *content: bytes) -> bytes:
    body = b"".join(content)
    if len(body) < 128:
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes(2, "big").lstrip(b"\0")
    return bytes([tag, 128 + len(size)]) + size + body


def entry(suffix: tuple[int, ...], value: bytes) -> bytes:
    return tlv(0x30, tlv(0x06, bytes.fromhex("2a864886f84d010d01") + bytes(suffix)), value)


def number(value: int) -> bytes:
    return tlv(0x02, (b"\0" if value > 127 else b"") + bytes([value]))


def extension(*, fmspc: str, ppid: str, flags: dict[str, bool] | None) -> bytes:
    svns = [entry((2, i + 1), number(svn)) for i, svn in enumerate(SVNS)]
    tcb = tlv(0x30, *svns, entry((2, 17), number(13)), entry((2, 18), tlv(0x04, bytes(SVNS))))
    items = [entry((1,), tlv(0x04, bytes.fromhex(ppid))), entry((2,), tcb)]
    items += [entry((3,), tlv(0x04, bytes(2))), entry((4,), tlv(0x04, bytes.fromhex(fmspc)))]
    items.append(entry((5,), tlv(0x0A, b"\1" if flags else b"\0")))
    if flags is not None:
        items.append(entry((6,), tlv(0x04, bytes(16))))
        values = [tlv(0x01, b"\xff" if on else b"\0") for on in flags.values()]
        items.append(entry((7,), tlv(0x30, *(entry((7, i + 1), v) for i, v in enumerate(values)))))
    return tlv(0x30, *items)


def raw_signature(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def report(**fields: Any) -> bytes:
    """384 bytes: a report body with these fields."""
    body = bytearray(384)
    struct.pack_into("<QQ", body, 48, fields["flags"], 0xE7)
    body[64:96] = bytes.fromhex(fields["mrenclave"])
    body[128:160] = bytes.fromhex(fields["mrsigner"])
    struct.pack_into("<HH", body, 256, fields["isv_prod_id"], fields["isv_svn"])
    body[320:384] = fields["report_data"]
    return bytes(body)


@dataclass
class Issuer:
    key: ec.EllipticCurvePrivateKey
    cert: x509.Certificate

    @property
    def pem(self) -> str:
        return self.cert.public_bytes(PEM).decode()

    def crl(self, revoked: tuple[Issuer, ...], start: datetime, end: datetime) -> str:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.cert.subject)
        builder = builder.last_update(start).next_update(end).add_extension(x509.CRLNumber(1), False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = builder.add_extension(identifier, False)
        for one in revoked:
            made = x509.RevokedCertificateBuilder().serial_number(one.cert.serial_number)
            builder = builder.add_revoked_certificate(made.revocation_date(start).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(DER).hex()


def issue(name: str, by: Issuer | None, path: int | None, sgx: bytes = b"", end: datetime | None = None) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    signer = by or Issuer(key, None)  # type: ignore[arg-type]
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(by.cert.subject if by else subject)
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(START - timedelta(900)).not_valid_after(end or END + timedelta(900))
    builder = builder.add_extension(x509.BasicConstraints(path is not None, path), True)
    ca = path is not None
    usage = x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False)
    builder = builder.add_extension(usage, True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key())
    builder = builder.add_extension(identifier, False)
    if sgx:
        oid = x509.ObjectIdentifier("1.2.840.113741.1.13.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, sgx), False)
    return Issuer(key, builder.sign(signer.key, hashes.SHA256()))


@dataclass
class Pki:
    """One root with everything below it."""

    fmspc: str = FMSPC
    ppid: str = PPID
    flags: dict[str, bool] | None = None  # dynamic, cached, smt; None is a one-socket platform without them
    root: Issuer = field(init=False)

    def __post_init__(self) -> None:
        self.root = issue("Made-up SGX Root CA", None, 1)
        ca = "Platform" if self.flags else "Processor"
        self.pck_ca = issue(f"Made-up SGX PCK {ca} CA", self.root, 0)
        sgx = extension(fmspc=self.fmspc, ppid=self.ppid, flags=self.flags)
        self.pck = issue("Made-up SGX PCK Certificate", self.pck_ca, None, sgx)
        self.signer = issue("Made-up SGX TCB Signing", self.root, None)
        self.attestation_key = ec.generate_private_key(ec.SECP256R1())

    @property
    def root_der(self) -> bytes:
        return self.root.cert.public_bytes(DER)

    @property
    def root_sha256(self) -> str:
        return hashlib.sha256(self.root_der).hexdigest()

    def policy(self, **keys: Any) -> dict[str, Any]:
        """Keys of a policy that accepts `quote()` with `collateral()`."""
        base = {"mrenclave": [MRENCLAVE], "root_ca_sha256": [self.root_sha256], "allow_simulated": True}
        return {name: value for name, value in (base | keys).items() if value is not None}

    def statements(
        self,
        *,
        tcb_status: str = "UpToDate",
        qe_status: str = "UpToDate",
        advisories: tuple[str, ...] = (),
        number: int = 20,
        qe_number: int = 20,
        start: datetime = START,
        end: datetime = END,
        tcb: dict[str, Any] | None = None,
        qe: dict[str, Any] | None = None,
    ) -> tuple[str, str]:
        """Texts of TCB info and QE identity; `tcb` and `qe` replace fields."""
        dates = {
            "issueDate": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "nextUpdate": end.strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        level = {"tcbDate": "2026-01-15T00:00:00Z", "tcbStatus": tcb_status, "advisoryIDs": list(advisories)}
        components = {"sgxtcbcomponents": [{"svn": svn} for svn in SVNS], "pcesvn": 13}
        info = {"id": "SGX", "version": 3, **dates, "fmspc": self.fmspc, "pceId": "0000", "tcbType": 0}
        info |= {"tcbEvaluationDataNumber": number, "tcbLevels": [{"tcb": components} | level]}
        qe_level = {"tcb": {"isvsvn": 8}, "tcbDate": "2026-01-15T00:00:00Z", "tcbStatus": qe_status}
        identity = {"id": "QE", "version": 2, **dates, "tcbEvaluationDataNumber": qe_number}
        identity |= {"miscselect": "00000000", "miscselectMask": "FFFFFFFF", "mrsigner": QE_SIGNER.upper()}
        identity |= {"attributes": "11" + "00" * 15, "attributesMask": "FB" + "FF" * 7 + "00" * 8}
        identity |= {"isvprodid": 1, "tcbLevels": [qe_level]}
        return json.dumps(info | (tcb or {})), json.dumps(identity | (qe or {}))

    def collateral(
        self,
        *,
        revoked: tuple[Issuer, ...] = (),
        fields: dict[str, str] | None = None,
        crl_end: datetime = END,
        **statements: Any,
    ) -> bytes:
        """Collateral; `fields` replaces whole fields after signing."""
        tcb_info, identity = self.statements(**statements)
        by_root = tuple(one for one in revoked if one is not self.pck)
        by_ca = tuple(one for one in revoked if one is self.pck)
        parts = {
            "pck_crl_issuer_chain": self.pck_ca.pem + self.root.pem,
            "root_ca_crl": self.root.crl(by_root, START, crl_end),
            "pck_crl": self.pck_ca.crl(by_ca, START, crl_end),
            "tcb_info_issuer_chain": self.signer.pem + self.root.pem,
            "tcb_info": tcb_info,
            "tcb_info_signature": raw_signature(self.signer.key, tcb_info.encode()).hex(),
            "qe_identity_issuer_chain": self.signer.pem + self.root.pem,
            "qe_identity": identity,
            "qe_identity_signature": raw_signature(self.signer.key, identity.encode()).hex(),
        }
        return json.dumps(parts | (fields or {})).encode()

    def quote(self, *, qe: dict[str, Any] | None = None, **fields: Any) -> bytes:
        """A version 3 quote; `fields` are of the enclave's report, `qe` of the quoting enclave's."""
        enclave = {"mrenclave": MRENCLAVE, "mrsigner": MRSIGNER, "isv_prod_id": 1, "isv_svn": 3, "flags": 5}
        signed = struct.pack("<HHI", 3, 2, 0) + bytes(4) + bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")
        signed += bytes(20) + report(**(enclave | {"report_data": REPORT_DATA} | fields))
        form = serialization.PublicFormat.UncompressedPoint
        public = self.attestation_key.public_key().public_bytes(serialization.Encoding.X962, form)[1:]
        auth = b"authentication data of 32 bytes "
        quoting = {"mrenclave": "11" * 32, "mrsigner": QE_SIGNER, "isv_prod_id": 1, "isv_svn": 8}
        quoting |= {"flags": 0x15, "report_data": hashlib.sha256(public + auth).digest() + bytes(32)}
        qe_report = report(**(quoting | (qe or {})))
        chain = (self.pck.pem + self.pck_ca.pem + self.root.pem).encode()
        tail = raw_signature(self.attestation_key, signed) + public
        tail += qe_report + raw_signature(self.pck.key, qe_report)
        tail += struct.pack("<H", len(auth)) + auth + struct.pack("<HI", 5, len(chain)) + chain
        return signed + struct.pack("<I", len(tail)) + tail
