# SPDX-License-Identifier: Apache-2.0
"""The page about attestation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from trustformer.attestation import errors
from trustformer.attestation.policy import Policy
from trustformer.attestation.policy_file import PolicyFile

PAGE = (Path(__file__).parents[2] / "docs" / "attestation.md").read_text()
SENTENCE = "Attestation verification is real; the enclave itself has not been run on SGX hardware by this project."


def test_the_example_policy_loads() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    assert len(blocks) == 1
    Policy.parse(blocks[0].encode())


def test_every_key_and_every_error_is_named() -> None:
    keys = {field.name for field in msgspec.structs.fields(PolicyFile)}
    classes = {name for name, value in vars(errors).items() if isinstance(value, type) and name != "Refusal"}
    named = set(re.findall(r"`(\w+)`", PAGE))
    assert keys <= named
    assert classes - {"AttestationError"} <= named


def test_it_says_what_was_not_done() -> None:
    assert SENTENCE in " ".join(PAGE.split())
    assert "WireTap" in PAGE
    assert len(PAGE.splitlines()) < 100
