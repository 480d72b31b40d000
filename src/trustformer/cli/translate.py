# SPDX-License-Identifier: Apache-2.0
"""`trustformer translate`."""

from __future__ import annotations

import argparse
import io
import os
import stat
import sys
from itertools import islice
from pathlib import Path

_EPILOG = """\
examples:
  trustformer translate runs/demo/centroid-seed1 < sentences.ru > sentences.en
  echo 'Врач осмотрел пациента.' | trustformer translate runs/demo/centroid-seed1 --client 2

Answers come as soon as 64 lines have been read, or every line in a terminal. Where a file is read and the answers do
not go to the terminal, progress is shown.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "translate",
        help="translate sentences with a run's model",
        description="Read sentences on stdin, one a line, and write their translations on stdout.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, metavar="RUN_OR_MODEL", help="a run directory or a model folder")
    parser.add_argument(
        "--client",
        metavar="N",
        help="the model of client N instead of the common one (client 0's in runs of local and centralized)",
    )
    parser.add_argument(
        "--beams",
        type=int,
        metavar="B",
        help="beam width, 1 is greedy (default: as the run was scored, evaluation.beams; 4 with a model folder)",
    )
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.data.lines import count
    from trustformer.errors import ConfigError
    from trustformer.evaluation.translation import count_cut, longest_source, translate
    from trustformer.experiment.reporter import reporting
    from trustformer.experiment.saved import load_saved

    model, tokenizer = load_saved(options.model, options.client)
    beams = _beams(options.model) if options.beams is None else options.beams
    if beams < 1:
        raise ConfigError(f"--beams is {beams}, it must be 1 or more")
    if not model.config.is_encoder_decoder:
        raise ConfigError(f"{options.model} does not translate", "trustformer export writes it for transformers")
    if isinstance(sys.stdin, io.TextIOWrapper):  # in the locales C and C.UTF-8 it would let any byte pass
        sys.stdin.reconfigure(encoding="utf-8", errors="strict", newline="\n")
    if sys.stdin.isatty():
        print("one sentence a line; end with Ctrl-D", file=sys.stderr)
        size = 1
    else:
        size = 64  # lines read before the first answer: enough to batch, little enough to stream
    total, done, cut = 0 if sys.stdout.isatty() else _lines_of_file(), 0, 0
    with reporting(live=total > 0) as reporter:
        while lines := _read(size):
            filled = [line for line in lines if line]
            cut += count_cut(model, tokenizer, filled)
            answers = iter(translate(model, tokenizer, filled, beams=beams) if filled else [])
            for line in lines:
                print(next(answers) if line else "", flush=True)
            done += len(lines)
            if total:
                reporter.progress("translating", done, total, "lines")
    if cut:
        verb = "was" if cut == 1 else "were"
        print(
            f"warning: {count(cut, 'line')} had more than {longest_source(model)} tokens and {verb} cut",
            file=sys.stderr,
        )
    return 0


def _beams(path: Path) -> int:
    """As a run was scored, so that its BLEU is that of these translations; of a model folder as `export` sets it."""
    from trustformer.experiment.config import load_config
    from trustformer.reports.card import BEAMS

    return load_config(path / "config.toml").evaluation.beams if (path / "result.json").is_file() else BEAMS


def _lines_of_file() -> int:
    """Number of lines that stdin still holds where it is a file, else 0."""
    try:
        handle = sys.stdin.fileno()
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return 0
        place, count, last = os.lseek(handle, 0, os.SEEK_CUR), 0, b"\n"
    except OSError:  # no file at all
        return 0
    while chunk := os.pread(handle, 1 << 20, place):
        place, count, last = place + len(chunk), count + chunk.count(b"\n"), chunk[-1:]
    return count + (last != b"\n")


def _read(count: int) -> list[str]:
    from trustformer.data.lines import one_line
    from trustformer.errors import DataError

    try:
        return [one_line(line) for line in islice(sys.stdin, count)]
    except UnicodeDecodeError as error:
        raise DataError(f"the input is not UTF-8: {error}", "convert it, for example with iconv") from None
