"""Rows of a table by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd.op import Array, Index, constant, op
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, UnsupportedError
from minidl.ops.select import where
from minidl.tensor import Tensor

__all__ = ["embedding", "one_hot"]


@op(promote=None)
def _embedding(k: Any, input: Index, weight: Array, padding_idx: int | None) -> Any:
    if weight.ndim != 2:
        raise ShapeError("weight needs two axes (num_embeddings, embedding_dim)")
    if input.dtype.kind not in "iu":
        raise DTypeError("input must hold integer indices")
    if input.size and (input.min() < 0 or input.max() >= len(weight)):
        raise OutOfRangeError(
            f"indices must lie in [0, {len(weight)})", got=f"{input.min()} to {input.max()}"
        )
    return k.take(weight, input, axis=0)


@_embedding.gradient
def _(g: Tensor, input: Tensor, weight_shape: tuple, padding_idx: int | None) -> Any:
    return _embedding_backward(g, input, weight_shape[0], padding_idx)


@op
def _embedding_backward(
    k: Any, grad: Array, input: Index, num_embeddings: int, padding_idx: int | None
) -> Any:
    return k.embedding_backward(grad, input, num_embeddings, padding_idx)


@_embedding_backward.gradient
def _(g: Tensor, input: Tensor, padding_idx: int | None) -> Any:
    rows = _embedding(input, g, None)
    if padding_idx is None:
        return rows
    return where(constant((input.array != padding_idx)[..., None]), rows, 0.0)


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """The rows of `weight` that `input` names. input (...) integers, weight (n, d) -> (..., d).

    The row padding_idx (negative: from the end) gets no gradient. Raises OutOfRangeError for an
    index outside the table; max_norm, scale_grad_by_freq and sparse raise UnsupportedError.
    """
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise UnsupportedError(
            "max_norm, scale_grad_by_freq and sparse are left out; scale weight or its gradient"
            " yourself, gradients are dense",
            operator="embedding",
        )
    if padding_idx is not None:
        n = len(weight)
        if not -n <= padding_idx < n:
            raise ArgumentError(
                f"padding_idx must lie in [-{n}, {n})", operator="embedding", got=repr(padding_idx)
            )
        padding_idx %= n
    return _embedding(input, weight, padding_idx)


@op(promote=None, nondiff=True)
def one_hot(k: Any, tensor: Array, num_classes: int = -1) -> Any:
    """1 at the place that each index names, 0 elsewhere. tensor (...) int64 -> (..., C) int64.

    num_classes=-1: one more than the largest index.
    """
    if tensor.dtype != np.int64:
        raise DTypeError("needs an int64 tensor")
    if not tensor.size and num_classes <= 0:
        raise ArgumentError("an empty tensor needs num_classes", got=repr(num_classes))
    least, most = (tensor.min(), tensor.max()) if tensor.size else (0, -1)
    count = int(most) + 1 if num_classes == -1 else num_classes
    if least < 0 or most >= count:
        raise OutOfRangeError(
            f"indices must be >= 0 and < num_classes={num_classes}", got=f"{least} to {most}"
        )
    return k.asarray(k.eq(tensor[..., None], k.arange(count)), np.int64)
