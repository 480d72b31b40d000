# SPDX-License-Identifier: Apache-2.0
"""The simulated attester: genuine bytes that pass the same checks, under its own root and under no other."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pki import NOW

from trustformer.attestation import errors
from trustformer.attestation.policy import Policy
from trustformer.attestation.simulated import ATTESTATION_KEY, BANNER, ROOT_KEY, SimulatedAttester
from trustformer.errors import ConfigError

MEASUREMENT = bytes(range(32))
REPORT_DATA = b"d" * 32 + bytes(32)


@pytest.fixture
def attester(tmp_path: Path) -> SimulatedAttester:
    return SimulatedAttester.create(tmp_path / "root", measurement=MEASUREMENT, now=NOW)


def policy(attester: SimulatedAttester, **keys: object) -> Policy:
    base = {"mrenclave": [MEASUREMENT.hex()], "root_ca_sha256": [attester.root_sha256], "allow_simulated": True}
    return Policy.make(base | keys)


def test_passes_its_own_policy_for_years(attester: SimulatedAttester) -> None:
    for now in (NOW, NOW - 80_000, NOW + 9 * 365 * 86_400):
        results = policy(attester).check(attester.evidence(REPORT_DATA), now=now, expected_report_data=REPORT_DATA)
        assert {result.result for result in results} == {"passed"}


def test_is_never_taken_for_real(attester: SimulatedAttester) -> None:
    evidence = attester.evidence(REPORT_DATA)
    assert evidence.kind == attester.kind == "simulated"
    real = Policy.make({"mrenclave": [MEASUREMENT.hex()]})
    with pytest.raises(errors.ProviderNotAllowed):
        real.check(evidence, now=NOW, expected_report_data=None)
    with pytest.raises(errors.ProviderNotAllowed):
        policy(attester, allow_simulated=False).check(evidence, now=NOW, expected_report_data=None)
    assert "prove nothing" in BANNER


def test_another_root_is_another_root(attester: SimulatedAttester, tmp_path: Path) -> None:
    other = SimulatedAttester.create(tmp_path / "other", measurement=MEASUREMENT, now=NOW)
    with pytest.raises(errors.BadQuote, match="root"):
        policy(attester).check(other.evidence(REPORT_DATA), now=NOW, expected_report_data=None)


def test_load_gives_the_same_root_and_measurement(attester: SimulatedAttester, tmp_path: Path) -> None:
    again = SimulatedAttester.load(tmp_path / "root")
    assert (again.root_der, again.root_sha256) == (attester.root_der, attester.root_sha256)
    policy(attester).check(again.evidence(REPORT_DATA), now=NOW, expected_report_data=REPORT_DATA)
    changed = SimulatedAttester.load(tmp_path / "root", measurement=b"m" * 32)
    with pytest.raises(errors.Measurement):
        policy(attester).check(changed.evidence(REPORT_DATA), now=NOW, expected_report_data=REPORT_DATA)


def test_keys_are_private_and_never_overwritten(attester: SimulatedAttester, tmp_path: Path) -> None:
    folder = tmp_path / "root"
    for name in (ROOT_KEY, ATTESTATION_KEY):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    with pytest.raises(ConfigError, match="exists"):
        SimulatedAttester.create(folder, measurement=MEASUREMENT, now=NOW)
    (folder / ATTESTATION_KEY).chmod(0o644)
    with pytest.raises(ConfigError, match="readable by others"):
        SimulatedAttester.load(folder)


def test_damaged_folders(tmp_path: Path, attester: SimulatedAttester) -> None:
    with pytest.raises(ConfigError):
        SimulatedAttester.load(tmp_path / "nothing")
    (tmp_path / "root" / ATTESTATION_KEY).write_text("no key")
    with pytest.raises(ConfigError):
        SimulatedAttester.load(tmp_path / "root")
    locked = serialization.BestAvailableEncryption(b"password")
    encoded = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked
    )
    (tmp_path / "root" / ATTESTATION_KEY).write_bytes(encoded)
    with pytest.raises(ConfigError, match="no complete simulated root"):
        SimulatedAttester.load(tmp_path / "root")
    with pytest.raises(ConfigError, match="32 bytes"):
        SimulatedAttester.create(tmp_path / "short", measurement=b"short", now=NOW)


def test_report_data_has_64_bytes(attester: SimulatedAttester) -> None:
    with pytest.raises(ValueError, match="64"):
        attester.evidence(b"short")


def test_the_enclave_side_loads_no_verifier() -> None:
    program = (
        "import sys, trustformer.attestation.evidence, trustformer.attestation.gramine, "
        "trustformer.attestation.simulated\n"
        "unwanted = {'dcap_qvl', 'torch', 'numpy', 'msgspec', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded {unwanted}' if unwanted else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
