# SPDX-License-Identifier: Apache-2.0
"""What a run says before it trains that those who hold the text must know."""

from __future__ import annotations

from pathlib import Path

import pytest

from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run


class _Begun(Exception):  # noqa: N818
    pass


class Notes(PlainReporter):
    """Keeps what is said, and stops a run where training begins."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    def overall(self, done: int, total: int) -> None:
        raise _Begun


def announced(overrides: list[str], out: Path) -> str:
    notes = Notes()
    with pytest.raises(_Begun):
        run(load_config(None, overrides), out, notes)
    return "\n".join(notes.lines)


@pytest.mark.parametrize(
    ("clients", "method", "part"),
    [
        (1, "centroid", "one client the combined model is its own update"),
        (2, "fedavg", "two clients each can tell the other's update"),
        (3, "centroid", ""),
        (2, "local", ""),
    ],
)
def test_so_few_clients_that_updates_are_no_secret_are_warned(
    settings: list[str], tmp_path: Path, mini_model: None, clients: int, method: str, part: str
) -> None:
    said = announced([*settings, f"clients.count={clients}", f"method.name={method}"], tmp_path / "run")
    assert (part in said) if part else ("update" not in said)


def test_what_counts_as_public_is_said(tmp_path: Path, mini_model: None) -> None:
    rows = "".join(f"строка {n} и слово {n % 7}\tline {n} and word {n % 7}\n" for n in range(120))
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.tsv").write_text(rows, "utf-8")
    files = [f"data.{name}={tmp_path / name}.tsv" for name in ("train", "valid", "test")]
    overrides = ["data.source=tsv", *files, "tokenizer.vocab_size=64", "method.name=local"]
    said = announced(overrides, tmp_path / "run")
    assert "the first 12 pairs of train.tsv count as PUBLIC" in said
    assert "pairs of each client: 36, 36, 36" in said
    text = tmp_path / "public.txt"
    text.write_text(rows, "utf-8")
    assert "PUBLIC" not in announced([*overrides, f"tokenizer.train_on={text}"], tmp_path / "other")
