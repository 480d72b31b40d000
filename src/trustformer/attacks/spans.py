# SPDX-License-Identifier: Apache-2.0
"""The row space of a gradient: what a layer was given lies in it.

For a linear layer Q = X W^T the gradient is dL/dW = dQ^T X. Its rows are combinations of the rows of X. If fewer
tokens went in than X is wide and dQ has full rank, they span exactly the inputs of the batch (DAGER, Petrov et al.,
arXiv 2405.15586, theorem 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from trustformer.vq import Array

NOISE = 1e-7
"""Singular values below this share of the largest are rounding of fp32. On `tiny` with 12 to 120 tokens rounding ends
at 1e-7. Of the layers read here true values begin at 1e-5; but those of the first source layer sink into rounding
where there are over 100 tokens, and the span is then a little too small (`benchmarks/screening/tolerances.py`)."""


@dataclass(frozen=True)
class RowSpace:
    """A subspace given by what is orthogonal to it.

    Attributes:
        complement: float64, orthonormal rows (C, D) that are orthogonal to the space.
        full: whether the matrix had no numerical null space, so that the dimension of the space was set, not found.
    """

    complement: torch.Tensor
    full: bool

    @classmethod
    def of(cls, gradient_OD: Array) -> RowSpace:
        """Return the row space of a gradient, or, where that is everything, its strongest half."""
        width = gradient_OD.shape[1]
        matrix = torch.from_numpy(gradient_OD.astype("f8"))
        _, strengths, rows = torch.linalg.svd(matrix, full_matrices=True)
        rank = int((strengths > NOISE * strengths[0]).sum()) if strengths[0] > 0 else 0
        full = rank >= width
        rank = width // 2 if full else rank
        return cls(rows[rank:], full)

    def distances(self, X_ND: torch.Tensor) -> torch.Tensor:
        """Return how far each row is from the space, as a share of its length, in 0..1: float64 (N,)."""
        shares: torch.Tensor = (X_ND @ self.complement.T).norm(dim=-1) / X_ND.norm(dim=-1).clamp_min(1e-12)
        return shares
