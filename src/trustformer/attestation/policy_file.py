# SPDX-License-Identifier: Apache-2.0
"""The policy a client writes: a TOML file that says what may read its centroids.

A key that is absent is not checked, or has the strict default below; a key that is given is checked, and all
must hold. What could be read as "anything goes" (an unknown key, an empty list, no measurement) is refused.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from trustformer.errors import ConfigError

MAX_POLICY_BYTES = 64 * 1024
MAX_ROOT_BYTES = 16 * 1024
TCB_STATUSES = (
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",  # may be written down; it is never accepted
)
HEX_DIGITS = {"root_ca_sha256": 64, "mrenclave": 64, "mrsigner": 64, "ppid": 32, "fmspc": 12}
NOT_EMPTY = (*HEX_DIGITS, "root_ca_files", "tcb_status")  # an empty `advisories` accepts none, as does none
LIMITS = {"isv_prod_id": 2**16, "min_isv_svn": 2**16, "min_tcb_evaluation_data_number": 2**32}
# A key at the beginning of a line, and its value, which may be a list of several lines with comments.
_KEY = r"""(?m)^[ \t]*{}[ \t]*=[ \t]*(?:\[(?:[^\]#"']|#[^\n]*|"[^"\n]*"|'[^'\n]*')*+\])?[^\r\n]*"""
ADVISORY = re.compile(r"[A-Z0-9-]{1,64}")


class PolicyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of a policy file.

    Attributes:
        root_ca_sha256: SHA-256 of the DER of accepted roots; Intel's when absent.
        root_ca_files: certificates of other roots, PEM or DER; relative to the policy file.
        mrenclave: accepted measurements.
        mrsigner: accepted signers; without `mrenclave` the two keys below are required.
        isv_prod_id: product id the enclave must have.
        min_isv_svn: least security version of the enclave.
        tcb_status: accepted states of the platform.
        advisories: advisories that may apply to the platform.
        min_tcb_evaluation_data_number: how recent Intel's judgement of the platform must be.
        allow_dynamic_platform: accept a platform whose packages may be replaced.
        allow_cached_keys: accept a platform whose keys are kept at Intel.
        allow_smt: accept hyper-threading.
        ppid: accepted machines.
        fmspc: accepted platform types.
        allow_simulated: accept evidence of the simulated provider under a pinned root.
    """

    root_ca_sha256: tuple[str, ...] | None = None
    root_ca_files: tuple[str, ...] | None = None
    mrenclave: tuple[str, ...] | None = None
    mrsigner: tuple[str, ...] | None = None
    isv_prod_id: int | None = None
    min_isv_svn: int | None = None
    tcb_status: tuple[str, ...] = ("UpToDate",)
    advisories: tuple[str, ...] = ()
    min_tcb_evaluation_data_number: int | None = None
    allow_dynamic_platform: bool = False
    allow_cached_keys: bool = False
    allow_smt: bool = False
    ppid: tuple[str, ...] | None = None
    fmspc: tuple[str, ...] | None = None
    allow_simulated: bool = False

    def to_toml(self) -> str:
        """Return the canonical text: every key that is not at its default, in the order above."""
        lines = []
        for field in msgspec.structs.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                lines.append(f"{field.name} = {_toml(value)}\n")
        return "".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value) if isinstance(value, int) else msgspec.json.encode(value).decode()


def set_keys(text: str, values: Mapping[str, object]) -> tuple[str, tuple[str, ...]]:
    """Return a policy's text with these keys set, and the comments that stood in or beside their old values.

    All other lines stay as they are. This knows lines, not TOML: whoever writes the text parses it first.
    """
    dropped: list[str] = []
    for name, value in values.items():
        line, found = f"{name} = {_toml(value)}", re.search(_KEY.format(name), text)
        if found:
            dropped += re.findall(r"#[^\r\n]*", found[0])
            text = text[: found.start()] + line + text[found.end() :]
        else:
            text += ("" if text.endswith("\n") or not text else "\n") + line + "\n"
    return text, tuple(dropped)


def read_policy_file(path: Path) -> PolicyFile:
    """Read and validate a policy.

    Raises:
        ConfigError: names the file and the key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_POLICY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the policy: {error.strerror}") from error
    return parse_policy(data, str(path))


def parse_policy(data: bytes, where: str) -> PolicyFile:
    """Validate the bytes of a policy; `where` is named in errors.

    Raises:
        ConfigError: names the key.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise ConfigError(f"{where}: a policy has at most {MAX_POLICY_BYTES} bytes")
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: not TOML: {str(error)[:200]}") from error
    return make_policy_file(table, where)


def make_policy_file(table: Mapping[str, Any], where: str) -> PolicyFile:
    """Validate the keys of a policy.

    Raises:
        ConfigError: names the key.
    """
    unknown = sorted(set(table) - {field.name for field in msgspec.structs.fields(PolicyFile)})
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0][:80]!r}", "see docs/attestation.md for the keys")
    try:
        policy = msgspec.convert(dict(table), PolicyFile)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {str(error)[:200]}") from error
    problem = next(_problems(policy), None)
    if problem:
        raise ConfigError(f"{where}: {problem[0]}", problem[1])
    lists = {
        name: tuple(dict.fromkeys(value.lower() for value in getattr(policy, name)))
        for name in HEX_DIGITS
        if getattr(policy, name) is not None
    }
    return msgspec.structs.replace(policy, **lists)


def _problems(policy: PolicyFile) -> Any:
    """Yield (message, hint) for every value that cannot be used."""
    for name in NOT_EMPTY:
        if getattr(policy, name) == ():
            yield f"{name} is empty", "an empty list accepts nothing; leave the key out or fill it in"
    for name, digits in HEX_DIGITS.items():
        for value in getattr(policy, name) or ():
            if not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value):
                yield f"{name}: {value[:80]!r} is not {digits} hexadecimal digits", ""
    for name, limit in LIMITS.items():
        number = getattr(policy, name)
        if number is not None and not 0 <= number < limit:
            yield f"{name}: {str(number)[:40]} is not from 0 to {limit - 1}", ""
    for status in policy.tcb_status:
        if status not in TCB_STATUSES:
            yield f"tcb_status: unknown status {status[:80]!r}", f"one of {', '.join(TCB_STATUSES[:-1])}"
    for advisory in policy.advisories:
        if not ADVISORY.fullmatch(advisory):
            yield f"advisories: {advisory[:80]!r} is not an id such as INTEL-SA-00615", ""
    if not policy.mrenclave and not policy.mrsigner:
        yield "one of mrenclave and mrsigner is required", "list the measurements of the enclaves you trust"
    if not policy.mrenclave and None in (policy.isv_prod_id, policy.min_isv_svn):
        hint = "a signer may have signed other products and older, vulnerable versions"
        yield "mrsigner without mrenclave needs isv_prod_id and min_isv_svn", hint
