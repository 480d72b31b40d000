# SPDX-License-Identifier: Apache-2.0
"""Every pair goes to exactly one client, whatever the rule, and no client is left empty."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustformer.data.corpus import Pair
from trustformer.data.partitioners import partition
from trustformer.errors import ConfigError, DataError


def labelled(sizes: dict[str, int]) -> list[Pair]:
    rows = [Pair(f"{name} {'x' * (i % 37)}", "y", name) for name, size in sizes.items() for i in range(size)]
    return rows[::2] + rows[1::2]


def unlabelled(count: int) -> list[Pair]:
    return [Pair("x" * (i % 53), "y") for i in range(count)]


def check(parts: list[list[int]], total: int, clients: int) -> None:
    assert len(parts) == clients
    assert sorted(i for part in parts for i in part) == list(range(total))
    assert all(part == sorted(part) and part for part in parts)


@given(st.integers(1, 12), st.integers(0, 200), st.integers(0, 2**32))
def test_iid_is_complete_disjoint_and_even(clients: int, extra: int, seed: int) -> None:
    parts = partition(unlabelled(clients + extra), clients, "iid", alpha=1.0, seed=seed)
    check(parts, clients + extra, clients)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9), st.integers(1, 12), st.integers(0, 99))
def test_domain_is_complete_and_keeps_domains_whole(sizes: list[int], clients: int, seed: int) -> None:
    pairs = labelled({f"d{i}": size for i, size in enumerate(sizes)})
    if len(pairs) < clients:
        return
    parts = partition(pairs, clients, "domain", alpha=1.0, seed=seed)
    check(parts, len(pairs), clients)
    holders = [{pairs[i].domain for i in part} for part in parts]
    if len(sizes) >= clients:
        assert sum(len(names) for names in holders) == len(sizes)
    else:
        assert all(len(names) == 1 for names in holders)


@given(st.integers(1, 5), st.floats(0.5, 100), st.integers(0, 99), st.booleans())
def test_dirichlet_is_complete_and_leaves_no_client_short(clients: int, alpha: float, seed: int, labels: bool) -> None:
    pairs = labelled({"a": 300, "b": 200, "c": 101}) if labels else unlabelled(601)
    parts = partition(pairs, clients, "dirichlet", alpha=alpha, seed=seed)
    check(parts, len(pairs), clients)
    assert min(len(part) for part in parts) >= math.ceil(0.01 * len(pairs) / clients)


@pytest.mark.parametrize("split", ["iid", "dirichlet"])
def test_the_seed_decides(split: str) -> None:
    pairs = labelled({"a": 100, "b": 80})
    first, again, other = (partition(pairs, 3, split, alpha=0.5, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_domains_go_biggest_first_to_the_smallest_client() -> None:
    pairs = labelled({"a": 10, "b": 60, "c": 30, "d": 25})
    parts = partition(pairs, 2, "domain", alpha=1.0, seed=0)
    assert [{pairs[i].domain for i in part} for part in parts] == [{"b"}, {"c", "d", "a"}]


def test_the_biggest_domains_are_divided_between_clients() -> None:
    pairs = labelled({"a": 10, "b": 60, "c": 30})
    parts = partition(pairs, 5, "domain", alpha=1.0, seed=0)
    sizes = sorted((pairs[part[0]].domain, len(part)) for part in parts)
    assert sizes == [("a", 10), ("b", 20), ("b", 20), ("b", 20), ("c", 30)]


def test_small_alpha_is_more_skewed_than_large_alpha() -> None:
    pairs = labelled({"a": 500, "b": 500, "c": 500})

    def spread(alpha: float) -> float:
        parts = partition(pairs, 3, "dirichlet", alpha=alpha, seed=3)
        return sum(max(sum(pairs[i].domain == d for i in part) for part in parts) for d in "abc")

    assert spread(0.2) > spread(1000.0)
    assert spread(1000.0) < 600


def test_length_buckets_skew_lengths_where_there_are_no_labels() -> None:
    pairs = unlabelled(2000)
    parts = partition(pairs, 2, "dirichlet", alpha=0.05, seed=1)
    short = [sum(len(pairs[i].source) < 20 for i in part) / len(part) for part in parts]
    assert abs(short[0] - short[1]) > 0.05


@pytest.mark.parametrize("split", ["iid", "domain", "dirichlet"])
def test_too_few_pairs_names_both_numbers(split: str) -> None:
    with pytest.raises(DataError, match=r"3 training pairs .* 4 clients"):
        partition(labelled({"a": 3}), 4, split, alpha=1.0, seed=0)


def test_domain_without_labels() -> None:
    with pytest.raises(DataError, match="10 of 10 training pairs have no domain label") as caught:
        partition(unlabelled(10), 2, "domain", alpha=1.0, seed=0)
    assert "'domain' of jsonl" in caught.value.hint


def test_alpha_too_small_for_every_client_to_have_pairs() -> None:
    with pytest.raises(DataError, match=r"alpha = 1e-05") as caught:
        partition(labelled({"a": 50, "b": 50}), 8, "dirichlet", alpha=1e-5, seed=0)
    assert "larger clients.alpha" in caught.value.hint


@pytest.mark.parametrize(
    ("clients", "split", "alpha", "seed"),
    [
        (0, "iid", 1.0, 0),
        (2, "dirichlet", 0.0, 0),
        (2, "dirichlet", -1.0, 0),
        (2, "dirichlet", math.nan, 0),
        (2, "dirichlet", math.inf, 0),
        (2, "iid", 1.0, -1),
        (2, "even", 1.0, 0),
    ],
)
def test_options_out_of_range(clients: int, split: str, alpha: float, seed: int) -> None:
    with pytest.raises(ConfigError):
        partition(unlabelled(20), clients, split, alpha=alpha, seed=seed)


@pytest.mark.parametrize("alpha", [1e-320, 1e-12, 1e300])
def test_extreme_alpha_ends_in_a_partition_or_a_data_error(alpha: float) -> None:
    pairs = labelled({"a": 40, "b": 40, "c": 40})
    try:
        parts = partition(pairs, 2, "dirichlet", alpha=alpha, seed=0)
    except DataError:
        return
    check(parts, len(pairs), 2)
