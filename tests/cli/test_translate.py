# SPDX-License-Identifier: Apache-2.0
"""`trustformer translate`: one line for a line, whatever the lines are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import Cli

from trustformer.cli import main
from trustformer.evaluation.translation import longest_source
from trustformer.experiment.saved import load_saved

LINES = ["Врач осмотрел пациента.", "", "Кот спит.", "   ", "", "a" * 3000, "東京 🙂 \u2028 x", "\x00\x07"]


def test_every_line_gets_one_line_and_blank_ones_stay_blank(cli: Cli, finished: Path) -> None:
    code, out, err = cli("translate", finished, stdin="".join(f"{line}\n" for line in LINES).encode())
    assert (code, err) == (0, "warning: 2 lines had more than 24 tokens and were cut\n")
    answers = out.split("\n")
    assert answers.pop() == ""
    assert len(answers) == len(LINES)
    assert [answers[index] for index in (1, 3, 4)] == ["", "", ""]


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_last_line_with_or_without_its_end(cli: Cli, finished: Path, ending: str) -> None:
    code, out, _ = cli("translate", finished, "--beams", 1, stdin=f"Кот спит.{ending}".encode())
    assert code == 0
    assert out.count("\n") == 1


def test_marks_that_are_no_text_change_nothing_where_every_byte_has_a_token(
    cli: Cli, mini_model: None, sets: list[str], tmp_path: Path
) -> None:
    """The readers of corpora take line ends, byte order mark and outer space away, so no model has seen them."""
    values = ("method.name=local", "rounds=1", "model.architecture=mbart", "tokenizer.vocab_size=300")
    sets = [*sets, *(argument for value in values for argument in ("--set", value))]
    assert cli("run", *sets, "--out", tmp_path / "run").code == 0
    model, tokenizer = load_saved(tmp_path / "run", "0")
    line = "Кот спит." * 9
    while len(tokenizer.encode([line], 999)[0]) > longest_source(model):
        line = line[:-1]
    lines = (line, "", line[3:])
    plain = cli("translate", tmp_path / "run", "--beams", 1, stdin="\n".join(lines).encode())
    assert (plain.code, plain.err, plain.out.count("\n")) == (0, "", 3)
    for text in ("\r\n".join((*lines, "")), "\ufeff" + "\n".join(lines), " \n\t".join(lines)):
        assert cli("translate", tmp_path / "run", "--beams", 1, stdin=text.encode()) == plain
    assert "cut" in cli("translate", tmp_path / "run", "--beams", 1, stdin=f"{line}☃".encode()).err


def test_no_input_gives_no_output(cli: Cli, finished: Path) -> None:
    assert cli("translate", finished) == (0, "", "")


def test_more_lines_than_a_batch_keep_their_order(cli: Cli, finished: Path) -> None:
    sentences = ["Кот спит.", "Врач видит.", "Дом стоит у реки."] * 25
    _, out, _ = cli("translate", finished, "--beams", 1, stdin="\n".join(sentences).encode())
    answers = out.splitlines()
    assert len(answers) == 75
    assert all(answers[index] == answers[index % 3] for index in range(75))


def test_the_common_model_and_each_client_have_a_voice(cli: Cli, finished: Path) -> None:
    for arguments in ([finished / "model"], [finished, "--client", "0"], [finished, "--client", "2"]):
        code, out, _ = cli("translate", *arguments, "--beams", 1, stdin="Кот спит.\n".encode())
        assert (code, out.count("\n")) == (0, 1)


def test_it_says_what_the_run_scored(cli: Cli, finished: Path) -> None:
    """Greedy translations of the test set are those that were scored."""
    sources = [line.split("\t")[0] for line in (finished / "translations/source.tsv").read_text("utf-8").splitlines()]
    for who, arguments in (("common", []), ("1", ["--client", "1"])):
        _, out, _ = cli("translate", finished, *arguments, stdin="\n".join(sources).encode())
        assert out == (finished / "translations" / f"{who}.txt").read_text("utf-8")


def test_a_file_shows_how_far_it_is(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last line without an end counts; a pipe has no known length and shows nothing (the tests above)."""
    file = tmp_path / "lines.txt"
    file.write_text("Кот спит.\n" * 199 + "Кот спит.", "utf-8")
    monkeypatch.setattr("trustformer.experiment.reporter._PLAIN_EVERY", 0.0)
    with open(file, encoding="utf-8") as lines:
        monkeypatch.setattr(sys, "stdin", lines)
        assert main(["translate", str(finished), "--beams", "1"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 200
    assert "translating: 128 of 200 lines" in err
    assert "s left" in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--client", "7"], ["no client '7'", "the clients are 0, 1, 2"]),
        (["--client", "../0"], ["no client"]),
        (["--beams", "0"], ["--beams is 0"]),
    ],
)
def test_a_wrong_option_says_what_there_is(cli: Cli, finished: Path, arguments: list[str], parts: list[str]) -> None:
    code, out, err = cli("translate", finished, *arguments, stdin=b"x\n")
    assert (code, out) == (2, "")
    for part in parts:
        assert part in err


