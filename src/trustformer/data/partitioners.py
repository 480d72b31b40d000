# SPDX-License-Identifier: Apache-2.0
"""Who holds which training pairs: iid, by domain, or Dirichlet-skewed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from trustformer.data.corpus import LABELS, Pair
from trustformer.errors import ConfigError, DataError

Split = Literal["iid", "domain", "dirichlet"]
Indexes = npt.NDArray[np.int64]

_LENGTH_BUCKETS = 10
_MAX_DRAWS = 1000
_MIN_SHARE = 0.01  # of an equal share; a client below it has nothing to learn from


def partition(pairs: Sequence[Pair], clients: int, split: Split, *, alpha: float, seed: int) -> list[list[int]]:
    """Divide the pairs between the clients: complete, disjoint, no client empty, the same for the same seed.

    `iid` gives sizes that differ by at most one. `domain` gives whole domains, biggest first, to the smallest
    client; with fewer domains than clients the biggest are divided. `dirichlet` draws each domain's shares
    from Dirichlet(alpha) (small alpha: skewed); without labels, ten equal-count buckets of source length in
    characters take the place of domains.

    Args:
        pairs: the training pairs.
        clients: number of clients, at least 1.
        split: the rule.
        alpha: concentration of `dirichlet`, positive; not used by the others.
        seed: of every random draw, not negative.

    Returns:
        One ascending list of indexes into `pairs` for each client.

    Raises:
        ConfigError: clients, alpha, seed or split out of range.
        DataError: fewer pairs than clients, labels missing for `domain`, or an alpha so small that no draw
            gives every client at least one pair and 1% of an equal share.
    """
    if clients < 1:
        raise ConfigError(f"clients.count is {clients}", "give at least 1")
    if seed < 0:
        raise ConfigError(f"seed is {seed}", "give a number that is not negative")
    if len(pairs) < clients:
        raise DataError(
            f"{len(pairs):,} training pairs cannot be divided between {clients:,} clients",
            "use fewer clients or more pairs",
        )
    rng = np.random.default_rng(seed)
    if split == "iid":
        parts = np.array_split(rng.permutation(len(pairs)), clients)
    elif split == "domain":
        parts = _by_domain(pairs, clients, rng)
    elif split == "dirichlet":
        parts = _by_dirichlet(pairs, clients, alpha, rng)
    else:
        raise ConfigError(f"clients.split is {split!r}", "choose iid, domain or dirichlet")
    return [sorted(int(i) for i in part) for part in parts]


def _groups(pairs: Sequence[Pair]) -> list[Indexes]:
    """Indexes of each domain, in the order of the sorted names."""
    members: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        members.setdefault(pair.domain, []).append(i)
    return [np.array(members[name], dtype=np.int64) for name in sorted(members)]


def _by_domain(pairs: Sequence[Pair], clients: int, rng: np.random.Generator) -> list[Indexes]:
    unlabelled = sum(not pair.domain for pair in pairs)
    if unlabelled:
        raise DataError(
            f"{unlabelled:,} of {len(pairs):,} training pairs have no domain label",
            f"label every pair ({LABELS}), or choose clients.split iid or dirichlet",
        )
    groups = _groups(pairs)
    if len(groups) < clients:
        return _divide_biggest(groups, clients, rng)
    parts: list[list[Indexes]] = [[] for _ in range(clients)]
    sizes = [0] * clients
    for group in sorted(groups, key=len, reverse=True):
        smallest = sizes.index(min(sizes))
        parts[smallest].append(group)
        sizes[smallest] += len(group)
    return [np.concatenate(part) for part in parts]


def _divide_biggest(groups: list[Indexes], clients: int, rng: np.random.Generator) -> list[Indexes]:
    """One client a domain, then one more each time to the domain with the most pairs for each client."""
    shares = [1] * len(groups)
    while sum(shares) < clients:
        shares[int(np.argmax([len(g) / n for g, n in zip(groups, shares, strict=True)]))] += 1
    parts: list[Indexes] = []
    for group, share in zip(groups, shares, strict=True):
        parts.extend(np.array_split(rng.permutation(group), share))
    return parts


def _by_dirichlet(pairs: Sequence[Pair], clients: int, alpha: float, rng: np.random.Generator) -> list[Indexes]:
    if not (math.isfinite(alpha) and alpha > 0):
        raise ConfigError(f"clients.alpha is {alpha}", "give a positive number; smaller means more skewed")
    groups = _groups(pairs)
    if not any(pair.domain for pair in pairs):
        lengths = np.array([len(pair.source) for pair in pairs])
        by_length = np.argsort(lengths, kind="stable")
        groups = [g for g in np.array_split(by_length, _LENGTH_BUCKETS) if len(g)]
    least = max(1, math.ceil(_MIN_SHARE * len(pairs) / clients))
    group_sizes = np.array([len(g) for g in groups])
    for _ in range(_MAX_DRAWS):
        cuts_GN = _draw_cuts(group_sizes, clients, alpha, rng)
        if cuts_GN is not None and np.diff(cuts_GN, axis=1, prepend=0).sum(axis=0).min() >= least:
            break
    else:
        raise DataError(
            f"no draw from Dirichlet(clients.alpha = {alpha:g}) gave each of {clients:,} clients at least "
            f"{least:,} of {len(pairs):,} training pairs",
            "use a larger clients.alpha (1 or more is mild), fewer clients or more pairs",
        )
    parts: list[list[Indexes]] = [[] for _ in range(clients)]
    for group, cuts_N in zip(groups, cuts_GN, strict=True):
        for part, piece in zip(parts, np.split(rng.permutation(group), cuts_N[:-1]), strict=True):
            part.append(piece)
    return [np.concatenate(part) for part in parts]


def _draw_cuts(sizes_G: Indexes, clients: int, alpha: float, rng: np.random.Generator) -> Indexes | None:
    """End of each client's piece of each group, [groups, clients]; None if the draw is not finite."""
    with np.errstate(all="ignore"):
        shares_GN = rng.dirichlet(np.full(clients, alpha), size=len(sizes_G))
    if not np.isfinite(shares_GN).all():
        return None
    ends_GN = np.minimum(np.cumsum(shares_GN, axis=1), 1.0)
    ends_GN[:, -1] = 1.0
    return np.rint(ends_GN * sizes_G[:, None]).astype(np.int64)
