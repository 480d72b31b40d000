# SPDX-License-Identifier: Apache-2.0
"""What a verified quote says, as one flat record: the subject of the policy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from trustformer.attestation.bundle import Dated
from trustformer.attestation.parsing import show_time
from trustformer.attestation.quote import TEE_SGX, Quote, Report

Flag = Literal["True", "False", "Undefined"]


@dataclass(frozen=True)
class Claims:
    """What a verified quote and its collateral say. Bytes are lower-case hex, times seconds since 1970.

    The fields of the enclave report are None for a quote that is not of an SGX enclave in version 3.
    """

    tee: Literal["SGX", "TDX"]
    quote_version: int
    mrenclave: str | None
    mrsigner: str | None
    isv_prod_id: int | None
    isv_svn: int | None
    attributes: str | None
    flags: int | None
    misc_select: int | None
    report_data: str | None
    tcb_status: str
    platform_status: str
    qe_status: str
    advisories: tuple[str, ...]
    tcb_evaluation_data_number: int
    tcb_date: str
    ppid: str
    fmspc: str
    pce_svn: int
    cpu_svn: str
    sgx_type: int
    dynamic_platform: Flag
    cached_keys: Flag
    smt_enabled: Flag
    root_sha256: str
    not_before: int
    not_after: int
    expires_first: str

    def to_dict(self) -> dict[str, Any]:
        """Return the claims for JSON, times as dates."""
        times = {"not_before": show_time(self.not_before), "not_after": show_time(self.not_after)}
        return asdict(self) | times | {"advisories": list(self.advisories)}


def read_claims(
    quote: Quote,
    verified: dict[str, Any],
    *,
    dated: list[Dated],
    fmspc: str,
    statuses: tuple[str, str] | None,
    root_sha256: str,
) -> Claims:
    """Put our reading of the quote and dcap-qvl's claims together; `statuses`: of platform and quoting enclave.

    Raises:
        ValueError, KeyError, TypeError: the two do not agree, so neither is to be believed.
    """
    _agree(quote.report, verified)
    pck, level, qe = verified["platform"]["pck"], verified["platform"]["tcb_level"], verified["qe"]
    if bytes(pck["fmspc"]).hex() != fmspc:
        raise ValueError("FMSPC")
    if statuses is not None and statuses != (level["tcbStatus"], qe["tcb_level"]["tcbStatus"]):
        raise ValueError("TCB status")
    numbers = (verified["tcb"]["eval_data_number"], qe["tcb_eval_data_number"])
    return Claims(
        tee="SGX" if quote.tee_type == TEE_SGX else "TDX",
        quote_version=quote.version,
        **_of_report(quote.report),
        tcb_status=verified["tcb"]["status"],
        platform_status=level["tcbStatus"],
        qe_status=qe["tcb_level"]["tcbStatus"],
        advisories=tuple(sorted(set(verified["tcb"]["advisory_ids"]))),
        tcb_evaluation_data_number=min(numbers),
        tcb_date=level["tcbDate"],
        ppid=bytes(pck["ppid"]).hex(),
        fmspc=fmspc,
        pce_svn=pck["pce_svn"],
        cpu_svn=bytes(pck["cpu_svn"]).hex(),
        sgx_type=pck["sgx_type"],
        dynamic_platform=pck["dynamic_platform"],
        cached_keys=pck["cached_keys"],
        smt_enabled=pck["smt_enabled"],
        root_sha256=root_sha256,
        not_before=max(item.not_before for item in dated),
        not_after=min(item.not_after for item in dated),
        expires_first=min(dated, key=lambda item: item.not_after).name,
    )


def _agree(report: Report | None, verified: dict[str, Any]) -> None:
    if report is None:
        return
    theirs = verified["report"]["SgxEnclave"]
    for name in ("mrenclave", "mrsigner", "attributes", "report_data"):
        if theirs[name.replace("mr", "mr_")] != getattr(report, name).hex():
            raise ValueError(name)
    if (theirs["isv_prod_id"], theirs["isv_svn"]) != (report.isv_prod_id, report.isv_svn):
        raise ValueError("ISVPRODID, ISVSVN")


def _of_report(report: Report | None) -> dict[str, Any]:
    names = ("mrenclave", "mrsigner", "attributes", "report_data", "isv_prod_id", "isv_svn", "flags")
    fields = {name: getattr(report, name, None) for name in (*names, "misc_select")}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in fields.items()}
