# SPDX-License-Identifier: Apache-2.0
"""Looks at a machine and an installation before somebody loses an evening to them."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from trustformer.errors import ConfigError
from trustformer.federation.temporary import check_temporary
from trustformer.message import WIRE_VERSION

OLDEST_PYTHON = (3, 11)
DISK_NEEDED, DISK_WANTED = 0.5e9, 5e9
"""Bytes. A run of three clients of the preset tiny keeps 0.1 GB, one of `base` 4 GB."""
SGX_DEVICES = ("/dev/sgx_enclave", "/dev/sgx_provision")
PORTS = (9443,)
"""Where `trustformer serve` listens by default."""
EXTRAS = {"flower": "deployments", "dp": "privacy", "hf": "Hugging Face data sets", "lora": "adapters"}
"""Extras that a user may want, and what for."""


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        what: what was looked at.
        verdict: `ok`; `note` where a run works but something may surprise; `fix` where it does not work.
        found: what is there.
        advice: what to do; empty if nothing.
    """

    what: str
    verdict: Literal["ok", "note", "fix"]
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything; takes seconds, changes nothing."""
    return [
        _python(),
        Finding("trustformer", "ok", f"{version('trustformer')}, wire format {WIRE_VERSION}"),
        *_packages(),
        _extras(),
        _torch(),
        _threads(),
        _disk(Path.cwd()),
        _temporary(tempfile.gettempdir()),
        _corpora(os.environ.get("TRUSTFORMER_DATA", "")),
        _sgx(),
        _ports(),
    ]


def _python() -> Finding:
    wanted = ".".join(map(str, OLDEST_PYTHON))
    good = sys.version_info >= OLDEST_PYTHON
    advice = "" if good else f"make the environment with Python {wanted} or newer"
    return Finding("python", "ok" if good else "fix", f"{platform.python_version()} at {sys.executable}", advice)


def _packages() -> Iterator[Finding]:
    """One finding for all packages that are as the project asks, one for each that is not."""
    good = []
    for text in requires("trustformer") or []:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            yield Finding(wanted.name, "fix", "not installed", f"pip install '{wanted}'")
            continue
        if wanted.specifier.contains(found, prereleases=True):
            good.append(f"{wanted.name} {found}")
        else:
            yield Finding(wanted.name, "fix", f"{found}, wanted {wanted.specifier}", f"pip install '{wanted}'")
    yield Finding("packages", "ok", ", ".join(good))


def _extras() -> Finding:
    """Say which optional packages are there; a wrong version of one is worth a note."""
    found, wrong = [], []
    for extra, purpose in EXTRAS.items():
        for wanted in map(Requirement, requires("trustformer") or []):
            if wanted.marker is None or not wanted.marker.evaluate({"extra": extra}):
                continue
            try:
                have = version(wanted.name)
            except PackageNotFoundError:
                found.append(f"{extra} (for {purpose}) not installed")
                continue
            found.append(f"{extra}: {wanted.name} {have}")
            if not wanted.specifier.contains(have, prereleases=True):
                wrong.append(f"pip install '{wanted.name}{wanted.specifier}'")
    return Finding("extras", "note" if wrong else "ok", "; ".join(found), ", ".join(wrong))


def _torch() -> Finding:
    try:
        import torch

        product = float((torch.ones(64, 64) @ torch.ones(64, 64)).sum())
    except (ImportError, OSError, RuntimeError) as error:
        return Finding("torch", "fix", str(error).splitlines()[0], "install torch again for this platform: pytorch.org")
    if product != 64**3:
        return Finding("torch", "fix", f"a product of ones sums to {product:g}", "another build of torch is needed")
    device = "a CUDA device, used by default" if torch.cuda.is_available() else "no CUDA device: runs use the CPU"
    return Finding("torch", "ok", f"computes; {device}")


def _threads() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    if limit.isdigit() and int(limit) > cores:
        return Finding("threads", "note", f"OMP_NUM_THREADS={limit}, {cores} cores", f"export OMP_NUM_THREADS={cores}")
    return Finding("threads", "ok", f"{cores} cores; the config's `threads` says how many training uses")


def _disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free in {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "fix", f"{folder} cannot be written", "go to a folder of yours, or give --out")
    if free < DISK_NEEDED:
        return Finding("disk", "fix", found, "free space, or give --out on another disk")
    return Finding(
        "disk", "ok" if free > DISK_WANTED else "note", found, "" if free > DISK_WANTED else "runs may fill it"
    )


def _temporary(folder: str) -> Finding:
    try:
        check_temporary(folder)
    except ConfigError as error:
        return Finding("temporary", "fix", error.message, error.hint)
    return Finding("temporary", "ok", folder)


def _corpora(folder: str) -> Finding:
    if not folder:
        return Finding("corpora", "ok", "TRUSTFORMER_DATA is not set: files are looked up where you are")
    if not Path(folder).is_dir():
        return Finding("corpora", "fix", f"TRUSTFORMER_DATA={folder} is no folder", "correct it or unset it")
    return Finding("corpora", "ok", f"TRUSTFORMER_DATA={folder}")


def _sgx() -> Finding:
    there = [device for device in SGX_DEVICES if Path(device).exists()]
    if len(there) == len(SGX_DEVICES):
        unusable = [device for device in there if not os.access(device, os.R_OK | os.W_OK)]
        if unusable:
            return Finding("SGX", "note", f"no access to {', '.join(unusable)}", "add yourself to the group sgx_prv")
        gramine = shutil.which("gramine-sgx")
        advice = "" if gramine else "install Gramine to run the enclave: docs/deploy-gramine.md"
        return Finding(
            "SGX", "ok" if gramine else "note", f"{', '.join(there)}; gramine-sgx {gramine or 'missing'}", advice
        )
    return Finding(
        *("SGX", "note", f"{', '.join(there) or 'no device'}: attestation is simulated on this machine"),
        "the aggregator of a deployment needs a server with SGX2: docs/deploy-gramine.md; clients need none",
    )


def _ports() -> Finding:
    taken = []
    for port in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(str(port))
    if taken:
        return Finding(
            "ports",
            "note",
            f"in use: {', '.join(taken)}",
            "trustformer init-federation --address HOST:PORT names another",
        )
    return Finding(
        "ports", "ok", f"{', '.join(map(str, PORTS))} is free, for trustformer serve; runs on one machine need none"
    )
