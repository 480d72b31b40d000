# SPDX-License-Identifier: Apache-2.0
"""Verification records: everything another party needs to repeat an appraisal, and nothing it must believe."""

from __future__ import annotations

import json

import pytest
from pki import NOW, Pki

from trustformer.attestation import errors
from trustformer.attestation.evidence import Binding, Evidence
from trustformer.attestation.handshake import VerificationRecord, appraise, reappraise
from trustformer.attestation.policy import Policy
from trustformer.errors import MessageError


def test_records_can_be_repeated_by_others(pki: Pki) -> None:
    fields = {name: name.encode().ljust(32, b".") for name in ("run_id", "boot_id", "pk_e", "vk_e", "cfg", "nonce")}
    binding = Binding(suite="suite", client_id="client-1", **fields)
    policy = Policy.make(pki.policy())
    evidence = Evidence("simulated", pki.quote(report_data=binding.report_data()), pki.collateral())
    record = appraise(evidence, policy, NOW, binding=binding)
    written = json.loads(json.dumps(record.to_dict()))
    again = VerificationRecord.from_dict(written)
    assert again == record
    assert all(check.result == "passed" for check in reappraise(again, policy))
    with pytest.raises(MessageError, match="another policy"):
        reappraise(again, Policy.make(pki.policy(allow_smt=True)))
    forged = VerificationRecord.from_dict(written | {"binding": written["binding"] | {"nonce": "00" * 32}})
    with pytest.raises(errors.ReportData):
        reappraise(forged, policy)
    for broken in ({"quote": "?"}, {"kind": "other"}, {"binding": {}}, {"binding": written["binding"] | {"cfg": "x"}}):
        with pytest.raises(MessageError):
            reappraise(VerificationRecord.from_dict(written | broken), policy)
    with pytest.raises(MessageError):
        VerificationRecord.from_dict(written | {"more": 1})
    with pytest.raises(errors.NotYetValid) as caught:
        appraise(evidence, policy, NOW - 10**7, binding=binding)
    refused = caught.value.record
    assert isinstance(refused, VerificationRecord)
    assert (refused.decision, refused.error) == ("refused", "NotYetValid")
