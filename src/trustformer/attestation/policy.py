# SPDX-License-Identifier: Apache-2.0
"""The client's decision: checks a to f, in order, each fail closed. Check g is in `handshake`.

The signature check accepts any measurement, nearly any state of the platform and other TEEs. What makes a
quote worth something is this list; nothing is sent to an enclave that fails one entry of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trustformer.attestation import dcap
from trustformer.attestation.checks import REPORT_DATA_CHECK, CheckResult, check_claims, failed, passed
from trustformer.attestation.claims import Claims
from trustformer.attestation.errors import ProviderNotAllowed, Refusal
from trustformer.attestation.evidence import REPORT_DATA_BYTES, Evidence, Kind
from trustformer.attestation.parsing import Certificate, Malformed, parse_certificate
from trustformer.attestation.policy_file import (
    MAX_ROOT_BYTES,
    PolicyFile,
    make_policy_file,
    parse_policy,
    read_policy_file,
)
from trustformer.errors import ConfigError
from trustformer.message import digest, enc

MAX_TIME = 253_402_300_799  # the last second of the year 9999
LATER_CHECKS = (
    ("b", "signatures, dates and revocation"),
    ("c", "enclave mode"),
    ("d", "identity"),
    ("e", "state of the platform"),
    ("f", REPORT_DATA_CHECK),
)


@dataclass(frozen=True)
class Appraisal:
    """Everything a policy has to say about some evidence.

    Attributes:
        kind: the provider the evidence was appraised as.
        parsed: quote and collateral, if they were well-formed; unverified.
        claims: what the quote says, if it verified.
        checks: all results, in order.
        refusal: the first failed check; None means accepted.
    """

    kind: str
    parsed: dcap.Parsed | None
    claims: Claims | None
    checks: list[CheckResult] = field(default_factory=list)

    @property
    def refusal(self) -> Refusal | None:
        """The first failed check."""
        return next((check.refusal for check in self.checks if check.refusal), None)


@dataclass(frozen=True)
class Policy:
    """What one client accepts: the keys of its file, and the root certificates it names."""

    keys: PolicyFile
    roots: tuple[Certificate, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read a policy file and the root certificates it names.

        Raises:
            ConfigError: names the file and the key.
        """
        return cls._with_roots(read_policy_file(path), path.parent)

    @classmethod
    def parse(cls, data: bytes, *, folder: Path = Path(), where: str = "policy") -> Policy:
        """Read the bytes of a policy; `root_ca_files` are relative to `folder`."""
        return cls._with_roots(parse_policy(data, where), folder)

    @classmethod
    def make(cls, keys: Mapping[str, Any], *, folder: Path = Path()) -> Policy:
        """Build a policy from the keys a file would have."""
        return cls._with_roots(make_policy_file(keys, "policy"), folder)

    @classmethod
    def _with_roots(cls, keys: PolicyFile, folder: Path) -> Policy:
        return cls(keys, tuple(_read_root(folder / name) for name in keys.root_ca_files or ()))

    @property
    def pins(self) -> tuple[str, ...]:
        """Fingerprints of accepted roots."""
        return self.keys.root_ca_sha256 or (dcap.INTEL_ROOT_SHA256,)

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for the keys of this policy, in records."""
        return digest(enc("tfl/1 policy", self.keys.to_toml()))

    def kind_of(self, quote: bytes, collateral: bytes | None) -> Kind:
        """Guess the provider of evidence read from files, which do not say it.

        The guess chooses only which of the pinned roots may vouch for the quote.
        """
        intel = dcap.INTEL_ROOT_SHA256
        others = {*self.pins, *(dcap.fingerprint(root.der) for root in self.roots)} - {intel}
        try:
            if dcap.parse(quote, collateral).root_sha256 in others:
                return "simulated"
        except Refusal:
            pass
        return "simulated" if self.keys.allow_simulated and intel not in self.pins else "gramine-dcap"

    def check(self, evidence: Evidence, *, now: int, expected_report_data: bytes | None) -> list[CheckResult]:
        """Return all results, every one passed (or "not checked", for report data not given).

        Args:
            evidence: what the aggregator sent.
            now: seconds since 1970, by the client's own clock.
            expected_report_data: the 64 bytes the client computed itself; None for evidence read from a file.

        Raises:
            Refusal: of the class of the first failed check.
        """
        appraisal = self.appraise(evidence, now=now, expected_report_data=expected_report_data)
        if appraisal.refusal:
            raise appraisal.refusal
        return appraisal.checks

    def appraise(self, evidence: Evidence, *, now: int, expected_report_data: bytes | None) -> Appraisal:
        """Return all results, passed and failed; arguments as of `check`.

        Raises:
            ConfigError: the time is not one, or the expected report data is not 64 bytes.
        """
        if not 0 <= now <= MAX_TIME:
            raise ConfigError(f"the time {now} is not in seconds since 1970", "check this machine's clock")
        if expected_report_data is not None and len(expected_report_data) != REPORT_DATA_BYTES:
            raise ConfigError(f"report data has {REPORT_DATA_BYTES} bytes, not {len(expected_report_data)}")
        checks: list[CheckResult] = []
        parsed: dcap.Parsed | None = None
        claims: Claims | None = None
        name = "provider"
        try:
            # a: a provider the policy names, then sizes and form.
            self._check_provider(evidence.kind)
            checks.append(passed("a", name, evidence.kind, evidence.kind))
            name = "sizes and form"
            parsed = dcap.parse(evidence.quote, evidence.collateral)
            checks.append(passed("a", name, f"{len(evidence.quote)} bytes", "a quote and its collateral"))
            # b: signatures, dates and revocation, under a root of that provider.
            name = LATER_CHECKS[0][1]
            claims = dcap.verify(parsed, self._roots_of(evidence.kind, parsed), now)
            checks.append(passed("b", name, f"root {claims.root_sha256}", "a pinned root"))
            # c: kind of enclave; d: identity; e: state of the platform; f: binding to this session.
            checks += check_claims(claims, self.keys, expected_report_data)
        except Refusal as refusal:
            if refusal.check > "b":  # the verifier refuses debug enclaves and revoked platforms itself
                checks.append(passed("b", name))
                name = type(refusal).__name__
            checks.append(failed(name, refusal))
        return Appraisal(evidence.kind, parsed, claims, _with_unchecked(checks))

    def _check_provider(self, kind: str) -> None:
        """a: the policy chooses the provider; the message cannot."""
        intel = dcap.INTEL_ROOT_SHA256 in self.pins
        others = any(pin != dcap.INTEL_ROOT_SHA256 for pin in self.pins)
        if kind == "gramine-dcap" and intel:
            return
        if kind == "simulated" and self.keys.allow_simulated and others:
            return
        simulated = kind == "simulated"
        raise ProviderNotAllowed(
            f"the policy does not allow evidence of the provider {str(kind)[:40]!r}",
            "simulated evidence proves nothing about hardware; a test run may set allow_simulated = true and "
            "pin that root in root_ca_sha256"
            if simulated
            else "pin Intel's root in root_ca_sha256, or leave the key out",
            got=str(kind)[:40],
            expected="allow_simulated and the pin of a root" if simulated else "gramine-dcap under Intel's root",
        )

    def _roots_of(self, kind: str, parsed: dcap.Parsed) -> list[Certificate]:
        """Certificates that may vouch for evidence of this kind: from files, or carried and pinned."""
        found = {dcap.fingerprint(root.der): root for root in self.roots}
        wanted = [pin for pin in self.pins if (pin == dcap.INTEL_ROOT_SHA256) == (kind == "gramine-dcap")]
        roots = [found.get(pin) or parsed.certificate(pin) for pin in wanted]
        return [root for root in roots if root is not None]


def _with_unchecked(checks: list[CheckResult]) -> list[CheckResult]:
    """Return the checks in order, with an entry for each letter that was not reached."""
    done = {check.check for check in checks}
    unchecked = [CheckResult(*later, "not checked") for later in LATER_CHECKS if later[0] not in done]
    return sorted([*checks, *unchecked], key=lambda check: check.check)


def _read_root(path: Path) -> Certificate:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for, a device has no end
            raise ConfigError(f"root_ca_files: cannot read {str(path)!r}: it is no file", "name a certificate's file")
        with path.open("rb") as file:
            return parse_certificate(file.read(MAX_ROOT_BYTES), "the certificate")
    except (OSError, ValueError) as error:  # a name with a zero character is no OSError
        what = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"root_ca_files: cannot read {str(path)!r}: {what}") from error
    except Malformed as error:
        raise ConfigError(f"root_ca_files: {path}: {error}") from error
