# SPDX-License-Identifier: Apache-2.0
"""Configs: every key typed, bounded and documented; an error names the key and what it may be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustformer.errors import ConfigError
from trustformer.experiment.cohorts import check_sponsors, make_cohorts
from trustformer.experiment.config import Config, load_config
from trustformer.federation.round import Cohort


def structs(kind: type[msgspec.Struct] = Config) -> Iterator[type[msgspec.Struct]]:
    yield kind
    for field in msgspec.structs.fields(kind):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from structs(field.type)


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, "utf-8")
    return path


def test_the_defaults_survive_toml(tmp_path: Path) -> None:
    config = load_config(None)
    assert config == Config()
    assert load_config(written(tmp_path, config.to_toml())) == config


@given(
    seed=st.integers(0, 2**31 - 1),
    rate=st.floats(1e-12, 1, exclude_min=True),
    alpha=st.floats(1e-300, 1e300),
    name=st.text(st.characters(exclude_categories=["Cc", "Cs"])),
)
def test_any_value_survives_toml(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rate: float, alpha: float, name: str
) -> None:
    tree = {
        "seed": seed,
        "train": {"learning_rate": rate},
        "clients": {"alpha": alpha},
        "tokenizer": {"file": name},
    }
    config = msgspec.convert(tree, Config)
    path = written(tmp_path_factory.getbasetemp(), config.to_toml())
    assert load_config(path) == config


@pytest.mark.parametrize("struct", list(structs()), ids=lambda struct: struct.__name__)
def test_every_key_is_explained_in_its_section(struct: type[msgspec.Struct]) -> None:
    _, _, attributes = (struct.__doc__ or "").partition("Attributes:")
    named = {
        name.strip() for line in attributes.splitlines() if ": " in line for name in line.partition(": ")[0].split(",")
    }
    for field in msgspec.structs.fields(struct):
        if field.type not in list(structs()):
            assert field.name in named, f"{struct.__name__}.{field.name}"


@pytest.mark.parametrize(
    "promised",
    [
        "data.source data.train data.valid data.test data.train_domains data.test_domains data.limit",
        "clients.count clients.split clients.alpha clients.participation clients.cohorts model.preset",
        "train.local_epochs train.learning_rate train.batch_tokens method.name method.variant tokenizer.train_on",
    ],
)
def test_sections_have_the_promised_keys(promised: str) -> None:
    tree = msgspec.to_builtins(Config())
    assert tree.keys() >= {"seed", "rounds"}
    for key in promised.split():
        section, name = key.split(".")
        assert name in tree[section], key


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("sead=1", ["unknown key", "sead"]),
        ("method=fedavg", ["config: method is a section: its keys are written method.KEY"]),
        ("client.count=3", ["unknown key", "client"]),
        ("clients.cout=3", ["unknown key", "clients.cout", "did you mean clients.count?"]),
        ("privacy.epsilom=3", ["unknown key", "did you mean privacy.epsilon?"]),
        ("client.count=3", ["did you mean clients?"]),
        ("train.lr=0.02", ["did you mean train.learning_rate?"]),
        ("lr=0.02", ["did you mean train.learning_rate?"]),
        ("train.learning-rate=0.02", ["did you mean train.learning_rate?"]),
        ("train.epochs=3", ["did you mean train.local_epochs?"]),
        ("train.batch_size=3", ["did you mean train.batch_tokens?"]),
        ("model.name=tiny", ["did you mean model.preset?"]),
        ("train.rounds=3", ["did you mean rounds?"]),
        ("train.dropout=0.2", ["did you mean model.dropout?"]),
        ("clients.count=many", ["clients.count", "int"]),
        ("clients.count=2.5", ["clients.count", "int"]),
        ("clients.count=true", ["clients.count", "int"]),
        ("clients.count=0", ["clients.count", "1"]),
        ("clients.count=1001", ["clients.count", "1000"]),
        ("clients=3", ["clients is a section"]),
        ("train.local_epochs=0", ["train.local_epochs", "whole number from 1"]),
        ("train.local_epochs=2.0", ["train.local_epochs", "without a point"]),
        ("train.local_epochs=1.5", ["train.local_epochs", "whole number", "0.25"]),
        ("train.local_epochs=many", ["train.local_epochs", "whole number"]),
        ("train.local_epochs=0.3", ["train.local_epochs", "0.3333"]),
        ("train.local_epochs=0.16", ["train.local_epochs", "0.1667"]),
        ("train.local_epochs=0.0001", ["train.local_epochs", "0.001"]),
        ("rounds=0", ["rounds", "1"]),
        ("seed=-1", ["seed", "0"]),
        ("seed=2147483648", ["seed"]),
        ("data.limit=-1", ["data.limit", "0"]),
        ("data.train=7", ["data.train", "str"]),
        ("data.source=hf2", ["data.source", "hf2", "toy", "tsv"]),
        ("clients.split=random", ["clients.split", "random", "iid", "domain", "dirichlet"]),
        ("method.name=magic", ["method.name", "magic", "centroid", "fedavg", "local", "centralized"]),
        ("method.variant=paper2", ["method.variant", "codebook"]),
        ("clients.max_share=0.2", ["clients.max_share", "0.5"]),
        ("clients.participation=0", ["clients.participation", "0"]),
        ("clients.alpha=nan", ["clients.alpha"]),
        ("clients.alpha=inf", ["clients.alpha", "finite"]),
        ("train.clip_norm=inf", ["train.clip_norm", "finite"]),
        ("train.learning_rate=nan", ["train.learning_rate"]),
        ('data.train="a\\nb"', ["data.train", "control"]),
        ("data.train=\udcff", ["data.train", "UTF-8"]),
        ("clients.min_clients=4", ["clients.min_clients", "4", "3"]),
        ("seed.deep=1", ["seed"]),
        ("rounds", ["rounds", "KEY=VALUE"]),
        ("=3", ["KEY=VALUE"]),
        ("data.source=tsv", ["data.train", "missing"]),
    ],
)
def test_an_error_names_the_key_and_what_it_may_be(override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    for part in parts:
        assert part in caught.value.message + caught.value.hint, caught.value.message


@pytest.mark.parametrize("override", ["train.norm=1", "train.warm=3", "optimizer=adam", "clients.name=x"])
def test_a_key_that_is_near_none_gets_no_guess(override: str) -> None:
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load_config(None, [override])
    assert "did you mean" not in caught.value.hint
    assert "docs/config.md" in caught.value.hint


@pytest.mark.parametrize("parts", [*range(2, 64), 100, 365, 999, 1000])
def test_every_part_of_a_pass_can_be_named_with_four_digits(parts: int) -> None:
    assert round(1 / load_config(None, [f"train.local_epochs={1 / parts:.4g}"]).train.local_epochs) == parts


def test_a_translation_between_one_language_is_refused() -> None:
    files = [f"data.{split}={split}" for split in ("train", "valid", "test")]
    with pytest.raises(ConfigError, match="are both 'en'"):
        load_config(None, ["data.source=text", "data.source_language=en", *files])


def test_parts_of_a_pass_go_with_one_exchange_a_round() -> None:
    overrides = ["train.local_epochs=0.5", "method.exchanges=2", "method.variant=partition"]
    with pytest.raises(ConfigError, match="exchanges 2"):
        load_config(None, overrides)


def test_a_cooldown_goes_with_one_exchange_a_round() -> None:
    assert load_config(None, ["train.cooldown=0.5"]).train.cooldown == 0.5
    with pytest.raises(ConfigError, match=r"cooldown is 0\.5 and method.exchanges 2"):
        load_config(None, ["train.cooldown=0.5", "method.exchanges=2"])


def test_s_fades_once_a_round() -> None:
    with pytest.raises(ConfigError, match=r"carry is 0\.5 and method.exchanges 2"):
        load_config(None, ["method.exchanges=2"])
    assert load_config(None, ["method.carry=1", "method.exchanges=2"]).method.exchanges == 2
    assert load_config(None, ["method.variant=partition", "method.exchanges=2"]).method.carry == 0.5  # has no s


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (["method.carry=1"], "carry = 1.0"),
        ([], "carry = 0.5"),
        (["method.name=fedavg"], None),
        (["method.name=fedavg", "method.carry=1"], "carry = 1.0"),
    ],
)
def test_a_codebook_always_says_how_s_fades(tmp_path: Path, settings: list[str], line: str | None) -> None:
    """A record says it even at the default; others only where it was set."""
    config = load_config(None, settings)
    text = config.to_toml()
    assert [row for row in text.splitlines() if row.startswith("carry")] == ([line] if line else [])
    assert load_config(written(tmp_path, text)) == config


def test_the_domain_split_of_files_needs_labels() -> None:
    files = [f"data.{name}=x.tsv" for name in ("train", "valid", "test")]
    with pytest.raises(ConfigError, match="labels") as caught:
        load_config(None, ["data.source=tsv", *files, "clients.split=domain"])
    assert "data.train_domains" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "part"),
    [("seed = ", "not TOML"), ("[clients]\ncount = 3\ncount = 4\n", "not TOML"), ("seed = 1979-05-27\n", "seed")],
)
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        load_config(written(tmp_path, text))


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("rounds = 9\n", "utf-8-sig")
    assert load_config(path).rounds == 9


def test_a_missing_folder_or_binary_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            load_config(path)
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(tmp_path / "b.toml")


def test_values_are_read_as_toml_and_bare_words_as_text() -> None:
    config = load_config(
        None,
        [
            "rounds=3",
            "train.learning_rate=1e-4",
            "data.source=tsv",
            "data.train=a b.tsv",
            'data.valid="7"',
            "data.test=t",
            "clients.split=dirichlet",
        ],
    )
    assert (config.rounds, config.train.learning_rate) == (3, 1e-4)
    assert (config.data.train, config.data.valid, config.clients.split) == ("a b.tsv", "7", "dirichlet")


def test_the_last_override_wins_over_earlier_ones_and_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, "rounds = 9\n[clients]\ncount = 5\n")
    config = load_config(path, ["rounds=2", "rounds=4"])
    assert (config.rounds, config.clients.count) == (4, 5)


@pytest.mark.parametrize("seed", range(20))
def test_every_drawn_round_has_enough_clients_on_time(seed: int) -> None:
    config = load_config(None, [f"seed={seed}", "clients.participation=0.1", "clients.late=0.9", "clients.count=5"])
    names = [str(index) for index in range(5)]
    cohorts = make_cohorts(config, names, 8)
    assert cohorts == make_cohorts(config, names, 8)
    assert cohorts[:4] == make_cohorts(config, names, 4)
    for cohort in cohorts:
        assert len(set(cohort.present) - set(cohort.late)) >= config.min_clients == 4
        assert set(cohort.late) | set(cohort.duplicate) <= set(cohort.present)


def test_rounds_in_which_nobody_present_could_catch_up_are_refused_with_a_lag_that_will_do() -> None:
    cohorts = [Cohort(tuple(present)) for present in ("012", "0", "0", "0", "12", "0")]
    check_sponsors(cohorts, 3)
    for max_lag in (1, 2):
        with pytest.raises(ConfigError, match=f"in round 5 .* missed more than {max_lag} rounds") as refused:
            check_sponsors(cohorts, max_lag)
        assert "--set clients.max_lag=3," in refused.value.hint


def test_participation_is_about_what_was_asked_for() -> None:
    config = load_config(None, ["clients.participation=0.7", "clients.count=10", "clients.min_clients=1"])
    cohorts = make_cohorts(config, [str(index) for index in range(10)], 200)
    assert 0.65 < sum(len(cohort.present) for cohort in cohorts) / 2000 < 0.75


@pytest.mark.parametrize(
    ("lines", "part"),
    [
        (["{"], "cannot be read"),
        (["[1]"], "cannot be read"),
        (['{"present": 3}'], "cannot be read"),
        ([json.dumps({"present": ["0", "1"]})], "has 1 rounds, this run needs 2"),
        ([json.dumps({"round": n, "present": ["0", "1"]}) for n in (1, 3)], "has 1 rounds, this run needs 2"),
        ([json.dumps({"present": ["0", "1"]}), json.dumps({"present": ["0", "7"]})], "round 2 names a client"),
        ([json.dumps({"present": ["0"], "late": ["8"]})], "round 1 names a client"),
        ([json.dumps({"present": ["0"]})] * 2, "round 1 has fewer than 2 clients on time"),
        ([json.dumps({"present": ["0", "1"], "late": ["1"]})] * 2, "round 1 has fewer than 2 clients on time"),
    ],
)
def test_cohorts_that_cannot_be_replayed_are_refused_before_the_run(
    tmp_path: Path, lines: list[str], part: str
) -> None:
    path = tmp_path / "rounds.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    with pytest.raises(ConfigError, match=part):
        make_cohorts(load_config(None, [f"clients.cohorts={path}"]), ["0", "1", "2"], 2)


def test_a_missing_file_of_cohorts_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"clients\.cohorts.*nowhere"):
        make_cohorts(load_config(None, [f"clients.cohorts={tmp_path / 'nowhere'}"]), ["0", "1"], 1)
