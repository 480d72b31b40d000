# SPDX-License-Identifier: Apache-2.0
"""From files of any format to a client folder with its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from trustformer.data.aligned import aligned_files, read_aligned, without_language
from trustformer.data.corpus import Pair
from trustformer.data.folder import check_free, write_folder
from trustformer.data.formats import FileFormat, detect, find, read_file
from trustformer.data.hub import open_hub, read_split
from trustformer.data.split import divide
from trustformer.data.survey import summary, survey
from trustformer.errors import ConfigError
from trustformer.foreign import shown

Format = Literal["auto", "tsv", "tmx", "jsonl", "text", "hf"]


@dataclass(frozen=True)
class IntakeOptions:
    """How inputs are read and divided.

    Attributes:
        kind: format of all inputs; `auto` goes by their names.
        source, target: language codes.
        valid, test: shares of the pairs, by hash of the source.
        keep_repeated: keep pairs equal to an earlier one.
        domain: label of all pairs without one.
        hub_config, hub_split: of `hf`: configuration and split to read, `train` where none is named.
    """

    kind: Format = "auto"
    source: str = "ru"
    target: str = "en"
    valid: float = 0.02
    test: float = 0.02
    keep_repeated: bool = False
    domain: str = ""
    hub_config: str = ""
    hub_split: str = ""


def prepare_folder(inputs: Sequence[str], out: Path, options: IntakeOptions) -> dict[str, Any]:
    """Read all inputs, divide their pairs and write the client folder `out` with `report.json` and `report.txt`.

    Returns:
        The report.

    Raises:
        ConfigError: `out` is not free, or an option out of range.
        DataError: an input that cannot be used; names file and line.
    """
    check_free(out)
    _check_options(options)
    readings = _read_all(inputs, options)
    warnings = [shown(warning, None) for _, _, found in readings for warning in found]
    division = divide(
        [[_labelled(pair, options.domain) for pair in pairs] for _, pairs, _ in readings],
        valid=options.valid,
        test=options.test,
        keep_repeated=options.keep_repeated,
    )
    report = {
        "inputs": [{"name": shown(name, None), "pairs": len(pairs)} for name, pairs, _ in readings],
        "shares": {"valid": options.valid, "test": options.test},
        **survey(division, (options.source, options.target), warnings),
    }
    others = {"report.json": json.dumps(report, indent=2, ensure_ascii=False) + "\n", "report.txt": summary(report)}
    write_folder(out, division.splits, others)
    return report


def _check_options(options: IntakeOptions) -> None:
    if options.kind != "hf" and (options.hub_config or options.hub_split):
        raise ConfigError("--hf-config and --hf-split are of data sets, not of files", "leave them out, or --format hf")
    for option, text in (
        ("--domain", options.domain),
        ("--source-language", options.source),
        ("--target-language", options.target),
    ):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{option} {shown(text)!r} is not UTF-8", "write it in UTF-8") from None


def _read_all(inputs: Sequence[str], options: IntakeOptions) -> list[tuple[str, list[Pair], list[str]]]:
    """Name, pairs and warnings of each input; two aligned files are one."""
    source, target = options.source, options.target
    if options.kind == "hf":
        return [
            (text, *read_split(open_hub(text, options.hub_config), text, options.hub_split or "train", source, target))
            for text in inputs
        ]
    if options.kind == "text" and _side_by_side(inputs, (source, target)):
        if len(inputs) % 2:
            raise ConfigError(
                f"aligned text comes in two files, {inputs[-1]} has no partner", "give source and target in turn"
            )
        couples = zip(inputs[::2], inputs[1::2], strict=True)
        return [(Path(one).name, *read_aligned(Path(one), Path(other))) for one, other in couples]
    found: dict[tuple[Path, ...], FileFormat] = {}
    for text in inputs:
        kind = options.kind if options.kind != "auto" else detect(Path(text), source, target)
        path = _locate(kind, text, (source, target))
        files = aligned_files(path, source, target, [Path(one) for one in inputs]) if kind == "text" else (path,)
        found[files] = kind  # the two files of a text are one input, whether one or both are named
    return [
        (files[0].name, *(read_aligned(*files) if kind == "text" else read_file(kind, files[0], source, target)))
        for files, kind in found.items()
    ]


def _locate(kind: FileFormat, text: str, languages: tuple[str, str]) -> Path:
    """The file as an argument names it, for `text` one of two or their prefix; one that is not there as `find` does."""
    if kind != "text":
        return Path(text) if Path(text).exists() else find(kind, text, Path(), *languages)
    bare = without_language(text, languages)
    names = [f"{bare}.{code}{end}" for code in languages for end in ("", ".gz")]
    if Path(text).is_dir() or any(Path(name).exists() for name in names):
        return Path(text)
    return find(kind, bare, Path(), *languages).with_name(Path(text).name)


def _labelled(pair: Pair, domain: str) -> Pair:
    return pair if pair.domain or not domain else replace(pair, domain=domain)


def _side_by_side(inputs: Sequence[str], languages: tuple[str, str]) -> bool:
    """Whether aligned files are named without their languages, so that only their order tells which is which."""
    return all(
        Path(text).is_file() and without_language(text, languages) == text.removesuffix(".gz") for text in inputs
    )
