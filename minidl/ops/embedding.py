"""Rows of a table by index."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.autograd import no_grad
from minidl.autograd.op import Array, Index, constant, op
from minidl.backends import kernels_for
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError, UnsupportedError
from minidl.ops.along import index_add
from minidl.ops.compare import gt
from minidl.ops.convert import cast, clone
from minidl.ops.creation import zeros
from minidl.ops.index import getitem
from minidl.ops.method import check_tensor
from minidl.ops.reduce import max, norm, sum
from minidl.ops.select import where
from minidl.ops.views import expand, reshape
from minidl.tensor import Tensor

__all__ = ["embedding", "embedding_bag", "one_hot"]


@op(promote=None)
def _embedding(k: Any, input: Index, weight: Array, padding_idx: int | None) -> Any:
    if weight.ndim != 2:
        raise ShapeError("weight needs two axes (num_embeddings, embedding_dim)")
    if input.dtype.kind not in "iu":
        raise DTypeError("input must hold integer indices")
    if k.device != "cpu":
        outside = k.logical_or(input < 0, input >= len(weight))
        k.refuse(outside, OutOfRangeError(f"indices must lie in [0, {len(weight)})"))
    elif input.size and (input.min() < 0 or input.max() >= len(weight)):
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

    The row padding_idx (negative: from the end) gets no gradient. max_norm: rows that are looked up
    are first scaled down, in `weight` itself, to a `norm_type`-norm of at most that.
    scale_grad_by_freq: the gradient of a row is divided by how often it is looked up. Raises
    OutOfRangeError for an index outside the table, UnsupportedError for `sparse`.
    """
    if sparse:
        raise UnsupportedError(
            "sparse gradients are left out; use sparse=False", operator="embedding"
        )
    if max_norm is not None:
        _limit_rows(input, weight, max_norm, norm_type)
    if scale_grad_by_freq:
        rows = embedding(input, weight, padding_idx)
        counts = _occurrences(input.array, len(weight), rows.array.dtype)
        shared = rows / constant(counts[..., None])
        return rows.detach() + (shared - shared.detach())
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
    if k.device != "cpu" and num_classes >= 0:
        outside = k.logical_or(tensor < 0, tensor >= num_classes)
        rule = f"indices must be >= 0 and < num_classes={num_classes}"
        k.refuse(outside, OutOfRangeError(rule))
        return k.asarray(k.eq(tensor[..., None], k.arange(num_classes)), np.int64)
    least, most = (tensor.min(), tensor.max()) if tensor.size else (0, -1)
    if k.device != "cpu" and tensor.size:
        least, most = k.host(least), k.host(most)
    count = int(most) + 1 if num_classes == -1 else num_classes
    if least < 0 or most >= count:
        raise OutOfRangeError(
            f"indices must be >= 0 and < num_classes={num_classes}", got=f"{least} to {most}"
        )
    return k.asarray(k.eq(tensor[..., None], k.arange(count)), np.int64)


def _occurrences(index: Any, size: int, dtype: Any) -> Any:
    """How often each index occurs, in its place."""
    k: Any = kernels_for(index)
    if k.device == "cpu":
        return k.bincount(index.reshape(-1), minlength=1)[index].astype(dtype)
    flat = index.reshape(-1)
    counts = k.index_add(k.zeros(size, dtype), 0, flat, k.ones(flat.shape, dtype), 1)
    return k.take(counts, index, axis=0)


