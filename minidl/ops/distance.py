"""Distances and similarities of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import constant
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.along import index_select
from minidl.ops.convert import cast
from minidl.ops.method import check_tensor, method
from minidl.ops.reduce import norm, sum
from minidl.ops.select import clamp_min
from minidl.ops.views import broadcast_tensors, unsqueeze
from minidl.tensor import Tensor

__all__ = ["cdist", "cosine_similarity", "dist", "pairwise_distance", "pdist"]


def _check(name: str, **given: Any) -> None:
    for argument, x in given.items():
        check_tensor(name, argument, x)
        if x.dtype.kind != FLOAT:
            raise DTypeError(f"{argument} must be floating point", operator=name, got=repr(x.dtype))


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between `x1` and `x2` along `dim`; broadcast.

    Norms below `eps` count as `eps`.
    """
    _check("cosine_similarity", x1=x1, x2=x2)
    x1, x2 = broadcast_tensors(x1, x2)
    if x1.dtype is not x2.dtype:
        x2 = cast(x2, x1.dtype)
    parts = [x / clamp_min(norm(x, 2, dim, True), eps) for x in (x1, x2)]
    return sum(parts[0] * parts[1], dim)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """The p-norm of `x1 - x2 + eps` over the last axis; broadcast. (..., D) -> (...)."""
    _check("pairwise_distance", x1=x1, x2=x2)
    return norm(x1 - x2 + eps, p, -1, keepdim)


@method("dist")
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of `input - other`, broadcast, over all elements."""
    _check("dist", input=input, other=other)
    return norm(input - other, p)


def _check_p(name: str, p: float) -> None:
    if not p >= 0:
        raise ArgumentError("p must not be negative", operator=name, got=repr(p))


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """The p-norm distances of all rows of one to all rows of the other.

    x1: (..., P, D), x2: (..., R, D) -> (..., P, R), leading axes broadcast. `compute_mode` is
    accepted and changes nothing: differences are taken one by one, which loses no digits.
    """
    _check("cdist", x1=x1, x2=x2)
    _check_p("cdist", p)
    if x1.ndim < 2 or x2.ndim < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ShapeError("needs (..., P, D) and (..., R, D)", operator="cdist",
                         got=f"{x1.shape}, {x2.shape}")  # fmt: skip
    return norm(unsqueeze(x1, -2) - unsqueeze(x2, -3), p, -1)


def pdist(input: Tensor, p: float = 2) -> Tensor:
    """The p-norm distances of all pairs of rows: (N, D) -> (N (N - 1) / 2,), pair (0, 1) first."""
    _check("pdist", input=input)
    _check_p("pdist", p)
    if input.ndim != 2:
        raise ShapeError("needs (N, D)", operator="pdist", got=str(input.shape))
    first, second = (constant(i) for i in np.triu_indices(len(input), 1))
    return norm(index_select(input, 0, first) - index_select(input, 0, second), p, -1)
