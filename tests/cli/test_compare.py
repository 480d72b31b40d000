# SPDX-License-Identifier: Apache-2.0
"""`trustformer compare`: runs what is missing, takes what is there, refuses what cannot be compared."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
from cli_kit import Cli

from trustformer.errors import ConfigError
from trustformer.experiment.compare import plan
from trustformer.experiment.config import load_config
from trustformer.experiment.inputs import check_inputs


def configs(folder: Path, settings: list[str], **more: list[str]) -> list[Path]:
    paths = []
    for name, overrides in more.items():
        paths.append(folder / f"{name.replace('_', '.')}.toml")
        paths[-1].write_text(load_config(None, [*settings, *overrides]).to_toml(), "utf-8")
    return paths


def test_two_methods_are_run_tabulated_and_reused(cli: Cli, settings: list[str], tmp_path: Path) -> None:
    fast = ["rounds=1", "clients.count=2", "model.max_length=16"]
    files = configs(
        tmp_path,
        settings,
        lr0_01_local=[*fast, "method.name=local"],
        lr0_01_fedavg=[*fast, "method.name=fedavg"],
    )
    out = tmp_path / "both methods in a folder with a rather long name, as in a project of many"
    code, shown, err = cli("compare", *files, "--out", out, "--jobs", 2)
    assert code == 0, err
    results = json.loads((out / "table.json").read_text("utf-8"))
    assert [result["method"] for result in results] == ["local", "fedavg"]
    table = (out / "table.md").read_text("utf-8")
    for result in results:
        assert result["signature"] in table
    assert "local" in shown
    paths = [line[9:] for line in shown[shown.index("written: ") :].splitlines()]
    assert paths[-2:] == [str(out / f"lr0.01.{name}-seed1") for name in ("local", "fedavg")]
    assert paths[:3] == [str(out / name) for name in ("table.md", "table.json", "summary.json")]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == [
        "lr0.01.fedavg-seed1",
        "lr0.01.local-seed1",
    ]
    before = {path: path.stat().st_mtime_ns for path in out.rglob("result.json")}
    code, shown, err = cli("compare", *files, "--out", out, "--json")
    assert code == 0
    assert json.loads(shown) == results
    assert err.count("finished before") == 2
    assert {path: path.stat().st_mtime_ns for path in out.rglob("result.json")} == before

    code, _, err = cli("compare", *files, "--out", out, "--set", "train.learning_rate=0.1")
    assert code == 2
    assert "holds a run of another config: train.learning_rate is 0.003 there, 0.1 here" in err


@pytest.mark.parametrize(
    ("different", "section"),
    [("data.limit=29", "data"), ("tokenizer.vocab_size=151", "tokenizer"), ("evaluation.beams=2", "evaluation")],
)
def test_configs_on_other_data_are_refused(
    cli: Cli, settings: list[str], tmp_path: Path, different: str, section: str
) -> None:
    files = configs(tmp_path, settings, a=[], b=["method.name=local", different])
    code, _, err = cli("compare", *files, "--out", tmp_path / "out")
    assert code == 2
    assert f"b and a differ in [{section}]" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--jobs", "0"], "--jobs is 0"),
        (["--jobs", "-1"], "--jobs is -1"),
        (["--seeds", "1", "1"], "--seeds 1 1"),
        (["--seeds", "-1"], "--seeds"),
        (["--set", "rounds=0"], "rounds"),
    ],
)
def test_wrong_options_are_refused(
    cli: Cli, settings: list[str], tmp_path: Path, arguments: list[str], part: str
) -> None:
    files = configs(tmp_path, settings, a=[])
    code, _, err = cli("compare", *files, "--out", tmp_path / "out", *arguments)
    assert code == 2
    assert part in err


def test_two_configs_of_one_name_and_a_missing_one_are_refused(cli: Cli, settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [*configs(tmp_path, settings, a=[]), *configs(tmp_path / "x", settings, a=[])]
    code, _, err = cli("compare", *files, "--out", tmp_path / "out")
    assert code == 2
    assert "same file name" in err
    code, _, err = cli("compare", files[0], tmp_path / "none.toml", "--out", tmp_path / "out")
    assert code == 2
    assert "none.toml" in err


def test_runs_of_a_file_that_was_changed_in_between_are_not_compared(
    cli: Cli, settings: list[str], corpus_files: Path, tmp_path: Path
) -> None:
    train = tmp_path / "train.tsv"
    train.write_bytes((corpus_files / "train.tsv").read_bytes())
    fast = [f"data.train={train}", "rounds=1", "clients.count=2", "model.max_length=16"]
    files = configs(tmp_path, settings, a=[*fast, "method.name=local"], b=[*fast, "method.name=fedavg"])
    assert cli("compare", files[0], "--out", tmp_path / "out").code == 0
    before = train.read_bytes()
    lines = before.decode().splitlines(keepends=True)
    train.write_text("".join(reversed(lines)), "utf-8")
    for asked in (files, files[:1]):  # before another run begins, and where none has to
        code, _, err = cli("compare", *asked, "--out", tmp_path / "out")
        assert code == 2
        assert "a-seed1 have changed since it was run" in err
        assert not (tmp_path / "out" / "b-seed1").exists()
    train.unlink()
    assert "are not checked again" in cli("compare", files[0], "--out", tmp_path / "out").err
    train.write_bytes(before.replace(b"a", b"o", 1))  # of the public share: no client trains on it
    code, _, err = cli("compare", *files, "--out", tmp_path / "out")
    assert code == 2
    assert "a-seed1 and" in err
    assert "b-seed1 were run on different vocabularies: " in err
    code, _, err = cli("report", tmp_path / "out", "--out", tmp_path / "page")
    assert code == 2
    assert "different vocabularies" in err
    code, _, err = cli("gain", tmp_path / "out" / "b-seed1", "--local", tmp_path / "out" / "a-seed1")
    assert code == 2
    assert "different vocabularies" in err


@pytest.mark.parametrize(
    ("seeds", "synthetic", "inputs", "different"),
    [
        ((1, 2), False, ("aaaa", "v", "g"), "were run on different data: aaaa and bbbb"),
        ((1, 2), True, ("aaaa", "v", "g"), ""),
        ((1, 1), True, ("aaaa", "v", "g"), "were run on different data: aaaa and bbbb"),
        ((1, 2), False, ("bbbb", "w", "g"), "were run on different vocabularies: w and v"),
        ((1, 1), False, ("bbbb", "v", "h"), "were run on different first models: h and g"),
        ((1, 2), False, ("bbbb", "v", "h"), ""),
        ((1, 1), False, ("bbbb", "v", "g", "tok:zh|version:2.5"), "were scored differently: tok:zh and tok:13a"),
        ((1, 1), False, ("bbbb", "v", "g", "tok:13a|version:2.5"), ""),
    ],
)
def test_one_table_is_of_one_data_set_vocabulary_and_first_model(
    seeds: tuple[int, int], synthetic: bool, inputs: tuple[str, ...], different: str
) -> None:
    results = [
        {
            **{"seed": seed, "synthetic": synthetic, "signature": f"local|data:{data}|tf:0"},
            "inputs": {"tokenizer": tokenizer, "start": start},
            "sacrebleu_signature": scorer[0] if scorer else "tok:13a|version:2.6",
        }
        for seed, (data, tokenizer, start, *scorer) in zip(seeds, (inputs, ("bbbb", "v", "g")), strict=True)
    ]
    with pytest.raises(ConfigError, match=f"a and b {different}") if different else nullcontext():
        check_inputs(zip("ab", results, strict=True))
    for result in results:
        del result["inputs"]  # an older record
    with pytest.raises(ConfigError) if "data" in different or "scored" in different else nullcontext():
        check_inputs(zip("ab", results, strict=True))


def test_configs_of_different_seeds_need_seeds_for_all(cli: Cli, settings: list[str], tmp_path: Path) -> None:
    files = configs(tmp_path, settings, a=["seed=4"], b=["method.name=local", "seed=5"])
    code, _, err = cli("compare", *files, "--out", tmp_path / "out")
    assert code == 2
    assert "b has seed 5, a has seed 4" in err
    assert "--seeds" in err
    assert not (tmp_path / "out").exists()
    loaded = [(file.stem, load_config(file)) for file in files]
    assert [job.name for job in plan(loaded, [6], tmp_path / "out")] == ["a seed 6", "b seed 6"]


def test_clients_of_another_number_are_not_compared(cli: Cli, settings: list[str], tmp_path: Path) -> None:
    files = configs(tmp_path, settings, a=[], b=["method.name=local", "clients.count=2"])
    code, _, err = cli("compare", *files, "--out", tmp_path / "out")
    assert code == 2
    assert "b and a differ in clients.count" in err
