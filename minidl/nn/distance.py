"""Distances and similarities as modules."""

from __future__ import annotations

import minidl.ops as ops
from minidl.nn.module import Module
from minidl.tensor import Tensor


class CosineSimilarity(Module):
    """The cosine of the angle between two tensors along `dim`."""

    def __init__(self, dim: int = 1, eps: float = 1e-8) -> None:
        super().__init__()
        self.dim = dim
        self.eps = eps

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Return the shape of the inputs, broadcast, without axis `dim`."""
        return ops.cosine_similarity(x1, x2, self.dim, self.eps)


class PairwiseDistance(Module):
    """The p-norm of the difference of two tensors over the last axis."""

    def __init__(self, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> None:
        super().__init__()
        self.norm = p
        self.eps = eps
        self.keepdim = keepdim

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        """(N, D) and (N, D) -> (N,), or (N, 1) with `keepdim`."""
        return ops.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)
