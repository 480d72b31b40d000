# SPDX-License-Identifier: Apache-2.0
"""`trustformer run`: what it prints, its exit codes, and that every error says what to do instead."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cli_kit import Cli

from full_disk import small_files
from trustformer.cli import main
from trustformer.enclave.config import RunConfig
from trustformer.message import Layout


def is_error(err: str, *parts: str) -> bool:
    assert "Traceback" not in err
    lines = err.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1
    told = "\n".join(line for line in lines if line.startswith(("error: ", "hint: ")))
    return all(part in told for part in parts)


def test_a_run_prints_a_table_and_where_its_record_is(finished: Path, cli: Cli) -> None:
    code, out, _ = cli("run", "--resume", "--out", finished, *arguments_of(finished))
    assert code == 0
    for part in ("centroid", "26,", "signature: centroid.codebook|"):
        assert part in out


def test_its_last_lines_are_whole_and_can_be_pasted(finished: Path, cli: Cli, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / ("runs of a project with a rather long name " * 2) / "it's")
    code, out, _ = cli("run", "--resume", "--out", run)
    assert code == 0
    lines = dict(line.split(": ", 1) for line in out.splitlines()[-3:])
    assert lines["record"] == str(run)
    assert shlex.split(lines["translate with it"]) == ["trustformer", "translate", str(run)]


def test_a_folder_whose_name_is_not_utf_8_is_named_as_it_is(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(finished, os.fsdecode(os.fsencode(tmp_path) + b"/run\xff"))
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", errors="strict"))
    code = main(["run", "--out", str(out), "--resume"])
    sys.stdout.flush()
    assert code == 0
    assert b"\nrecord: " + os.fsencode(out) + b"\n" in written.getvalue()


def test_a_run_goes_on_by_its_own_config(finished: Path, cli: Cli) -> None:
    code, out, _ = cli("run", "--resume", "--json", "--out", finished)
    assert code == 0
    assert json.loads(out) == json.loads((finished / "result.json").read_text("utf-8"))


def arguments_of(run: Path) -> list[str]:
    return [str(run / "config.toml")]


def test_json_is_the_result_and_nothing_else(finished: Path, cli: Cli) -> None:
    code, out, err = cli("run", *arguments_of(finished), "--resume", "--json", "--out", finished)
    assert code == 0
    assert json.loads(out) == json.loads((finished / "result.json").read_text("utf-8"))
    assert "is finished" in err


def test_a_finished_run_is_not_overwritten(finished: Path, cli: Cli) -> None:
    before = (finished / "result.json").read_bytes()
    code, _, err = cli("run", *arguments_of(finished), "--out", finished)
    assert code == 2
    assert is_error(err, "already holds a run", "--resume")
    assert (finished / "result.json").read_bytes() == before


def test_another_config_cannot_go_on_with_it(finished: Path, cli: Cli) -> None:
    code, _, err = cli("run", *arguments_of(finished), "--set", "rounds=3", "--resume", "--out", finished)
    assert code == 2
    assert is_error(err, "another config: rounds is 2 there, 3 here", "--out")


def test_an_override_is_held_against_the_runs_own_config(finished: Path, cli: Cli) -> None:
    code, out, err = cli("run", "--set", "rounds=2", "--resume", "--json", "--out", finished)
    assert (code, json.loads(out)["rounds"]) == (0, 2)
    code, _, err = cli("run", *(f"--set={key}=9" for key in ("rounds", "seed", "train.warmup_steps")), "--set",
                       "method.block=9", "--resume", "--out", finished)  # fmt: skip
    assert code == 2
    assert is_error(err, "rounds is 2 there, 9 here", "train.warmup_steps", "; and 1 more")


@pytest.mark.parametrize("more", [[], ["--set", "rounds=2"]])
def test_a_run_that_is_not_there_is_not_gone_on_with(cli: Cli, tmp_path: Path, more: list[str]) -> None:
    code, _, err = cli("run", "--resume", *more, "--out", tmp_path / "typo")
    assert code == 2
    assert is_error(err, "typo holds no run to go on with")
    assert not (tmp_path / "typo").exists()


def test_an_interrupt_before_anything_is_saved_says_so(
    cli: Cli, sets: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("trustformer.cli.run.run_with_progress", interrupted)
    code, _, err = cli("run", *sets, "--out", tmp_path / "run")
    assert code == 130
    assert "before anything was saved" in err


@pytest.mark.parametrize("name", ["result.json", "rounds.jsonl", "config.toml", "layers.json"])
@pytest.mark.parametrize("verb", ["run", "inspect", "gain", "export", "report"])
def test_a_damaged_file_of_a_run_is_named(finished: Path, cli: Cli, tmp_path: Path, verb: str, name: str) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    path = run / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] + b'"{')
    arguments = {
        "run": ["--out", run, "--resume"],
        "export": [run, "--to", tmp_path / "to"],
        "report": [run, "--out", tmp_path / "to.html"],
    }.get(verb, [run])
    code, _, err = cli(verb, *arguments)
    assert "Traceback" not in err
    if code:
        assert is_error(err, name)


def test_a_fault_of_the_program_is_one_line_and_says_how_to_see_more(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("trustformer.cli.run.run_with_progress", fails)
    code, _, err = cli("run", "--out", tmp_path / "a b")
    assert code == 1
    assert is_error(err, "ZeroDivisionError: by zero", f"trustformer --debug run --out '{tmp_path / 'a b'}'")
    code, _, err = cli("--debug", "run", "--out", tmp_path / "a b")
    assert "hint: " not in err  # the traceback has said where
    assert "Traceback" in err


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--set", "sead=1"], ["unknown key", "sead"]),
        (["--set", "clients.count=many"], ["clients.count", "int"]),
        (["--set", "rounds=0"], ["rounds", ">= 1"]),
        (["--set", "method.name=magic"], ["method.name", "magic", "centroid, fedavg, local, centralized"]),
        (["--set", "rounds"], ["KEY=VALUE", "--set rounds=12"]),
        (["--resume"], ["--resume needs --out"]),
        (["--set", "privacy.epsilon=1"], ["privacy.epsilon is 1", "privacy.mechanism"]),
        (["--set", "data.train=train.tsv"], ["data.train is set", "--set data.source=tsv"]),
        (["nowhere.toml"], ["nowhere.toml", "cannot be read"]),
    ],
)
def test_wrong_usage_ends_with_2_before_anything_is_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = cli("run", *arguments)
    assert (code, out) == (2, "")
    assert is_error(err, *parts)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [[], ["walk"], ["run", "--fast"], ["run", "a", "b"], ["run", "--out"]])
def test_what_is_no_command_ends_with_2_and_usage(cli: Cli, arguments: list[str]) -> None:
    code, _, err = cli(*arguments)
    assert code == 2
    assert "usage: trustformer" in err


def test_the_version_names_the_wire_format(cli: Cli) -> None:
    code, out, _ = cli("--version")
    assert code == 0
    assert out.startswith("trustformer 0.")
    assert "tfl/1" in out


def test_debug_shows_the_traceback(cli: Cli) -> None:
    code, _, err = cli("--debug", "run", "--set", "rounds=0")
    assert code == 2
    assert "Traceback" in err


def test_a_missing_data_file_is_named_with_the_places_looked_at(cli: Cli, sets: list[str], tmp_path: Path) -> None:
    code, _, err = cli("run", *sets, "--set", "data.train=nowhere/train.tsv.gz", "--out", tmp_path / "run")
    assert code == 1
    assert is_error(err, "nowhere/train.tsv.gz", "TRUSTFORMER_DATA")


def test_a_bad_row_is_named_with_file_and_line(cli: Cli, sets: list[str], tmp_path: Path) -> None:
    bad = tmp_path / "bad.tsv"
    bad.write_text("да\tyes\nнет no\n", "utf-8")
    code, _, err = cli("run", *sets, "--set", f"data.train={bad}", "--out", tmp_path / "run")
    assert code == 1
    assert is_error(err, f"{bad}, line 2", "TAB")


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("data.limit=100000", ["data.limit", "at most 36, or 0 for all", "tokenizer.train_on"]),
        ("clients.count=40", ["30 training pairs", "40 clients"]),
        ("tokenizer.vocab_size=64", ["tokenizer", "64"]),
        ("tokenizer.train_on=nowhere.txt", ["nowhere.txt"]),
        ("tokenizer.file=nowhere.model", ["nowhere.model"]),
        ("tokenizer.train_on={here}/latin.txt", ["latin.txt", "UTF-8"]),
        ("tokenizer.file={here}/latin.txt", ["tokenizer", "SentencePiece"]),
        ("clients.cohorts={here}/latin.txt", ["clients.cohorts", "latin.txt"]),
    ],
)
def test_a_setting_that_does_not_fit_the_data_is_explained(
    cli: Cli, mini_model: None, sets: list[str], tmp_path: Path, setting: str, parts: list[str]
) -> None:
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n" * 10)
    code, out, err = cli("run", *sets, "--set", setting.format(here=tmp_path), "--out", tmp_path / "run")
    assert code in (1, 2)
    assert out == ""
    assert is_error(err, *parts), err


def test_a_failed_preparation_can_be_mended_and_begun_again(
    cli: Cli, mini_model: None, sets: list[str], corpus_files: Path, tmp_path: Path
) -> None:
    train = tmp_path / "train.tsv"
    train.write_text("broken\n", "utf-8")
    arguments = ["run", *sets, "--set", f"data.train={train}", "--set", "rounds=1", "--out", tmp_path / "run"]
    assert cli(*arguments).code == 1
    train.write_bytes((corpus_files / "train.tsv").read_bytes())
    assert cli(*arguments).code == 0


def test_missing_parents_of_the_run_directory_are_made(
    cli: Cli, mini_model: None, sets: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "a" / "b" / "run"
    assert cli("run", *sets, "--set", "method.name=local", "--set", "rounds=1", "--out", out).code == 0
    assert (out / "result.json").is_file()


def test_a_run_directory_that_cannot_be_made_is_an_error(cli: Cli, sets: list[str], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("x")
    for out, part in ((file, "file"), (file / "run", "file"), (Path("/proc/nowhere/run"), "/proc"), (full, "no run")):
        code, _, err = cli("run", *sets, "--out", out)
        assert code == 2
        assert is_error(err, part, "--out")
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


def test_data_that_changed_is_refused_on_resume(
    cli: Cli, mini_model: None, sets: list[str], corpus_files: Path, tmp_path: Path
) -> None:
    train = tmp_path / "train.tsv"
    lines = (corpus_files / "train.tsv").read_text("utf-8").splitlines(keepends=True)
    train.write_text("".join(lines), "utf-8")
    arguments = ["run", *sets, "--set", f"data.train={train}", "--out", tmp_path / "run"]
    assert cli(*arguments).code == 0
    (tmp_path / "run" / "result.json").unlink()
    train.write_text("".join([*lines[:-60], *reversed(lines[-60:])]), "utf-8")
    code, _, err = cli(*arguments, "--resume")
    assert code == 2
    assert is_error(err, "are not those this run began with")


def test_a_run_begun_by_a_version_that_coded_otherwise_is_not_gone_on_with(
    cli: Cli, mini_model: None, sets: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert cli("run", *sets, "--out", out).code == 0
    (out / "result.json").unlink()
    terms = RunConfig.from_bytes((out / "terms.bin").read_bytes())
    other = replace(terms, upload=Layout(tuple(reversed(terms.upload.groups))))
    (out / "terms.bin").write_bytes(other.to_bytes())
    code, _, err = cli("run", *sets, "--out", out, "--resume")
    assert code == 2
    assert is_error(err, "describe other messages than this version makes")


def test_a_policy_that_does_not_hold_ends_with_3_and_nothing_is_sent(
    cli: Cli, mini_model: None, sets: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    with small_files(300_000):  # stops where the first client keeps what it trained
        assert cli("run", *sets, "--out", out).code == 1
    policy = (out / "policy.toml").read_text("utf-8")
    measured = re.search(r'mrenclave = \["([0-9a-f]+)"', policy)
    assert measured is not None
    (out / "policy.toml").write_text(policy.replace(measured[1], "0" * 64), "utf-8")
    code, _, err = cli("run", *sets, "--out", out, "--resume")
    assert code == 3
    assert is_error(err, "error: ", "hint: ")
    sent = [json.loads(line)["kind"] for line in (out / "ledger.jsonl").read_text("utf-8").splitlines()]
    assert "upload" not in sent
    (out / "policy.toml").write_text(policy, "utf-8")
    assert cli("run", *sets, "--out", out, "--resume").code == 0


# ---- full disk ----


@pytest.mark.parametrize("limit", [200, 1000, 5000, 150_000, 300_000])
def test_a_file_that_cannot_be_written_is_an_error_and_the_run_resumes(
    cli: Cli, finished: Path, sets: list[str], tmp_path: Path, limit: int
) -> None:
    arguments = ["run", *sets, "--out", tmp_path / "run"]
    with small_files(limit):
        code, _, err = cli(*arguments)
    assert code == 1
    assert is_error(err, "hint: ", "--resume"), err
    assert not (tmp_path / "run" / "result.json").exists()
    assert not list((tmp_path / "run").rglob("*.new"))
    begun = (tmp_path / "run" / "config.toml").exists()
    assert cli(*arguments, *(["--resume"] if begun else [])).code == 0
    expected, got = (json.loads((run / "result.json").read_text("utf-8")) for run in (finished, tmp_path / "run"))
    assert got["weights_digest"] == expected["weights_digest"]
    for name in ("ledger.jsonl", "receipts.jsonl"):
        for line in (tmp_path / "run" / name).read_text("utf-8").splitlines():
            json.loads(line)


@pytest.fixture(params=[700, 1300, 1700])
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A disk of so many kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root; the test with RLIMIT_FSIZE has the same cases")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_an_error_and_the_run_resumes(cli: Cli, finished: Path, sets: list[str], disk: Path) -> None:
    arguments = ["run", *sets, "--out", disk / "run"]
    code, _, err = cli(*arguments)
    assert code == 1
    assert is_error(err, "No space left on device", "--resume"), err
    assert not (disk / "run" / "result.json").exists()
    subprocess.run(["mount", "-o", "remount,size=20M", str(disk)], check=True)
    assert cli(*arguments, "--resume").code == 0
    expected, got = (json.loads((run / "result.json").read_text("utf-8")) for run in (finished, disk / "run"))
    assert got["weights_digest"] == expected["weights_digest"]


# ---- interrupt ----


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(sets: list[str], tmp_path: Path) -> None:
    """As in a terminal, where Ctrl-C reaches the enclave's process as well."""
    hard = ["enclave.process=true", "clients.count=2", "train.local_epochs=6", "rounds=3", "method.closing_exchanges=0"]
    more = [argument for setting in hard for argument in ("--set", setting)]
    command = [sys.executable, "-m", "trustformer", "run", *sets, *more, "--out", str(tmp_path / "my run")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        # A shell's background job ignores SIGINT, and so would everything it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("round 1/3"):
            os.killpg(process.pid, signal.SIGINT)
            break
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert not (tmp_path / "my run" / "result.json").exists()
    again = shlex.split(err[err.index("trustformer run") :].splitlines()[0])
    assert again[-1] == "--resume"
    done = subprocess.run([sys.executable, "-m", *again, "--json"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rounds"] == 3
    rounds = (tmp_path / "my run" / "rounds.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["round"] for line in rounds] == [1, 2, 3]
