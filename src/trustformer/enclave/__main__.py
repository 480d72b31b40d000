# SPDX-License-Identifier: Apache-2.0
"""`python -I -B -m trustformer.enclave`: one boot of the aggregator as a process of its own.

The command line names files, a socket and the kind of evidence. None of it changes what is measured, and none of
it is believed by a client: terms and provider are in the digest that every quote is bound to.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import resource
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from trustformer.attestation.evidence import Attester
from trustformer.attestation.gramine import DEFAULT_DIRECTORY, GramineAttester
from trustformer.attestation.simulated import BANNER, SimulatedAttester
from trustformer.enclave.config import RunConfig
from trustformer.enclave.measurement import simulated_measurement
from trustformer.enclave.service import Service
from trustformer.enclave.session import Enclave
from trustformer.enclave.state import StateStore
from trustformer.errors import ConfigError, TrustformerError

MAX_TERMS = 2**24
_LOCK_SECONDS = 10.0


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump would hold keys and centroids
    sys.excepthook = _terse
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C goes to the whole group; the parent decides
    try:
        options = _parser().parse_args()
        _serve(options)
    except TrustformerError as error:
        print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trustformer.enclave", allow_abbrev=False, description=__doc__)
    parser.add_argument("--socket", required=True, help="Unix socket to serve on, or tcp:PORT of the loopback device")
    parser.add_argument("--terms", required=True, help="terms.bin of the run; - for standard input")
    parser.add_argument("--state", type=Path, required=True, help="folder of the sealed state")
    parser.add_argument("--provider", choices=("simulated", "gramine-dcap"), required=True)
    parser.add_argument("--evidence", type=Path, help="folder of the simulated root; or of Gramine's pseudo-files")
    parser.add_argument("--until-disconnect", action="store_true", help="end with the last connection")
    return parser


def _serve(options: argparse.Namespace) -> None:
    if not sys.flags.isolated:
        raise ConfigError("the environment could change what runs", "start it with python -I -B -m trustformer.enclave")
    try:
        with open(0 if options.terms == "-" else options.terms, "rb") as file:
            config = RunConfig.from_bytes(file.read(MAX_TERMS))
    except OSError as error:
        raise ConfigError(f"the terms {options.terms} cannot be read: {error.strerror}") from None
    if config.provider != options.provider:
        raise ConfigError(f"the terms say provider {config.provider!r}, the command line {options.provider!r}")
    attester = _attester(options)
    try:
        options.state.mkdir(parents=True, exist_ok=True)
        lock = _lock(options.state / "lock")
    except OSError as error:
        raise ConfigError(f"the state folder {options.state} cannot be used: {error.strerror}") from None
    enclave = Enclave(config, StateStore(options.state, config.digest), attester)
    service = Service(enclave, config, options.socket, linger=not options.until_disconnect)
    print(f"serving run {config.run_id.hex()} from round {enclave.round}", file=sys.stderr, flush=True)
    try:
        service.run()
    finally:
        os.close(lock)


def _attester(options: argparse.Namespace) -> Attester:
    if options.provider == "gramine-dcap":
        return GramineAttester(options.evidence or DEFAULT_DIRECTORY)
    if options.evidence is None:
        raise ConfigError("the simulated provider needs --evidence", "name the folder of its root")
    print(BANNER, file=sys.stderr, flush=True)
    return SimulatedAttester.load(options.evidence, measurement=simulated_measurement())


def _lock(path: Path) -> int:
    """One enclave a state folder: two would each release a result for one round."""
    handle, deadline = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(handle)
                raise ConfigError(f"another enclave uses {path.parent}", "stop it first") from None
            time.sleep(0.05)
        except OSError:  # a file system without locks: nothing but an operator's care is lost
            return handle


def _terse(kind: type[BaseException], _error: BaseException, trace: TracebackType | None) -> None:
    """Log where a fault was, never what it says: texts of errors may quote values."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}" if trace else "?"
    print(f"error: {kind.__name__} at {where}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