def test_a_model_folder_has_no_clients(cli: Cli, finished: Path) -> None:
    code, _, err = cli("translate", finished / "model", "--client", "0", stdin=b"x\n")
    assert code == 2
    assert "one model" in err


def test_an_unfinished_run_is_told_to_go_on(cli: Cli, finished: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "run"
    shutil.copytree(finished, unfinished)
    (unfinished / "result.json").unlink()
    (unfinished / "model" / "model.safetensors").unlink()
    for arguments in ([], ["--client", "0"]):
        code, _, err = cli("translate", unfinished, *arguments, stdin=b"x\n")
        assert code == 2
        assert "not finished" in err
        assert "--resume" in err


def test_what_is_neither_run_nor_model_is_refused(cli: Cli, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        code, _, err = cli("translate", path, stdin=b"x\n")
        assert code == 2
        assert err.startswith("error: ")


def test_input_that_is_not_utf_8_is_an_error(cli: Cli, finished: Path) -> None:
    code, _, err = cli("translate", finished, stdin=b"caf\xe9\n")
    assert code == 1
    assert "not UTF-8" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_locales_that_let_any_byte_pass_change_nothing(finished: Path, locale: str) -> None:
    command = [sys.executable, "-m", "trustformer", "translate", str(finished)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    done = subprocess.run(
        command, input=b"bad \xff\xfe\n", capture_output=True, check=False, env=environment | {"LC_ALL": locale}
    )
    assert done.returncode == 1
    assert b"error: the input is not UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_crash(finished: Path) -> None:
    """The mini model is in the folder, so that a process of its own can load it."""
    command = f"{sys.executable} -m trustformer translate {finished} --beams 1 | head -n 1"
    done = subprocess.run(
        command,
        shell=True,
        input="Кот спит.\n" * 3000,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.stdout.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_the_record_names_its_clients(finished: Path) -> None:
    result = json.loads((finished / "result.json").read_text("utf-8"))
    assert sorted(result["weights_digest"]) == sorted(path.name for path in (finished / "clients").iterdir())


@pytest.mark.parametrize(
    "verb", [["translate"], ["gain"], ["report", "--out", "new"], ["export", "--to", "new"], ["attack"]]
)
def test_a_clients_folder_of_a_deployment_is_no_run(cli: Cli, tmp_path: Path, verb: list[str]) -> None:
    """The hint holds for every verb: who loads the two models, and how a deployment is scored."""
    for name in ("node.toml", "config.toml"):
        (tmp_path / name).write_text("")
    code, _, err = cli(*verb, tmp_path, stdin=b"x\n")
    assert code == 2
    assert "translate and transformers load" in err
    assert f"{tmp_path / 'common'} and {tmp_path / 'model'}" in err
    assert "sacrebleu" in err
    assert "docs/deploy-flower.md" in err