def _limit_rows(input: Tensor, weight: Tensor, max_norm: float, norm_type: float) -> None:
    """Scale the rows of `weight` that `input` names down to `max_norm`, in place."""
    check_tensor("embedding", "input", input)
    check_tensor("embedding", "weight", weight)
    k: Any = kernels_for(input.array)
    places = np.unique(k.host(input.array))
    if places.size and (places[0] < 0 or places[-1] >= len(weight)):
        return  # the look-up says so
    places = k.asarray(places)
    with no_grad():
        rows = weight.detach()[constant(places)]
        sizes = norm(rows, norm_type, 1, True)
        factor = where(gt(sizes, max_norm), max_norm / (sizes + 1e-7), 1.0)
        weight.detach()[constant(places)] = cast(rows * factor, rows.array.dtype)


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Sums, means or maxima of the rows of `weight` that each bag of indices names.

    input: (B, N), a bag a row; or (N,) with offsets (B,), where each bag begins -> (B, d). mode:
    "sum", "mean" or "max"; an empty bag gives zeros. per_sample_weights: of input's shape, for
    "sum". include_last_offset: offsets ends with the number of indices. padding_idx: is left out of
    its bag. Raises ShapeError, ArgumentError, OutOfRangeError; UnsupportedError for `sparse`, and
    for scale_grad_by_freq with "max".
    """
    name = "embedding_bag"
    check_tensor(name, "input", input)
    check_tensor(name, "weight", weight)
    if mode not in ("sum", "mean", "max"):
        raise ArgumentError("mode is 'sum', 'mean' or 'max'", operator=name, got=repr(mode))
    if mode == "max" and scale_grad_by_freq:
        raise UnsupportedError("scale_grad_by_freq has no meaning for mode 'max'", operator=name)
    if per_sample_weights is not None:
        check_tensor(name, "per_sample_weights", per_sample_weights)
        if mode != "sum" or per_sample_weights.shape != input.shape:
            raise ArgumentError("per_sample_weights are for mode 'sum', of input's shape",
                                operator=name,
                                got=f"{mode}, {per_sample_weights.shape}")  # fmt: skip
    starts, lengths = _bags(name, input, offsets, include_last_offset)
    indices = input.array.reshape(-1)
    rows = embedding(
        constant(indices), weight, None, max_norm, norm_type, scale_grad_by_freq, sparse
    )
    k: Any = kernels_for(indices)
    kept = k.ones(indices.shape, bool)
    if padding_idx is not None:
        if not -len(weight) <= padding_idx < len(weight):
            raise ArgumentError(f"padding_idx must lie in [{-len(weight)}, {len(weight)})",
                                operator=name, got=repr(padding_idx))  # fmt: skip
        kept = indices != padding_idx % len(weight)
    if mode == "max":
        return _largest_of_bags(rows, starts, lengths, kept)
    bag = k.asarray(np.repeat(np.arange(len(lengths)), lengths))
    if per_sample_weights is not None:
        rows = rows * reshape(per_sample_weights, (-1, 1))
    rows = where(constant(kept[:, None]), rows, 0.0)
    out = index_add(
        zeros((len(lengths), weight.shape[1]), dtype=rows.dtype, device=rows.device),
        0,
        constant(bag),
        rows,
    )
    if mode == "sum":
        return out
    if padding_idx is None:
        counts = k.asarray(lengths)
    else:
        counts = k.index_add(k.zeros(len(lengths), np.int64), 0, bag, kept.astype(np.int64), 1)
    return out / constant(k.maximum(counts, 1)[:, None].astype(rows.array.dtype))


def _bags(
    name: str, input: Tensor, offsets: Tensor | None, include_last: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Where each bag begins among all indices, and how many it has."""
    if input.ndim == 2:
        if offsets is not None:
            raise ArgumentError("offsets are for input of one axis", operator=name)
        count, length = input.shape
        return np.arange(count) * length, np.full(count, length)
    if input.ndim != 1 or offsets is None or offsets.ndim != 1:
        raise ShapeError("needs input (B, N), or (N,) with offsets (B,)", operator=name,
                         got=str(input.shape))  # fmt: skip
    starts = kernels_for(offsets.array).host(offsets.array)
    if include_last:
        if not starts.size:
            raise ArgumentError("include_last_offset needs an offset", operator=name)
        ends, starts = starts[1:], starts[:-1]
    else:
        ends = np.append(starts[1:], input.shape[0])
    lengths = ends - starts
    if (starts.size and starts[0] != 0) or (lengths < 0).any() or lengths.sum() != len(input):
        raise ArgumentError("offsets must begin with 0 and not decrease, and the bags must hold"
                            f" all of the {len(input)} indices", operator=name,
                            got=str(offsets.tolist()))  # type: ignore[attr-defined]  # fmt: skip
    return starts, lengths


def _largest_of_bags(rows: Tensor, starts: np.ndarray, lengths: np.ndarray, kept: Any) -> Tensor:
    longest = int(lengths.max()) if lengths.size else 0
    if not longest:
        return clone(expand(sum(rows, 0), (len(lengths), rows.shape[1])))  # of no row at all
    within = np.arange(longest) < lengths[:, None]
    k: Any = kernels_for(kept)
    places = k.asarray(np.where(within, starts[:, None] + np.arange(longest), 0))
    there: Any = k.asarray(within) & kept[places]
    wide = getitem(rows, (constant(places),))  # (B, longest, d)
    largest = max(where(constant(there[..., None]), wide, -np.inf), 1)[0]
    return where(constant(there.any(1)[:, None]), largest, 0.0)
