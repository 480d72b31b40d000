# SPDX-License-Identifier: Apache-2.0
"""A run's layers, one by one."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from trustformer.errors import ConfigError, DataError
from trustformer.experiment.deployed import check_not_deployed
from trustformer.experiment.record import RunDirectory
from trustformer.reports.sections import layer_name
from trustformer.reports.terminal import fill

_COLUMNS = ("tensor", "shape", "group", "bytes up", "down", "drift", "captured")


def inspect_layers(path: Path) -> list[dict[str, Any]]:
    """Return `layers.json` of a run, with what its rounds so far say of each tensor.

    Returns:
        Each with `drift`, the root mean square over rounds of its norm over all clients, and `captured`, the share of
        that energy which messages expressed; None where nothing is recorded.

    Raises:
        ConfigError: no run directory, or one from before layers were recorded.
        DataError: a damaged record; names the file.
    """
    directory = RunDirectory.existing(path)
    file = path / "layers.json"
    if not file.is_file():
        check_not_deployed(path)
        raise ConfigError(f"{path} has no layers.json", "it has not begun, or was made by an older version")
    rounds = [record["layers"] for record in directory.rounds() if record.get("layers")]
    try:
        layers: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}", "take it from where the run was made") from None
    for layer in layers:
        pairs = [record[layer["name"]] for record in rounds if layer["name"] in record]
        before, after = (sum(pair[side] ** 2 for pair in pairs) for side in (0, 1))
        layer["drift"] = math.sqrt(before / len(pairs)) if pairs else None
        layer["captured"] = 1 - after / before if before else None
    return layers


def layers_table(layers: Sequence[dict[str, Any]], width: int = 80) -> Table:
    """Return the table for a terminal of `width` characters: a line a matrix, their sum, below it the groups."""
    groups = {layer[way]["group"]: layer[way]["coding"] for layer in layers for way in ("up", "down")}
    named = "; ".join(f"{number}: {groups[number]}" for number in sorted(filter(None, groups)))
    table = Table(
        box=SIMPLE_HEAD,
        pad_edge=False,
        caption=f"groups  {named}" if named else "nothing of this run travels",
        caption_justify="left",
    )
    lines = list(_lines(layers))
    entries = f"{sum(layer['parameters'] for layer in layers):,}"
    together = (f"all {len(layers)} tensors", entries, "", *_sums(layers))
    fill(table, _COLUMNS, [*lines, together], width, texts=2)
    if lines:
        table.rows[-2].end_section = True
    return table


def _lines(layers: Sequence[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Yield a line a matrix; the vectors of a layer (biases, norms) share one behind its matrices."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for layer in layers:
        parts.setdefault(layer_name(layer["name"], embedding=layer["embedding"]), []).append(layer)
    for part, members in parts.items():
        vectors = [layer for layer in members if len(layer["shape"]) == 1]
        alone = part in ("embedding", "other")
        if not alone:
            yield part, *[""] * 6
        indent = "" if alone else "  "
        for layer in members:
            if layer not in vectors:
                name = layer["name"] if alone else re.split(r"\.\d+\.", layer["name"], maxsplit=1)[-1]
                name = name.removeprefix("model.").removesuffix(".weight")
                yield indent + name, "x".join(map(str, layer["shape"])), _groups([layer]), *_sums([layer])
        if vectors:
            shape = f"{sum(layer['parameters'] for layer in vectors):,}"
            yield f"{indent}{len(vectors)} vectors", shape, _groups(vectors), *_sums(vectors)


def _groups(layers: Sequence[dict[str, Any]]) -> str:
    """Numbers of the groups these tensors travel in."""
    return "/".join(dict.fromkeys(str(layer[way]["group"] or "-") for layer in layers for way in ("up", "down")))


def _sums(layers: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Bytes up and down, drift and captured share of these tensors together."""
    known = [layer for layer in layers if layer["captured"] is not None]
    energy = sum(layer["drift"] ** 2 for layer in known)
    captured = sum(layer["captured"] * layer["drift"] ** 2 for layer in known) / energy if energy else None
    return (
        *(f"{sum(layer[way]['bytes'] for layer in layers):,.0f}" for way in ("up", "down")),
        f"{math.sqrt(energy):.2g}" if energy else "-",
        _percent(captured),
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
