# SPDX-License-Identifier: Apache-2.0
"""The `[privacy]` section of a config."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct


class PrivacyConfig(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """Differential privacy of a run (docs/privacy-baselines.md says against whom).

    Attributes:
        mechanism: `none`; `enclave` (client level: clipped updates, noise once inside the enclave); `client` (client
            level, weaker in use: each client adds the noise to its own update); `records` (record level: DP-SGD).
        epsilon: what the whole run may spend; 0 for clipping without noise, that is without any guarantee.
        delta: chance that the guarantee fails; below one over the number of clients, or of a client's pairs.
        clipping_norm: largest L2 norm of an update, one-dimensional tensors included; of `records`: of a gradient.
        batch_pairs: of `records`: expected pairs of a step; each pair is drawn independently. Memory does not
            depend on it.
    """

    mechanism: Literal["none", "enclave", "client", "records"] = "none"
    epsilon: Annotated[float, Meta(ge=0, le=100)] = 0.0
    delta: Annotated[float, Meta(gt=0, lt=1)] = 1e-5
    clipping_norm: Annotated[float, Meta(ge=0.001, le=1e6)] = 1.0
    batch_pairs: Annotated[int, Meta(ge=1)] = 32

    @property
    def client_level(self) -> bool:
        """Whether whole clients are protected."""
        return self.mechanism in ("enclave", "client")
