# SPDX-License-Identifier: Apache-2.0
"""The `[method]` section of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class MethodConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the federation exchanges.

    Attributes:
        name: `centroid` (this project), `fedavg`, `local` (no exchange), `centralized` (all data in one place);
            `lora_fedavg`, `ffa_lora`: dense averages of adapters, which need `model.lora_rank`; `dp_fedavg`,
            `dp_fedsam`, `dp_blur_lus`: private baselines, which need `privacy.mechanism`.
        variant: of `centroid`: `codebook` (blocks of the drift, with codes), `partition` (row centroids of the drift
            under one public partition, no codes), or `paper` (the published exchange).
        ratio: of `paper` and `partition`: centroids of a matrix as a share of its rows.
        partition: of `partition`: `rotating` (each row alone when it is its turn: 1 / ratio exchanges in a row are
            federated averaging), `drift` (the same, but rows that moved more have their turn more often), `history`
            (every second exchange, clusters of rows that moved alike), or `random` (clusters of equal size, drawn
            anew in every exchange).
        block: entries of a block that one code stands for; larger is fewer bytes and coarser.
        clusters: centroids of a codebook, at most.
        exchanges: of a round of `codebook` or `partition`: one after its training, the others at once.
        closing_exchanges: of these, exchanges without training after the last round; each shrinks what keeps clients
            apart.
        carry: of `codebook`: share of what an answer could not express that the next one after training makes up for;
            has to be 1 where a round has several exchanges.
        rho: of `dp_fedsam`: radius of the perturbation of its steps.
        blur_weight: of `dp_blur_lus`: weight of the penalty on updates beyond the clipping norm.
        lus_share: of `dp_blur_lus`: share of an update's entries that is kept.
    """

    name: Literal[
        "centroid",
        "fedavg",
        "local",
        "centralized",
        "lora_fedavg",
        "ffa_lora",
        "dp_fedavg",
        "dp_fedsam",
        "dp_blur_lus",
    ] = "centroid"
    variant: Literal["codebook", "partition", "paper"] = "codebook"
    ratio: Annotated[float, Meta(gt=0, le=1)] = 0.1
    partition: Literal["rotating", "drift", "history", "random"] = "rotating"
    block: Annotated[int, Meta(ge=1, le=1024)] = 8
    clusters: Annotated[int, Meta(ge=1, le=65536)] = 256
    exchanges: Annotated[int, Meta(ge=1, le=100)] = 1
    closing_exchanges: Annotated[int, Meta(ge=0, le=100)] = 1
    carry: Annotated[float, Meta(ge=0, le=1)] = 0.5
    rho: Annotated[float, Meta(gt=0, le=10)] = 0.05
    blur_weight: Annotated[float, Meta(ge=0, le=1000)] = 0.1
    lus_share: Annotated[float, Meta(gt=0, le=1)] = 0.5

    @property
    def coded(self) -> bool:
        """Whether messages hold centroids with codes: then `block`, `clusters` and `carry` count."""
        return (self.name, self.variant) == ("centroid", "codebook")

    @property
    def repeats(self) -> bool:
        """Whether drifts can be exchanged again without training: then `exchanges` and `closing_exchanges` count."""
        return self.name == "centroid" and self.variant != "paper"
