# SPDX-License-Identifier: Apache-2.0
"""What a run says before it trains that those who hold the text must know."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trustformer.experiment.config import load_config
from trustformer.experiment.reporter import PlainReporter
from trustformer.experiment.runner import run


class _Begun(Exception):  # noqa: N818
    pass


class Stopping(PlainReporter):
    """Stops a run where training begins."""

    def overall(self, done: int, total: int) -> None:
        raise _Begun


Announced = Callable[[list[str]], str]


@pytest.fixture
def announced(tmp_path: Path, mini_model: None, capsys: pytest.CaptureFixture[str]) -> Announced:
    def said(overrides: list[str]) -> str:
        with pytest.raises(_Begun):
            run(load_config(None, overrides), tmp_path / f"run-{len(list(tmp_path.iterdir()))}", Stopping())
        return capsys.readouterr().err

    return said


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
    announced: Announced, settings: list[str], clients: int, method: str, part: str
) -> None:
    said = announced([*settings, f"clients.count={clients}", f"method.name={method}"])
    assert (part in said) if part else ("update" not in said)


def test_what_counts_as_public_is_said(announced: Announced, tmp_path: Path) -> None:
    rows = "".join(f"строка {n} и слово {n % 7}\tline {n} and word {n % 7}\n" for n in range(120))
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.tsv").write_text(rows, "utf-8")
    files = [f"data.{name}={tmp_path / name}.tsv" for name in ("train", "valid", "test")]
    overrides = ["data.source=tsv", *files, "tokenizer.vocab_size=64", "method.name=local"]
    said = announced(overrides)
    assert "the first 12 pairs of train.tsv count as PUBLIC" in said
    assert "pairs of each client: 36, 36, 36" in said
    text = tmp_path / "public.txt"
    text.write_text(rows, "utf-8")
    assert "PUBLIC" not in announced([*overrides, f"tokenizer.train_on={text}"])


@pytest.mark.parametrize(("closing", "part"), [(0, ""), (2, "rounds   4: 2 with training, 2 exchange only")])
def test_exchanges_beyond_the_rounds_that_were_asked_for_are_said(
    announced: Announced, settings: list[str], closing: int, part: str
) -> None:
    said = announced([*settings, "rounds=2", "method.name=centroid", f"method.closing_exchanges={closing}"])
    assert (part in said) if part else ("exchange only" not in said)
