# SPDX-License-Identifier: Apache-2.0
"""Every shell command of README and docs is run as it stands, page by page, in a folder with what the page presumes.

`trustformer` runs in this process, with small settings appended to verbs that train; anything else runs in a shell.
What cannot run here is listed with the reason.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk import Desk

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])

THIS = "it is the run this test is part of, or contains it"
LONG = "takes hours; the recorded results it makes are checked by tests/reports"
NETWORK = "installs from a package index"
HARDWARE = "needs Gramine and a processor with SGX"
DEPLOYED = "starts the processes of a deployment, which need the extra flower: tests/flower"
NOT_RUN = {
    "make demo": "takes four minutes; docs/quickstart.md runs its comparison in small",
    "make test": THIS,
    "make check": THIS,
    "make setup": NETWORK,
    "make docs": "tests/docs/test_site.py does what it does, beside the working tree",
    "make figures": LONG,
    "make paper": LONG,
    "make paper-scores PAPER=DIR BERT=DIR": "needs packages and a model of other people's",
    "make paper-page": "writes a page into the working tree, from what make paper left",
    "make wheel-check": NETWORK,
    "pip install -c constraints.txt -e '.[flower]'": NETWORK,
    "trustformer init-federation fed --clients 3": DEPLOYED,
    "trustformer init-federation fed --clients 3 --set privacy.mechanism=records --set privacy.epsilon=8"
    " --set privacy.delta=1e-5": DEPLOYED,
    "trustformer init-federation fed new.toml --clients 4 --set model.preset=OLD/client-0/common": DEPLOYED,
    "trustformer init-federation fed config.toml --clients 3 --address federation.example.org:9443": DEPLOYED,
    "trustformer serve fed/host": DEPLOYED,
    "trustformer join fed/client-0": DEPLOYED,
    "trustformer join fed/client-1": DEPLOYED,
    "trustformer join fed/client-2": DEPLOYED,
    "trustformer attest audit fed/host fed/client-0 fed/client-1 fed/client-2": DEPLOYED,
    "enclave/measure.sh root": "collects a root file system of Debian packages: tests/enclave/test_enclave_package.py",
    "KEY=enclave-key.pem enclave/measure.sh sign": HARDWARE,
    "trustformer init-federation fed config.toml --policy policy.toml --address federation.example.org:9443": DEPLOYED,
    "gramine-sgx enclave/trustformer-enclave < fed/host/terms.bin": HARDWARE,
    "trustformer attest fetch --quote quote.bin --service intel --out collateral.json": "asks a service of Intel's",
    "trustformer run --set data.source=hf --set data.name=wmt19 --set data.config=ru-en --set data.test=validation": (
        "fetches a data set from the hub"
    ),
    "python -I -B -m trustformer.enclave --socket /run/e.sock --terms RUN/terms.bin --state RUN/enclave "
    "--provider simulated --evidence RUN/enclave/simulated": "serves until it is ended: tests/enclave does it",
    "trustformer run --set method.name=fedavg16 --out runs/fedavg16": "tests/docs/test_add_a_method.py runs it",
    "trustformer compare configs/demo/fedavg.toml fedavg16.toml --out runs/half": "fedavg16 is only in the page's copy",
}
SMALLER = {
    "--seeds 1 2 3": "--seeds 1",
    "--set rounds=12 --set train.local_epochs=2": "--set rounds=1",
    "clients.count=200": "clients.count=3",
    "data.limit=4000": "data.limit=30",
    "trustformer attack runs/mine": "trustformer attack runs/mine --attack sizes",
}
"""What would take minutes, and what is run in its place."""
PROGRAMS = ("gramine-sgx", "trustformer", ".venv/bin/trustformer", "enclave/measure.sh", ".")


def blocks(text: str) -> Iterator[str]:
    """Yield the indented blocks of a page and those fenced as sh, in order; output, maths and drawings are neither."""
    fence, block, before = "", "", ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            fence = "" if fence else line
        elif fence == "```sh":
            block += f"{line}\n"
        elif not fence and line.startswith("    ") and (block or not before):
            block += f"{line[4:]}\n"
        elif block and line:
            yield block
            block = ""
        before = line
    if block:
        yield block


def commands(text: str) -> list[str]:
    """Return the commands of a page, each on one line and without its comment."""
    found = []
    for block in blocks(text):
        for line in re.sub(r" *\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\s+#\s.*$", "", line).strip()
            words = line.split()
            while words and re.fullmatch(r"[A-Z]+=\S+", words[0]):
                words = words[1:]
            if words and (words[0] in PROGRAMS or words[0].startswith(".venv/") or shutil.which(words[0])):
                found.append(line)
    return found


COMMANDS = {page.relative_to(ROOT).as_posix(): commands(page.read_text("utf-8")) for page in PAGES}
"""By page."""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return Desk(tmp_path)


@pytest.mark.parametrize("page", [page for page, found in COMMANDS.items() if set(found) - NOT_RUN.keys()])
def test_the_commands_of_a_page_work(page: str, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.presume(page)
    for command in COMMANDS[page]:
        if command not in NOT_RUN:
            for large, small in SMALLER.items():
                command = command.replace(large, small)
            code, said = desk.run(command)
            assert code == 0, f"{page}: {command}\n{said}"
    if page == "docs/quickstart.md":
        (program,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.DOTALL | re.MULTILINE)
        monkeypatch.chdir(desk.folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers recommends another package
            exec(program, {})


def test_what_is_not_run_is_on_a_page_and_has_a_reason() -> None:
    assert NOT_RUN.keys() <= {command for found in COMMANDS.values() for command in found}
    assert all(NOT_RUN.values())
    everything = "\n".join(command for found in COMMANDS.values() for command in found)
    assert all(large in everything for large in SMALLER)


def test_commands_are_found_where_a_reader_finds_them() -> None:
    page = "Text:\n\n    make x   # why\n    trustformer a \\\n        --b c\n\n```sh\nls -l\n```\n\n```toml\nls\n```\n"
    assert commands(page) == ["make x", "trustformer a --b c", "ls -l"]
    for page in ("README.md", "docs/quickstart.md", "docs/data.md", "docs/attestation.md", "CONTRIBUTING.md"):
        assert COMMANDS[page], page
