# SPDX-License-Identifier: Apache-2.0
"""What a comparison came to: seeds are pooled and paired, rows are told apart, old records are still read."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_kit import DENSE, make_result, write_runs
from rich.console import Console

from trustformer.reports.collect import collect
from trustformer.reports.figures import Style
from trustformer.reports.page import render
from trustformer.reports.sections import curve_table, learning_curves
from trustformer.reports.summary import recovered, reference, summarise, unit
from trustformer.reports.tables import COLUMNS, epsilon, markdown_table, note, results_table
from trustformer.reports.task_tables import columns, rows, task_markdown
from trustformer.reports.task_tables import note as task_note

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results"


def test_rows_are_configs_and_seeds_are_pooled(results: list[dict[str, Any]]) -> None:
    rows = summarise(results)
    assert [row.name for row in rows] == ["local", "fedavg", "every-third", "fine", "coarse"]
    fine = rows[3]
    assert fine.bleu.values == (28, 30)
    assert fine.bleu.mean == 29
    assert fine.bleu.sd == pytest.approx(np.sqrt(2))
    assert fine.fewer == (25, 25)
    assert fine.fewer_without_embeddings is None


def test_rounds_of_different_length_compare_by_local_epoch(results: list[dict[str, Any]], tmp_path: Path) -> None:
    """Equal epochs, an exchange after each or after every third: bytes and factors are those of an epoch."""
    rare = make_result("centroid", 1, 24, 2.4, 32.0, config="rare", variant="codebook", local_epochs=3, rounds=1)
    later = make_result("fedavg", 1, 40, 1.9, 1.0, config="fedavg-3", local_epochs=3, rounds=1)
    rows = summarise([*results, rare, later])
    assert reference(rows, "fedavg") is rows[1]
    assert (rows[6].name, rows[6].fewer) == ("fedavg epochs=3", (3, 3))
    assert rows[5].name == "centroid codebook epochs=3"
    assert (rows[5].fewer, rows[5].bytes_up) == ((96, 96), DENSE / 32 / 3)
    assert (rows[3].fewer, rows[3].bytes_up) == ((25, 25), DENSE / 25)
    assert unit(rows) == "local epoch"
    assert "in a local epoch" in note(rows)
    alone = summarise([rare])
    assert (alone[0].fewer, unit(alone)) == ((32, 32), "round")
    (path,) = write_runs([rare], tmp_path)
    (curve,) = learning_curves({"rare": collect([path])}, {"rare": Style(0, 0)})
    # its one round is three epochs; the two rounds after it are exchanges without training
    assert [number for number, _ in curve.means] == [3, 4, 5]


def test_curves_show_rounds_where_one_has_several_exchanges(tmp_path: Path) -> None:
    result = make_result("centroid", 1, 24, 2.4, 32.0, config="twice", local_epochs=6, rounds=1)
    (path,) = write_runs([result], tmp_path)
    (path / "config.toml").write_text("[method]\nexchanges = 2\n", "utf-8")
    (curve,) = learning_curves({"twice": collect([path])}, {"twice": Style(0, 0)})
    # of three exchanges the first is within the round, the second ends it, the third is a closing one
    assert [number for number, _ in curve.means] == [6, 7]


def test_thirds_of_an_epoch_add_up(tmp_path: Path) -> None:
    (path,) = write_runs([make_result("fedavg", 1, 24, 2.4, 1.0, config="thirds", local_epochs=0.333)], tmp_path)
    (curve,) = learning_curves({"thirds": collect([path])}, {"thirds": Style(0, 0)})
    assert [number for number, _ in curve.means] == [0.333, 0.667, 1]


def test_rounds_of_a_part_of_an_epoch_compare_by_local_epoch(tmp_path: Path) -> None:
    often = make_result("centroid", 1, 24, 2.4, 32.0, config="often", variant="codebook", local_epochs=0.5, rounds=1)
    dense = make_result("fedavg", 1, 30, 2.0, 1.0, config="fedavg")
    whole, half = summarise([dense, often])
    assert (whole.fewer, whole.bytes_up) == ((1, 1), DENSE)
    assert (half.name, half.fewer, half.bytes_up) == ("centroid codebook", (16, 16), DENSE / 32 / 0.5)
    paths = write_runs([often, dense], tmp_path)
    (curve,) = learning_curves({"often": collect(paths[:1])}, {"often": Style(0, 0)})
    # half an epoch, and two exchanges without training, each drawn as long as its round
    assert [number for number, _ in curve.means] == [0.5, 1, 1.5]
    assert [row[0] for row in curve_table([curve], 2)[1]] == ["0.5", "1", "1.5"]
    assert "<dd>0.5, 3</dd>" in render(collect(paths))  # local epochs of either run


def test_tables_of_other_tasks_have_a_row_a_config_and_compare_by_local_epoch() -> None:
    task = {"task": "masked-lm", "metrics": ["perplexity", "nll"], "perplexity_common": 8.0}
    local = make_result(
        "local", 1, 0, 3.0, None, config="local", perplexity=20.0, **(task | {"perplexity_common": None})
    )
    dense = [make_result("fedavg", n, 0, 2.0, 1.0, config="fedavg", perplexity=8.0 + n, **task) for n in (1, 2)]
    fine, coarse, rare = (
        make_result("centroid", 1, 0, 2.1, factor, config=name, variant="codebook", perplexity=9.0, **task, **epochs)
        for name, factor, epochs in (("fine", 16.0, {}), ("coarse", 32.0, {}), ("rare", 32.0, {"local_epochs": 3}))
    )

    def shown(results: list[dict[str, Any]], column: str) -> dict[str, str]:
        return {row[0]: row[columns(results).index(column)] for row in rows(results)}

    alike = [local, *dense, fine, coarse]
    fewer = {"local": "-", "fedavg": "1.0x / 1.0x", "fine": "16.0x / 16.0x", "coarse": "32.0x / 32.0x"}
    assert shown(alike, "fewer bytes") == fewer
    assert shown(alike, "perplexity") == {"local": "20.0", "fedavg": "9.5 ± 0.7", "fine": "9.0", "coarse": "9.0"}
    assert shown(alike, "kB up / down")["local"] == "0 / 0"
    assert "in a round" in task_markdown(alike)
    mixed = [*alike, rare]
    assert shown(mixed, "fewer bytes") == fewer | {"centroid codebook epochs=3": "96.0x / 96.0x"}
    assert shown(mixed, "kB up / down")["centroid codebook epochs=3"] == "42 / 42"
    assert shown(mixed, "kB up / down")["fedavg"] == "4,000 / 4,000"
    assert "in a local epoch" in task_markdown(mixed)


def test_a_config_named_like_another_method_hides_no_row() -> None:
    named = (("local", "alone"), ("fedavg", "local"), ("fedavg", "fast"))
    found = summarise([make_result(method, 1, 20.0, 3.0, 1.0, config=config) for method, config in named])
    assert [(row.name, row.method) for row in found] == [("alone", "local"), ("local", "fedavg"), ("fast", "fedavg")]


def test_results_without_a_config_pool_only_with_rounds_of_their_length() -> None:
    found = [make_result("fedavg", 1, 20.0, 3.0, 1.0, config=None, local_epochs=epochs) for epochs in (1, 3)]
    assert [len(row.results) for row in summarise(found)] == [1, 1]


def test_the_gap_is_measured_against_dense_fedavg_and_local(results: list[dict[str, Any]]) -> None:
    rows = summarise(results)
    dense, local = reference(rows, "fedavg"), reference(rows, "local")
    assert dense is rows[1]
    assert local is rows[0]
    assert dense.recovered == local.recovered == {}
    assert rows[2].recovered["bleu"].share == pytest.approx(0.9)
    kept = rows[3].recovered["bleu"]
    # seed 1 keeps 8 of 10, seed 2 9 of 10; of the four resamples two are a mixture
    assert (kept.share, kept.seeds) == (pytest.approx(0.85), 2)
    assert kept.low == pytest.approx(np.percentile([0.8, 0.85, 0.85, 0.9], 2.5))
    assert kept.high == pytest.approx(np.percentile([0.8, 0.85, 0.85, 0.9], 97.5))
    assert rows[4].recovered["nll"].share == pytest.approx(0.5)


def test_the_common_model_is_measured_between_clients_alone_and_fedavgs_common_model() -> None:
    found = [make_result("local", 1, 20.0, 3.0, None, config="local")]
    for method, bleu, common, factor in (("fedavg", 29.0, 30.0, 1.0), ("centroid", 27.0, 28.0, 32.0)):
        found.append(make_result(method, 1, bleu, 2.0, factor, config=method, bleu_common=common))
    kept = summarise(found)[2].recovered
    assert (kept["bleu"].share, kept["bleu_common"].share) == (pytest.approx(7 / 9), pytest.approx(0.8))
    assert "| 28.0 (80 %) |" in next(
        line for line in markdown_table(found).splitlines() if line.startswith("| centroid")
    )
    without = [{**result, "bleu_common": None} if result["method"] == "centroid" else result for result in found]
    assert "bleu_common" not in summarise(without)[2].recovered


def test_a_share_is_of_fedavg_and_local_of_as_many_local_epochs(results: list[dict[str, Any]]) -> None:
    """Rounds differ in number and length; longer runs have references of their own, or none."""
    longer = make_result("centroid", 1, 33, 1.8, 25.0, config="longer", variant="codebook", rounds=3, local_epochs=2)
    dense = make_result("fedavg", 1, 36, 1.7, 1.0, config="dense-6", rounds=6)
    alone = make_result("local", 1, 21, 2.9, None, config="local-6", rounds=6)

    def kept(more: list[dict[str, Any]]) -> list[dict[str, float]]:
        rows = summarise([*results, *more])
        return [{metric: share.share for metric, share in row.recovered.items()} for row in rows]

    before = kept([])
    assert kept([longer]) == kept([longer, dense])[:-1] == [*before, {}]
    *same, own, reference_, local = kept([longer, dense, alone])
    assert same == before
    assert own["bleu"] == pytest.approx((33 - 21) / (36 - 21))
    assert reference_ == local == {}


def test_only_seeds_that_all_three_have_are_paired(results: list[dict[str, Any]]) -> None:
    missing = [r for r in results if (r["config"], r["seed"]) != ("fedavg", 2)]
    kept = summarise(missing)[3].recovered["bleu"]
    assert (kept.share, kept.low, kept.high, kept.seeds) == (pytest.approx(0.8), None, None, 1)
    without = [r for r in results if r["config"] != "local"]
    assert summarise(without)[2].recovered == {}


def test_where_fedavg_does_not_surely_gain_there_is_no_share() -> None:
    assert recovered([1.0, 2.0], [3.0, 3.0], [3.0, 3.0]) is None
    assert recovered([3.0, 3.0], [3.0, 3.0], [6.0, 2.0]) is None
    assert recovered([4.0], [3.0], [2.0]) is None
    assert recovered([9.0], [3.0], [3.4], least=0.5) is None
    assert recovered([9.0], [3.0], [3.6], least=0.5) is not None


def test_many_seeds_are_resampled_with_a_seed_of_their_own() -> None:
    rng = np.random.default_rng(5)
    local, dense = rng.normal(20, 0.5, 9), rng.normal(26, 0.5, 9)
    one, other = (recovered(local + 0.8 * (dense - local), local, dense) for _ in range(2))
    assert one == other
    assert one is not None
    assert (one.share, one.low, one.high) == (pytest.approx(0.8),) * 3


def test_names_are_the_shortest_that_differ(results: list[dict[str, Any]]) -> None:
    one_of_each = [r for r in results if r["config"] in ("local", "fedavg", "fine")]
    assert [row.name for row in summarise(one_of_each)] == ["local", "fedavg", "centroid codebook"]


def test_a_narrow_terminal_gets_fewer_columns_and_their_notes(results: list[dict[str, Any]]) -> None:
    results = [{**result, "compression_up_without_embeddings": 9.0, "compression_down_without_embeddings": 9.0}
               for result in results]  # fmt: skip
    narrow, wide = (results_table(results, width) for width in (80, 200))
    heads = [str(column.header) for column in wide.columns]
    assert {"chrF", "without embeddings", "kB up / down"} <= set(heads)
    assert "Without embeddings" in str(wide.caption)
    assert len(narrow.columns) == len(heads) - 2
    assert "Without embeddings" not in str(narrow.caption)
    for table, width in ((narrow, 80), (wide, 150)):
        console = Console(width=width, file=StringIO())
        console.print(table)
        assert isinstance(console.file, StringIO)
        lines = console.file.getvalue().splitlines()
        assert max(map(len, lines)) <= width
        assert not any("…" in line for line in lines)


@pytest.mark.parametrize(
    ("scored", "words"),
    [
        ([2, 2], "NLL: mean over the clients' own models on the test set"),
        ([0, 0], "NLL: the common model on the test set"),
        ([1, 1], "NLL: the first client's own model on the test set"),
        ([2, 0], "NLL: mean over the clients' own models (where there are none, the common model) on the test set"),
    ],
)
def test_the_note_says_whose_scores_they_are(scored: list[int], words: str) -> None:
    results = [
        make_result("dp_fedavg", 1, 20, 3.0, 1.0, config=name, bleu_per_client=[20.0] * count)
        for name, count in zip("ab", scored, strict=True)
    ]
    assert words in note(summarise(results))
    tasks = [
        {**result, "metrics": ["accuracy"], "accuracy_per_client": result["bleu_per_client"]} for result in results
    ]
    assert words.removeprefix("NLL") in task_note(tasks)
    many = [{**result, "clients": 200} for result in results]
    assert (f"the first {max(scored)} clients' own models" in note(summarise(many))) == (max(scored) > 1)


def test_a_note_names_the_rows_whose_mean_hides_clients_that_learned_little() -> None:
    uneven = [
        make_result("local", seed, 60, 3.0, None, bleu_per_client=own)
        for seed, own in ((1, [90.0, 80.0]), (2, [92.9, 5.5]), (3, [50.0, 24.9]))
    ]
    alike = make_result("fedavg", 1, 30, 2.0, 1.0, bleu_per_client=[30.0, 15.0])
    nothing = make_result("centroid", 1, 0.1, 2.0, 1.0, bleu_per_client=[0.0, 0.9])
    nobody = make_result("dp_fedavg", 1, 20, 2.0, 1.0, bleu_per_client=[])
    words = "Clients of one run lie far apart, which a mean hides: own BLEU of local from 5.5 to 92.9."
    assert words in note(summarise([*uneven, alike, nothing, nobody]))
    assert "far apart" not in note(summarise([alike, nothing, nobody]))


@pytest.mark.parametrize("folder", ["multi30k", "multi30k-48", "multi30k-96-dropout", "ruen"])
def test_of_the_recorded_comparisons_only_uneven_ones_get_that_note(folder: str) -> None:
    rows = summarise(json.loads((RECORDED / folder / "table.json").read_text("utf-8")))
    assert ("own BLEU of local from" in note(rows)) == (folder != "multi30k")


def test_notes_say_what_bytes_are_divided_by() -> None:
    results = [make_result("fedavg", 1, 30, 2.0, 1.0)]
    tasks = [{**result, "metrics": ["accuracy"]} for result in results]
    for told in (note(summarise(results)), task_note(tasks)):
        assert "all bytes of the run over its rounds of training" in told
        assert "Exchanges without training add bytes but no round" in told


def test_notes_count_the_updates_that_were_refused() -> None:
    results = [
        make_result("fedavg", 1, 30, 2.0, 1.0),
        make_result("centroid", 1, 28, 2.1, 25.0, refused={"0": 2}),
        make_result("centroid", 2, 28, 2.1, 25.0, refused={"0": 1, "1": 1}),
    ]
    words = "refused and left out: centroid 4; result.json names the clients."
    assert note(summarise(results)).endswith(words)
    tasks = [{**result, "metrics": ["accuracy"]} for result in results]
    assert task_note(tasks).endswith(words)
    assert "refused" not in note(summarise(results[:1])) + task_note(tasks[:1])


@pytest.mark.parametrize(
    ("spent", "shown"),
    [
        *((8.0, "8.0"), (7.9975, "8.0"), (13.1137, "13.2"), (7.201, "7.3"), (100.0, "100.0"), (0.9996, "1.0")),
        *((0.04, "0.04"), (0.0412, "0.042"), (0.0004, "0.0004"), (1.1, "1.1"), (0.29, "0.29")),
    ],
)
def test_epsilon_is_never_shown_smaller_than_it_is(spent: float, shown: str) -> None:
    promise = {"epsilon": spent, "epsilon_known_cohorts": 2 * spent, "unit": "client"}
    assert epsilon(promise).partition(" ")[0] == shown
    assert float(shown) >= spent
    assert epsilon({**promise, "epsilon_known_cohorts": spent, "unit": "pair"}) == f"{shown} a pair"


def test_a_row_shows_the_weakest_promise_of_its_runs() -> None:
    """Cohorts differ from seed to seed, and with them what holds against those who know them."""
    promise = {"mechanism": "enclave", "epsilon": 4.0, "epsilon_known_cohorts": 6.0, "unit": "client"}
    runs = [make_result("dp_fedavg", seed, 20, 3.0, 1.0, privacy=dict(promise)) for seed in (1, 2, 3)]
    runs[1]["privacy"]["epsilon_known_cohorts"] = 7.25
    assert "| 4.0 [7.3] |" in markdown_table(runs)
    runs[2]["privacy"]["epsilon"] = None
    assert "| ∞ |" in markdown_table(runs)
    del runs[0]["privacy"]
    assert "4.0" not in markdown_table(runs)


def test_the_table_shows_gaps_and_leaves_out_empty_columns(results: list[dict[str, Any]]) -> None:
    table = markdown_table(results)
    heading = next(line for line in table.splitlines() if line.startswith("| method"))
    assert [cell.strip() for cell in heading.strip("|").split("|")] == [
        name for name in COLUMNS if name not in ("ε", "G BLEU", "G NLL", "without embeddings")
    ]
    assert "85 % [80, 90]" in table
    assert "4,000 / 4,000 | 1.0x / 1.0x" in table


@pytest.mark.parametrize(
    ("folder", "centroids", "seeds"), [("multi30k", 5, 3), ("multi30k-12", 3, 3), ("multi30k-small", 1, 3)]
)
def test_shares_of_the_recorded_comparisons_follow_from_their_seeds(folder: str, centroids: int, seeds: int) -> None:
    rows = summarise(json.loads((RECORDED / folder / "table.json").read_text("utf-8")))
    assert [row.method for row in rows] == ["local", "fedavg", *["centroid"] * centroids]
    assert all(len(row.results) == seeds for row in rows)
    local, fedavg = (np.array(row.bleu.values) for row in rows[:2])
    for row in rows[2:]:
        shares = (np.array(row.bleu.values) - local) / (fedavg - local)
        kept = row.recovered["bleu"]
        gap = fedavg.mean() - local.mean()
        assert kept.share == pytest.approx((np.mean(row.bleu.values) - local.mean()) / gap, abs=1e-9)
        assert shares.min() - 5e-3 < kept.low < kept.share < kept.high < shares.max() + 5e-3
