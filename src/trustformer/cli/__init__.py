# SPDX-License-Identifier: Apache-2.0
"""The command line. One file a verb: parse, call, print. `--help` never imports torch."""

from __future__ import annotations

import argparse
import errno
import io
import os
import shlex
import sys
import traceback
from collections.abc import Sequence

from trustformer.cli import (
    attack,
    attest,
    compare,
    completion,
    deploy,
    doctor,
    export,
    gain,
    inspect,
    prepare,
    report,
    run,
    translate,
)
from trustformer.errors import TrustformerError
from trustformer.foreign import printable

_EPILOG = """\
examples:
  trustformer run                                the quick start: three clients, synthetic sentences
  trustformer run config.toml --out runs/mine    your own federation; --resume goes on after a stop
  trustformer translate runs/mine                then type sentences
  trustformer export runs/mine --to models/mine     a folder that transformers loads
  trustformer compare a.toml b.toml --out runs/ab
  trustformer init-federation fed --clients 3       many machines: then serve and join
  trustformer prepare memory.tmx --out data/ours your own translation memory as a client folder

exit codes: 0 done, 1 failure, 2 usage or config, 3 attestation refused, 130 interrupted (state saved)
"""

_FULL = "free space, then go on: a run with --resume, serve and join by starting them again"
_STRICT = ("utf-8", "strict")
_HINTS = {errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.EFBIG: _FULL}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; a parsed verb leaves its function in `run`."""
    parser = argparse.ArgumentParser(
        prog="trustformer",
        description="Federated training of Transformers in which only sealed k-means centroids, with their codes, "
        "leave a client.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=_version())
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    for verb in (
        run,
        translate,
        export,
        compare,
        report,
        inspect,
        prepare,
        gain,
        attack,
        attest,
        deploy,
        doctor,
        completion,
    ):
        verb.add_parser(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = make_parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper) and (sys.stdout.encoding.lower(), sys.stdout.errors) == _STRICT:
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files that are not UTF-8, as in the locale C.UTF-8
    try:
        return int(options.run(options))
    except TrustformerError as error:
        _complain(error.message, error.hint, debug=options.debug)
        return error.exit_code
    except BrokenPipeError:  # whoever read the output has gone; nothing more is written, at exit neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        what = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
        _complain(what, _HINTS.get(error.errno or 0, ""), debug=options.debug)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:  # a damaged file, or a fault of this program
        what = f"{type(error).__name__}: {error}"
        command = shlex.join(["trustformer", "--debug", *(sys.argv[1:] if arguments is None else arguments)])
        _complain(what, "" if options.debug else f"{command} says where", debug=options.debug)
        return 1


def _complain(message: str, hint: str, *, debug: bool) -> None:
    if debug:
        traceback.print_exc()
    for kind, text in (("error", message), ("hint", hint)):
        if text:  # parts of it may be of a foreign file
            print(f"{kind}: {printable(text)}", file=sys.stderr)


def _version() -> str:
    from importlib.metadata import version

    from trustformer.message import WIRE_VERSION

    return f"trustformer {version('trustformer')} (wire format {WIRE_VERSION})"
