# SPDX-License-Identifier: Apache-2.0
"""`report.html`: complete, safe, and without a request to anywhere."""

from __future__ import annotations

import html
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from results_kit import make_result, make_results, write_runs
from rich.console import Console

from trustformer.errors import ConfigError, DataError
from trustformer.reports.collect import collect, runs_of
from trustformer.reports.gains import gain_tables
from trustformer.reports.page import render
from trustformer.reports.sections import KINDS, client_table, layer_name, seconds
from trustformer.reports.summary import summarise
from trustformer.reports.tables import results_table, samples_table
from trustformer.reports.task_tables import task_table

Results = list[dict[str, Any]]
VOID = {"meta", "link", "br", "path", "circle", "use"}


class Page(HTMLParser):
    """Checks that elements nest, and collects ids, references, text and what would be loaded."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.words: list[str] = []
        self.labels: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self.ids += [values["id"]] if "id" in values else []
        self.labels += [values["aria-label"]] if values.get("role") == "img" else []
        if tag == "a":
            self.links.append(values["href"])
        elif not values.get("href", "#").startswith("#") or "src" in values or tag in ("script", "iframe", "object"):
            self.loads.append(values.get("href") or values.get("src") or tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "svg"} & set(self.open):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def test_a_comparison_is_told_whole(comparison: tuple[Path, str]) -> None:
    page = Page(comparison[1])
    assert page.open == []
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    for text in (
        *("85 % of FedAvg's BLEU gain kept", "25.0x fewer bytes up, 25.0x down", "29.0 ± 1.4", "80 to 90 %"),
        *("SIMULATED ATTESTATION", "fine 0 says 2", "source 2", "target 2", "local 0 says 2", "84.4 %"),
        *("embedding 500,000 2,000,000 80,000 80,000", "pairs.tsv, 900 pairs", 'name = "coarse"'),
        *(result["signature"] for result in make_results()),
    ):
        assert text in page.text, text
    assert any("every-third: BLEU 29.5 ± 0.7 at 2.67 MB" in label for label in page.labels)
    assert len(page.labels) == 4 + 1 + 3  # headline, learning, times, captured, residual; bytes of three coded rows


def test_a_page_loads_nothing_and_runs_nothing(comparison: tuple[Path, str]) -> None:
    source = comparison[1]
    assert Page(source).loads == ["data:,"]
    assert "default-src 'none'" in source
    assert not re.search(r"@import|url\((?!#)|https?://(?!www\.w3\.org/)", source)


def test_what_runs_say_is_escaped(tmp_path: Path) -> None:
    evil = "</style><script>alert(1)</script><b>&amp;"
    result = make_result("centroid", 1, 20.0, 3.0, 25.0, config="fine", variant=evil, data=evil)
    result["domains"] = {evil: {"pairs": 4, "bleu": 20.0}}
    (path,) = write_runs([result], tmp_path)
    (path / "translations" / "0.txt").write_text(f"{evil}\n" * 4, "utf-8")
    (path / "config.toml").write_text(f"# {evil}\n", "utf-8")
    (path / "environment.json").write_text(json.dumps({"python": evil}), "utf-8")
    source = render(collect([path]))
    assert "<script" not in source
    assert "<b>" not in source
    assert source.count(html.escape(evil)) > 8
    assert Page(source).open == []


def test_a_single_run_has_no_headline_figure_and_no_gap(results: Results, tmp_path: Path) -> None:
    paths = write_runs(results, tmp_path)
    page = Page(render(collect([paths[3]])))
    assert "gap" not in page.text
    assert not any("BLEU against bytes" in label for label in page.labels)
    assert "28.0 BLEU" in page.text


def test_records_without_optional_files_are_reported_without_those_sections() -> None:
    kept = Path(__file__).parents[2] / "benchmarks" / "results" / "multi30k"
    page = Page(render(collect([kept])))
    assert "The appraisals themselves are not in these folders" in page.text or "measurement" in page.text
    assert "of FedAvg's BLEU gain kept" in page.text


def test_rounds_of_different_length_are_timed_by_local_epoch(tmp_path: Path) -> None:
    paths = write_runs(
        [make_result("fedavg", 1, 20.0, 3.0, 1.0, config=f"epochs-{n}", local_epochs=n) for n in (1, 3)], tmp_path
    )
    for path, epochs in zip(paths, (1, 3), strict=True):
        records = [json.loads(line) for line in (path / "rounds.jsonl").read_text("utf-8").splitlines()]
        lines = [json.dumps(record | {"seconds": dict.fromkeys(KINDS, 0.5 * epochs)}) for record in records]
        (path / "rounds.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    runs = collect([tmp_path])
    rows = summarise([run.result for run in runs])
    times = seconds(rows, {row.name: runs_of(row, runs) for row in rows})
    assert list(times.values()) == 2 * [dict.fromkeys(KINDS, 0.5)]
    page = render(runs)
    assert "Where the time goes, seconds a local epoch, all clients" in page
    assert "seconds a round" not in page
    assert "seconds a local epoch" not in render(runs[:1])


def test_a_page_says_which_points_are_exchanges_without_training(tmp_path: Path) -> None:
    (path,) = write_runs([make_result("centroid", 1, 20.0, 3.0, 25.0, config="ours")], tmp_path)
    told = "The last points are exchanges without training, each drawn as one epoch."
    assert told not in render(collect([path]))
    records = [json.loads(line) for line in (path / "rounds.jsonl").read_text("utf-8").splitlines()]
    records[-1]["training"] = False
    (path / "rounds.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    assert render(collect([path])).count(told) == 3


def test_clients_with_folders_of_their_own_have_no_split(tmp_path: Path) -> None:
    (path,) = write_runs([make_result("fedavg", 1, 20.0, 3.0, 1.0, config="mine")], tmp_path)
    with (path / "config.toml").open("a", encoding="utf-8") as file:
        file.write('[clients]\nsplit = "iid"\nfolders = ["a", "b"]\n')
    page = Page(render(collect([path])))
    assert "2, each with its own data" in page.text
    assert "split iid" not in page.text


@pytest.mark.parametrize(
    ("name", "embedding", "layer"),
    [
        ("model.encoder.layers.3.fc1.weight", False, "encoder 3"),
        ("transformer.h.0.attn.c_attn.weight", False, "h 0"),
        ("model.shared.weight", True, "embedding"),
        ("model.layers.7.mlp.up_proj.weight", False, "layer 7"),
        ("final_layer_norm.bias", False, "other"),
    ],
)
def test_tensors_are_grouped_by_layer(name: str, embedding: bool, layer: str) -> None:
    assert layer_name(name, embedding=embedding) == layer


def test_what_cannot_be_reported_is_refused(results: Results, tmp_path: Path) -> None:
    paths = write_runs(results[:2], tmp_path / "a")
    with pytest.raises(ConfigError, match="neither a run directory nor a folder"):
        collect([tmp_path / "none"])
    (copy,) = write_runs(results[:1], tmp_path / "b")
    with pytest.raises(ConfigError, match="runs of one config and seed"):
        collect([paths[0], copy])
    (copy / "config.toml").write_text('[data]\ntrain = "other.tsv"\n', "utf-8")
    with pytest.raises(ConfigError, match=r"differ in \[data\]"):
        collect([paths[0], copy])
    (paths[1] / "result.json").unlink()
    with pytest.raises(ConfigError, match="is not finished"):
        collect([paths[1]])
    assert [run.path for run in collect([tmp_path / "a"])] == [paths[0]]
    (paths[0] / "rounds.jsonl").write_text("{", "utf-8")
    with pytest.raises(DataError, match=r"rounds\.jsonl is damaged"):
        collect([paths[0]])


@pytest.mark.parametrize(
    ("section", "different"),
    [
        ('[model]\npreset = "small"', r"\[model\]"),
        ("[clients]\ncount = 4", r"clients\.count"),
        ('[clients]\nsplit = "domain"', r"clients\.split"),
        ("[clients]\nalpha = 0.1", r"clients\.alpha"),
        ('[clients]\nfolders = ["a", "b"]', r"clients\.folders"),
    ],
)
def test_runs_that_compare_would_not_put_together_are_refused(
    results: Results, tmp_path: Path, section: str, different: str
) -> None:
    one, other = write_runs(results[:2], tmp_path)
    assert len(collect([one, other])) == 2
    with (other / "config.toml").open("a", encoding="utf-8") as file:
        file.write(section + "\n")
    with pytest.raises(ConfigError, match=f"{other} and {one} differ in {different}"):
        collect([one, other])


def test_configs_of_one_folder_name_are_rows_of_their_own(tmp_path: Path) -> None:
    fine = make_result("centroid", 1, 20.0, 2.0, 25.0, config="mine")
    coarse = make_result("centroid", 2, 10.0, 3.0, 50.0, config="mine")
    for name, result in (("A", fine), ("B", coarse)):
        (path,) = write_runs([result], tmp_path / name)
        config = (path / "config.toml").read_text("utf-8")
        (path / "config.toml").write_text(config + f"block = {4 if name == 'A' else 8}\n", "utf-8")
    runs = collect([tmp_path / "A", tmp_path / "B"])
    assert [run.result["config"] for run in runs] == ["mine", "B/mine"]


def test_many_clients_beside_a_method_without_models_of_their_own() -> None:
    own = make_result("local", 1, 20.0, 3.0, None, bleu_per_client=[float(n) for n in range(9)])
    none = make_result("dp_fedavg", 1, 10.0, 3.0, 1.0, bleu_per_client=[], bleu_common=10.0)
    _, lines = client_table(summarise([own, none]))
    assert [line[1:4] for line in lines] == [["0.0", "4.0", "8.0"], ["-", "-", "-"]]


def test_sentences_with_other_line_separators_stay_with_their_translations(tmp_path: Path) -> None:
    result = make_result("local", 1, 20.0, 3.0, None, config="local")
    (path,) = write_runs([result], tmp_path)
    odd = "".join(f"a\u2028b\x85 {number}\tt {number}\n" for number in range(4))
    (path / "translations" / "source.tsv").write_bytes(odd.encode())
    console = Console(width=200, file=io.StringIO())
    console.print(samples_table([result], [path], count=4))
    shown = console.file.getvalue()
    assert all(f"t {number}" in shown for number in range(4))


def test_sentences_and_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """Brackets and colons are text, no markup of the terminal."""
    names = ("[b]fine", "[/i]")
    results = [make_result("centroid", 1, 20.0, 3.0, 25.0, config=name, data="train[red].tsv") for name in "ab"]
    paths = write_runs(results, tmp_path)
    for path in paths:
        (path / "translations" / "0.txt").write_text("[laughs] hello :warning:\n[/i] one\n" * 2, "utf-8")
        (path / "translations" / "source.tsv").write_text("[bold] a\t[/b] b\n" * 4, "utf-8")
    named = [{**result, "config": name} for result, name in zip(results, names, strict=True)]
    task = {"task": "masked-lm", "metrics": ["perplexity"], "perplexity": 8.0, "perplexity_common": 8.0}
    score = {**dict.fromkeys(("before", "local", "own", "common"), 1.0), "own_minus_local": None}
    score["common_minus_local"] = None
    clients = [{"client": "0", "folder": "[/f]", "pairs": 2, "bleu": score, "chrf": score}]
    console = Console(width=200, file=io.StringIO())
    for table in (
        *(samples_table(named, paths, count=4), results_table(named, 200)),
        *(task_table([{**result, **task} for result in named]), *gain_tables({"part": "all", "clients": clients})),
    ):
        console.print(table)
        shown = console.file.getvalue()
    for text in (*names, "[laughs] hello :warning:", "[/i] one", "[bold] a", "[/b] b", "train[red].tsv", "0 [/f]"):
        assert text in shown
