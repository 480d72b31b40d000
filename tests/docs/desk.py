# SPDX-License-Identifier: Apache-2.0
"""A folder in which a reader follows a page: what pages presume to be there, and a shell with `trustformer` in it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.sax.saxutils import escape

from trustformer.cli import main
from trustformer.data.corpus import Pair
from trustformer.data.toy import toy_corpus

ROOT = Path(__file__).parents[2]
SMALL = {
    "rounds": "1",
    "data.limit": "30",
    "model.preset": "micro",
    "model.max_length": "24",
    "tokenizer.vocab_size": "150",
    "tokenizer.public_share": "0.6",
    "method.clusters": "16",
    "evaluation.test_pairs": "4",
    "evaluation.valid_pairs": "4",
    "enclave.process": "false",
    "record_messages": "true",
}
"""Set where a command does not set it itself."""
TRAINING = ("run", "compare")
_UNIT = '<tu><tuv xml:lang="ru"><seg>{}</seg></tuv><tuv xml:lang="en"><seg>{}</seg></tuv></tu>'


class Desk:
    """The folder, and what can be done in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("configs", ".pre-commit-config.yaml"):
            (folder / name).symlink_to(ROOT / name)
        (folder / ".venv").symlink_to(sys.prefix)
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
        corpus, _ = toy_corpus(3, train=90, valid=6, test=6, public=0)
        self.pairs = {"train": corpus.train, "valid": corpus.valid, "test": corpus.test}
        for name, pairs in self.pairs.items():
            self.write(f"{name}.tsv", lines(pairs, lambda pair: f"{pair.source}\t{pair.target}"))

    def run(self, command: str) -> tuple[int, str]:
        """Run a command line; returns its exit status and what it said."""
        words = shlex.split(command)
        if "trustformer" not in (Path(word).name for word in words):
            done = subprocess.run(command, shell=True, cwd=self.folder, capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr
        given, out = b"", ""
        if ">" in words:
            command, out = (part.strip() for part in command.split(">"))
            words = shlex.split(command)
        if "|" in words:
            before, _, command = command.partition("|")
            given = subprocess.run(before, shell=True, cwd=self.folder, capture_output=True, check=True).stdout
            words = shlex.split(command)
        if "<" in words:
            words, given = words[: words.index("<")], (self.folder / words[words.index("<") + 1]).read_bytes()
        code, said = self._trustformer(words[1:], given)
        if out:
            self.write(out, said)
        return code, said

    def _trustformer(self, arguments: list[str], given: bytes = b"") -> tuple[int, str]:
        resumed = "--resume" in arguments and "--set" not in arguments
        if arguments[0] in TRAINING and not resumed:
            here = {word.partition("=")[0] for word in arguments}
            arguments = arguments + [
                word for key, value in SMALL.items() if key not in here for word in ("--set", f"{key}={value}")
            ]
        said = io.StringIO()
        stdin, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(given), "utf-8")
        try:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = main(arguments)
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        finally:
            sys.stdin = stdin
        return code, said.getvalue()

    def done(self, command: str) -> None:
        """Run what a page presumes to have been done."""
        code, said = self.run(command)
        assert code == 0, f"{command}\n{said}"

    def write(self, name: str, text: str | bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)

    def presume(self, page: str) -> None:
        """Put there what a page presumes to be there."""
        if page in PRESUMED:
            PRESUMED[page](self)


TSV = " ".join(f"--set data.{name}={name}.tsv" for name in ("train", "valid", "test")) + " --set data.source=tsv"
"""As the files that a desk has from the start; a quarter of the time of the built-in corpus."""


def lines(pairs: list[Pair], form: Callable[[Pair], str]) -> str:
    return "".join(f"{form(pair)}\n" for pair in pairs)


def readme(desk: Desk) -> None:
    units = lines(desk.pairs["train"], lambda pair: _UNIT.format(escape(pair.source), escape(pair.target)))
    desk.write("memory.tmx", f'<tmx version="1.4"><header/><body>{units}</body></tmx>')
    desk.write("sentences.txt", lines(desk.pairs["test"], lambda pair: pair.source))
    for name, method in (("a", "local"), ("b", "centroid")):
        desk.write(f"{name}.toml", f'[method]\nname = "{method}"\n')


def data(desk: Desk) -> None:
    for name, pairs in desk.pairs.items():
        desk.write(
            f"{name}.jsonl", lines(pairs, lambda pair: json.dumps({"source": pair.source, "target": pair.target}))
        )
        desk.write(f"{name}.txt", lines(pairs, lambda pair: pair.target))
    desk.write("corpus.ru", lines(desk.pairs["train"], lambda pair: pair.source))
    desk.write("corpus.en", lines(desk.pairs["train"], lambda pair: pair.target))
    shutil.copy(ROOT / "tests" / "data" / "samples" / "memory.tmx", desk.folder)
    for name, method in (("ours", "centroid"), ("ours-local", "local")):
        desk.done(f"trustformer run --set method.name={method} {TSV} --out runs/{name}")


def attestation(desk: Desk) -> None:
    from trustformer.attestation.parsing import parse_time
    from trustformer.attestation.release import Release, sign_release
    from trustformer.secure.identity import Identity

    desk.done(f"trustformer run {TSV} --out run")
    record = json.loads((desk.folder / "run" / "attestation.json").read_text("utf-8"))["verifications"][-1]
    desk.write("quote.bin", base64.b64decode(record["quote"]))
    desk.write("collateral.json", base64.b64decode(record["collateral"]))
    policy = (desk.folder / "run" / "policy.toml").read_text("utf-8")
    desk.write("policy.toml", policy)
    measurement = next(line.split('"')[1] for line in policy.splitlines() if line.startswith("mrenclave"))
    publisher = Identity.generate()
    desk.write("KEY", publisher.public.hex())
    release = Release(
        version="1.4.0",
        time="2025-05-01T12:00:00Z",
        mrenclave=(measurement,),
        min_isv_svn=0,
        advisories=(),
        min_tcb_evaluation_data_number=0,
    )
    desk.write("release.json", sign_release(release, publisher, now=parse_time(release.time, "the release")))


def operations(desk: Desk) -> None:
    desk.done(f"trustformer run {TSV} --out OLD")
    desk.write("new.toml", '[data]\nsource = "tsv"\ntrain = "train.tsv"\nvalid = "valid.tsv"\ntest = "test.tsv"\n')


def deploy_flower(desk: Desk) -> None:
    (desk.folder / "train.tsv").rename(desk.folder / "public.tsv")
    desk.done("trustformer prepare public.tsv --out client-0/ours --source-language de --target-language en")
    desk.done("trustformer run --out run")
    (desk.folder / "run" / "model").rename(desk.folder / "client-0" / "common")


PRESUMED = {
    "README.md": readme,
    "docs/deploy-flower.md": deploy_flower,
    "docs/data.md": data,
    "docs/attestation.md": attestation,
    "docs/operations.md": operations,
}
"""By page."""
