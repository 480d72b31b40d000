# SPDX-License-Identifier: Apache-2.0
"""`trustformer report` and `inspect` of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_kit import Cli


def test_a_finished_run_gets_one_page(cli: Cli, finished: Path, tmp_path: Path) -> None:
    code, shown, err = cli("report", finished, "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    assert shown == f"{tmp_path / 'out' / 'report.html'}\n"
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    for text in ("Residual and drift", "Bytes by layer", "BLEU by domain", "common model G", "MRENCLAVE", "SIMULATED"):
        assert text in page
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_a_folder_without_runs_is_refused(cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("report", tmp_path, "--out", tmp_path / "out")
    assert code == 2
    assert "neither a run directory nor a folder with finished runs" in err
    assert not (tmp_path / "out").exists()


def test_inspect_shows_every_tensor_with_its_bytes_and_what_arrived(cli: Cli, finished: Path) -> None:
    code, shown, err = cli("inspect", finished, "--json")
    assert (code, err) == (0, "")
    layers = json.loads(shown)
    rounds = [json.loads(line) for line in (finished / "rounds.jsonl").read_text("utf-8").splitlines()]
    before = sum(drift**2 for record in rounds for drift in record["drift"].values())
    after = sum(residual**2 for record in rounds for residual in record["residual"].values())
    pooled = sum(layer["drift"] ** 2 for layer in layers)
    assert pooled == pytest.approx(before / len(rounds), rel=1e-3)
    captured = sum(layer["captured"] * layer["drift"] ** 2 for layer in layers) / pooled
    assert captured == pytest.approx(1 - after / before, abs=1e-3)

    code, shown, err = cli("inspect", finished)
    assert (code, err) == (0, "")
    assert f"all {len(layers)} tensors" in shown
    assert f"{100 * captured:.1f} %" in shown
    assert "codebook block=8 clusters=16" in " ".join(shown.split())
    assert max(map(len, shown.splitlines())) <= 80
    matrices = [layer for layer in layers if len(layer["shape"]) > 1]
    assert sum(f"{layer['shape'][0]}x{layer['shape'][1]}" in shown for layer in matrices) == len(matrices)
    assert "self_attn.k_proj" in shown
    assert "vectors" in shown


def test_inspect_refuses_what_has_no_layers(cli: Cli, finished: Path, tmp_path: Path) -> None:
    code, _, err = cli("inspect", tmp_path)
    assert code == 2
    assert "is not a run directory" in err
    (tmp_path / "config.toml").write_bytes((finished / "config.toml").read_bytes())
    code, _, err = cli("inspect", tmp_path)
    assert code == 2
    assert "has no layers.json" in err
