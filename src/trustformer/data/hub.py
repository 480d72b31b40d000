# SPDX-License-Identifier: Apache-2.0
"""Data sets of the Hugging Face `datasets` library: saved ones, folders of parquet files, and by name.

The library is the optional extra `hf`. A data set by name is fetched from the hub; a folder never is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trustformer.data.corpus import Pair
from trustformer.data.jsonl import to_pair
from trustformer.data.lines import count
from trustformer.data.progress import tracked
from trustformer.errors import ConfigError, DataError
from trustformer.foreign import shown

SPLITS = {"train": "train", "valid": "validation", "test": "test"}
"""Names that data sets give the three splits, where the config names none."""


def open_hub(name: str, config: str = "") -> dict[str, Any]:
    """Return the splits of a data set by name.

    Args:
        name: a folder that `save_to_disk` wrote or that holds parquet files, else a name on the hub (`wmt19`).
        config: the data set's configuration (`ru-en`); empty for its only one.

    Raises:
        ConfigError: the library is not installed, or a configuration is named of a saved data set, which has none.
        DataError: no such data set, or it cannot be read.
    """
    try:
        import datasets
    except ImportError:
        raise ConfigError(
            "data sets of the Hugging Face hub need the library datasets, which is not installed",
            "pip install -e '.[hf]' in the repository's folder, or convert the data to jsonl",
        ) from None
    folder = Path(name)
    saved = any((folder / marker).is_file() for marker in ("dataset_dict.json", "state.json"))
    if saved and config:
        raise ConfigError(
            f"the data set {name!r} has no configuration {config!r}: save_to_disk keeps one alone and not its name",
            "leave out data.config (of prepare: --hf-config)",
        )
    try:
        data = datasets.load_from_disk(name) if saved else datasets.load_dataset(name, config or None)
    except Exception as error:  # the library passes on whatever its many backends raise
        what = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(
            f"the data set {name!r}{f' ({config})' if config else ''} cannot be read: {shown(what, 200)}",
            "check data.name and data.config; a folder must hold what save_to_disk writes, or parquet files"
            + ("" if folder.exists() else "; a name is fetched from the hub, once, over the network"),
        ) from None
    if isinstance(data, dict):
        return dict(data)
    return {str(data.split or "train"): data}


def read_split(splits: dict[str, Any], name: str, split: str, source: str, target: str) -> tuple[list[Pair], list[str]]:
    """Read the pairs of one split, with the columns `jsonl` has too.

    Returns:
        The pairs in order, and the warnings as sentences.

    Raises:
        DataError: no such split, a missing or non-text column (names the row, from 1), no pair left.
    """
    if split not in splits:
        raise DataError(
            f"the data set {name!r} has no split {split!r}; it has {', '.join(sorted(splits))}",
            "name its splits in data.train, data.valid and data.test, or cut one in three with trustformer prepare",
        )
    pairs: list[Pair] = []
    dropped: list[int] = []
    for number, row in enumerate(tracked(splits[split], "reading", "rows"), start=1):
        pair = to_pair(row, f"{name}, {split}, row {number}", source, target)
        if pair is None:
            dropped.append(number)
        else:
            pairs.append(pair)
    if not pairs:
        raise DataError(f"{name}, {split}, row {len(dropped)}: the split ends without a pair", "choose another split")
    warnings = []
    if dropped:
        what = count(len(dropped), "pair")
        warnings.append(f"{split} of {name}: {what} with an empty side dropped (first at row {dropped[0]})")
    return pairs, warnings
