# SPDX-License-Identifier: Apache-2.0
"""`trustformer completion`."""

from __future__ import annotations

import argparse

_EPILOG = """\
examples:
  trustformer completion bash > ~/.local/share/bash-completion/completions/trustformer
  trustformer completion zsh > ~/.zfunc/_trustformer      with fpath+=~/.zfunc before compinit
"""
_FOLDERS = ("DIR", "RUN", "FOLDER", "RUN_OR_MODEL")


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "completion",
        help="print a script that completes verbs, flags and paths in a shell",
        description="Print a script that completes verbs, flags and paths in a shell.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=("bash", "zsh"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    import shtab

    from trustformer.cli import make_parser

    parser = make_parser()
    _mark_paths(parser, shtab.FILE, shtab.DIRECTORY)
    print(shtab.complete(parser, options.shell))
    return 0


def _mark_paths(parser: argparse.ArgumentParser, file: dict[str, str], folder: dict[str, str]) -> None:
    """Say of every argument that is a path what kind of path it is: its type and metavar tell."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                _mark_paths(verb, file, folder)
        elif getattr(action.type, "__name__", "") == "Path" or action.metavar == "INPUT":
            action.complete = folder if action.metavar in _FOLDERS else file  # type: ignore[attr-defined]
