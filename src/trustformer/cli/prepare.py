# SPDX-License-Identifier: Apache-2.0
"""`trustformer prepare`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

_EPILOG = """\
examples:
  trustformer prepare memory.tmx --out data/ours
  trustformer prepare corpus.ru corpus.en --out data/ours --domain legal
  trustformer prepare pairs.jsonl.gz more.tsv --out data/ours --valid 0.05 --test 0.05
  trustformer prepare wmt19 --format hf --hf-config ru-en --out data/wmt19

DIR gets train.tsv.gz, valid.tsv.gz, test.tsv.gz, domain labels where there are any, report.json and report.txt.
A hash of the source sentence decides the split, so all who hold a sentence put it in the same one. Use it with
--set data.source=folder --set data.train=DIR, or one folder a client: --set 'clients.folders=["DIR", "DIR2"]'.
"""


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the verb."""
    parser = verbs.add_parser(
        "prepare",
        help="turn corpora of any format into a client folder",
        description="Read tsv, TMX, JSON Lines, aligned text or a Hugging Face data set; divide, check and count it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="file, folder or name of a data set; also .gz")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="client folder to make")
    formats = ("auto", "tsv", "tmx", "jsonl", "text", "hf")
    parser.add_argument("--format", choices=formats, default="auto", help="default: by the names of the inputs")
    parser.add_argument("--source-language", default="ru", metavar="CODE", help="default ru")
    parser.add_argument("--target-language", default="en", metavar="CODE", help="default en")
    parser.add_argument("--valid", type=float, default=0.02, metavar="SHARE", help="of validation (default 0.02)")
    parser.add_argument("--test", type=float, default=0.02, metavar="SHARE", help="of the test set (default 0.02)")
    parser.add_argument("--keep-repeated", action="store_true", help="keep pairs equal to an earlier one")
    parser.add_argument("--domain", default="", metavar="LABEL", help="label of all pairs that have none")
    parser.add_argument("--hf-config", default="", metavar="NAME", help="configuration of the data set, such as ru-en")
    parser.add_argument("--hf-split", default="", metavar="NAME", help="split of the data set (default train)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON on stdout")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from trustformer.data.intake import IntakeOptions, prepare_folder
    from trustformer.data.survey import summary
    from trustformer.experiment.reporter import reporting
    from trustformer.foreign import shown

    settings = IntakeOptions(
        kind=options.format,
        source=options.source_language,
        target=options.target_language,
        valid=options.valid,
        test=options.test,
        keep_repeated=options.keep_repeated,
        domain=options.domain,
        hub_config=options.hf_config,
        hub_split=options.hf_split,
    )
    with reporting():
        report = prepare_folder(options.inputs, options.out, settings)
    if options.json:
        print(json.dumps(report, indent=2, ensure_ascii=False))
    else:
        print(summary(report), end="")
        print(f"written: {shown(str(options.out), None)}")
    return 0
