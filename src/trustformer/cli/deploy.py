# SPDX-License-Identifier: Apache-2.0
"""`trustformer init-federation`, `serve` and `join`: a federation of many machines."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

_EPILOG = """\
examples:
  trustformer init-federation fed --clients 3        then the commands it prints, each in a terminal of its own
  trustformer init-federation fed config.toml --clients 5 --address federation.example.org:9443

docs/deploy-flower.md goes through it step by step, docs/deploy-gramine.md with an enclave in SGX.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the three verbs."""
    formatter = argparse.RawDescriptionHelpFormatter
    init = verbs.add_parser(
        "init-federation",
        help="write keys, terms and folders of a federation of many machines",
        description="Write one folder for the host and one for each client: keys, roster, policy, TLS, first model.",
        epilog=_EPILOG,
        formatter_class=formatter,
    )
    init.add_argument("folder", type=Path, metavar="DIR", help="folder to make")
    init.add_argument("config", nargs="?", type=Path, metavar="CONFIG.toml", help="as of trustformer run")
    init.add_argument("--clients", type=int, metavar="N", help="number of clients (default: of the config)")
    init.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one key; repeatable")
    init.add_argument(
        "--address", default="127.0.0.1:9443", metavar="HOST:PORT", help="where clients reach the host (%(default)s)"
    )
    init.add_argument(
        "--policy", type=Path, metavar="FILE", help="the SGX enclave that clients accept; without: a simulated one"
    )
    init.set_defaults(run=_init)
    for name, folder, what, run in (
        ("serve", "fed/host", "run the host of a federation: enclave, SuperLink and relay", _serve),
        ("join", "fed/client-0", "take part in a federation as one client", _join),
    ):
        verb = verbs.add_parser(
            name,
            help=what,
            description=what[0].upper() + what[1:] + ".",
            epilog=f"example:\n  trustformer {name} {folder}\n\ndocs/deploy-flower.md goes through it step by step.",
            formatter_class=formatter,
        )
        verb.add_argument("folder", type=Path, metavar="DIR", help="folder that init-federation wrote")
        verb.set_defaults(run=run)


def _init(options: argparse.Namespace) -> int:
    from trustformer.flower import require_flwr

    require_flwr()
    from trustformer.attestation.simulated import BANNER
    from trustformer.experiment.config import QUICKSTART, load_config
    from trustformer.experiment.reporter import reporting
    from trustformer.flower.settings import ENCLAVE, HostConfig, listening
    from trustformer.flower.setup import init_federation

    settings = list(options.set)
    if options.clients is not None:
        settings.append(f"clients.count={options.clients}")
    if not any(item.startswith("enclave.release=") for item in settings):
        settings.append("enclave.release=acknowledged")
    own_data = any(item.startswith("data.source=") and item != "data.source=toy" for item in settings)
    config = load_config(options.config or (None if own_data else QUICKSTART), settings)
    enclave = "" if options.policy is None else ENCLAVE
    host_config = HostConfig(listen=listening(options.address), enclave=enclave)
    with reporting():
        commands = init_federation(options.folder, config, options.address, host_config, options.policy)
    print(f"written: {options.folder} (read {options.folder / 'README.md'})\n{commands.about}")
    if options.policy is None:
        print(BANNER)
    print(f"on the host:\n  {commands.serve}")
    print("on the clients:\n  " + "\n  ".join(commands.join.values()))
    return 0


def _serve(options: argparse.Namespace) -> int:
    from trustformer.flower import require_flwr

    require_flwr()
    from trustformer.experiment.reporter import reporting
    from trustformer.flower.serve import serve

    with reporting(live=False) as reporter:
        return _until_told(lambda: serve(options.folder, reporter), "serve", options.folder)


def _join(options: argparse.Namespace) -> int:
    from trustformer.flower import require_flwr

    require_flwr()
    from trustformer.experiment.reporter import reporting
    from trustformer.flower.member import join

    with reporting(live=False) as reporter:
        return _until_told(lambda: join(options.folder, reporter), "join", options.folder)


def _until_told(work: Callable[[], None], verb: str, folder: Path) -> int:
    """Do it; on ctrl-C or SIGTERM end in order and say how to go on."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        work()
    except KeyboardInterrupt:
        command = shlex.join(["trustformer", verb, str(folder)])
        print(f"\ninterrupted; state saved. Go on with:\n  {command}", file=sys.stderr)
        return 130
    return 0


def _interrupt(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
