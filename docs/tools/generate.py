# SPDX-License-Identifier: Apache-2.0
"""Writes the pages of docs/ that are made from the code and from recorded results: `make docs` runs it.

python docs/tools/generate.py
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from trustformer.cli import make_parser
from trustformer.experiment.reference import config_reference
from trustformer.reports import task_tables
from trustformer.reports.summary import summarise
from trustformer.reports.tables import note, title, visible

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
OWN_PAGES = {"families": "families.md"}
"""Folders of results whose runs are of many kinds: a page of their own has their tables."""

FIGURES = {"multi30k": ("", "![BLEU against bytes: a line for FedAvg, one for no communication](images/bleu.svg)")}
"""Pictures of recorded results."""
WIDTH = "94"
"""Columns of the help texts."""


def cli_reference() -> str:
    """Return every verb's help as Markdown."""
    os.environ["COLUMNS"] = WIDTH
    lines = [
        "# Command line",
        "",
        "What `--help` says of each verb. This page is generated from the code by `make docs`.",
    ]
    for name, parser in _verbs(make_parser()):
        lines += ["", f"## {name}" if name.count(" ") < 2 else f"### {name}", "", "```text", _help(parser), "```"]
    return "\n".join(lines) + "\n"


def _verbs(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the parser and, in order, all below it."""
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from _verbs(child)


def _help(parser: argparse.ArgumentParser) -> str:
    return "\n".join(line.rstrip() for line in parser.format_help().rstrip().splitlines())


def results_page() -> str:
    """Return the recorded results as Markdown: a section a row of benchmarks/README.md."""
    lines = [
        *("# Recorded results", ""),
        "Every run behind this page is in the repository with its config, seeds, hardware and signature. This page is",
        "generated from `benchmarks/results` by `make docs`; [Log](log.md) says what was tried and did not help.",
    ]
    others = []
    for what, config, places, command in _recorded():
        folders = [BENCHMARKS / place for place in places if (BENCHMARKS / place).is_dir()]
        own = [OWN_PAGES[folder.name] for folder in folders if folder.name in OWN_PAGES]
        named = len(folders) > 1
        tables = [] if own else _once(line for folder in folders for line in _tables(folder, named=named))
        if not tables:
            where = [f"[{page}]({page})" for page in own] or [f"`benchmarks/{place}`" for place in places]
            others.append(f"| {what} | {', '.join(where)} | {command} |")
            continue
        files = f"Configs: {config}. " if config else ""
        reports = [folder for folder in folders if (folder / "report.html").is_file()]
        links = [f" [Full report](../{folder.relative_to(ROOT).as_posix()}/report.html)." for folder in reports]
        lines += ["", f"## {what[0].upper()}{what[1:]}", "", f"{files}Repeat it: {command}.{''.join(links)}"]
        lines += [part for folder in folders for part in FIGURES.get(folder.name, ())]
        lines += tables
    lines += ["", "## Other measurements", "", "| what | recorded in | command |", "| --- | --- | --- |", *others]
    return "\n".join(lines) + "\n"


def _recorded() -> Iterator[tuple[str, str, list[str], str]]:
    """Yield what, first config, places of results and command of the rows of the table in benchmarks/README.md."""
    for line in (BENCHMARKS / "README.md").read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 4 and "`" in cells[2]:
            config, kept, command = (re.findall(r"`([^`]+)`", cell) for cell in cells[1:])
            here = [place if place.startswith("results/") else f"results/{place}" for place in kept]
            configs = ", ".join(f"`benchmarks/{name}`" for name in config)
            places = [place for place in here if (BENCHMARKS / place).exists()]
            yield cells[0], configs, places, " and ".join(f"`{line}`" for line in command)


def _tables(folder: Path, *, named: bool) -> Iterator[str]:
    """Yield a table for each task and corpus among a folder's runs, headed by its name if `named`, and the hardware."""
    groups: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    machines = set()
    for path in sorted(folder.glob("*/result.json")):
        result = json.loads(path.read_text("utf-8"))
        if "signature" not in result:
            return
        config = tomllib.loads(path.with_name("config.toml").read_text("utf-8"))
        result["beams"] = config.get("evaluation", {}).get("beams", 1)
        key = (result.get("task", "translation"), result["data"], result["parameters"])
        groups.setdefault(key, []).append(result)
        if (environment := path.with_name("environment.json")).is_file():
            machine = json.loads(environment.read_text("utf-8"))
            device = "" if machine.get("device", "cpu") == "cpu" else f"{machine['device']}, "
            machines.add(
                f"{device}{machine['processor']}, {machine['cores']} cores, torch {machine['packages']['torch']}"
            )
    for (task, *_), results in groups.items():
        counts = sorted({result["rounds"] for result in results})
        where = f"`{folder.name}`, rounds: {', '.join(map(str, counts))}. " if named else ""
        yield from ("", f"{where}{title(results)}.", "")
        if task == "translation":
            rows = summarise(results)
            yield from (*_markdown(*visible(rows)), "", note(rows))
        else:
            yield from (
                *_markdown(task_tables.columns(results), task_tables.rows(results)),
                "",
                task_tables.note(results),
            )
    if machines:
        yield from ("", f"Made on: {'; '.join(sorted(machines))}.")


def _once(lines: Iterable[str]) -> list[str]:
    """Return the lines without those notes that were there before."""
    seen: set[str] = set()
    kept = []
    for line in lines:
        if line.startswith(("BLEU, chrF, NLL:", "Scores:", "Made on:")):
            if line in seen:
                continue
            seen.add(line)
        kept.append(line)
    return kept


def _markdown(heads: tuple[str, ...], lines: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield "|" + "|".join([" --- "] + [" ---: "] * (len(heads) - 1)) + "|"
    yield from (f"| {' | '.join(line)} |" for line in lines)


PAGES = {"config.md": config_reference, "cli.md": cli_reference, "results.md": results_page}


def main() -> None:
    """Write the pages, each as a whole."""
    for name, make in PAGES.items():
        path = ROOT / "docs" / name
        temporary = path.with_suffix(".new")
        temporary.write_text(make(), "utf-8")
        os.replace(temporary, path)


if __name__ == "__main__":
    main()
