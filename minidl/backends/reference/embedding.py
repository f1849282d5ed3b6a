"""Scattered sums: gradients of look-ups, `scatter_add`, `index_add`, `index_put`.

Repeated positions are added in the C order of the source, one after the other. Indices are in
range (the caller checks). Inputs may have any strides and are not written; results are fresh,
C-contiguous, of the first operand's dtype. Floor: repeats * eps * sum|src| per element.
"""

import math
from typing import Any

import numpy as np

from minidl.backends.reference.blocks import as_rows, spans


def add_at(target: np.ndarray, positions: np.ndarray, values: np.ndarray) -> None:
    """target[positions[i]] += values[i], one after the other; all are (n,), of one dtype."""
    np.add.at(target, positions, values)


def _add_rows(out: np.ndarray, index: np.ndarray, rows: np.ndarray) -> None:
    """out[index[i]] += rows[i] for C-contiguous `out` (n, width); -n <= index < n.

    `add.at` on one axis is a C loop over positions, 4 times as fast as on rows and faster than
    sorting with `reduceat`.
    """
    width = out.shape[1]
    target, columns = out.reshape(-1), np.arange(width)
    for start, stop in spans(len(rows), width):
        positions = (index[start:stop, None] * width + columns).reshape(-1)
        add_at(target, positions, rows[start:stop].reshape(-1))


def embedding_backward(
    g: np.ndarray, index: np.ndarray, num_embeddings: int, padding_idx: int | None
) -> np.ndarray:
    """Sum of the rows of g per looked-up row; the padding row is 0.

    g: (*index.shape, D), index: any shape, 0 <= index < num_embeddings -> (num_embeddings, D).
    """
    width = g.shape[-1]
    out = np.zeros((num_embeddings, width), g.dtype)
    flat_index = index.reshape(-1).astype(np.intp, copy=False)
    _add_rows(out, flat_index, as_rows(g, index.size, width))
    if padding_idx is not None:
        out[padding_idx] = 0
    return out


def scatter_add(x: np.ndarray, dim: int, index: np.ndarray, src: np.ndarray) -> np.ndarray:
    """A copy of x with src added at the places that `index` names along `dim`.

    x: (...), index: as many axes, no longer than src in any and than x in any but `dim`,
    src: (...) -> x's shape. Only the leading part of src that index covers is read.
    """
    if not x.ndim:
        one = scatter_add(x.reshape(1), 0, index.reshape(-1), src.reshape(-1))
        return one.reshape(()).copy()
    out = np.array(x, order="C")
    src = src[tuple(slice(n) for n in index.shape)]
    positions = np.zeros(index.shape, np.intp)
    for axis, length in enumerate(index.shape):
        step = out.strides[axis] // out.itemsize
        if axis == dim % x.ndim:
            positions += index * step
        else:
            positions += (np.arange(length) * step).reshape(-1, *(1,) * (index.ndim - axis - 1))
    add_at(out.reshape(-1), positions.reshape(-1), src.reshape(-1).astype(x.dtype, copy=False))
    return out


def index_add(
    x: np.ndarray, dim: int, index: np.ndarray, src: np.ndarray, alpha: float
) -> np.ndarray:
    """A copy of x with alpha * src[i] added to its slice index[i] along `dim`.

    x: (...), index: (n,) or (), src: x's shape with n along `dim` -> x's shape.
    """
    if not x.ndim:
        return index_add(x.reshape(1), 0, index, src.reshape(-1), alpha).reshape(()).copy()
    moved = np.moveaxis(x, dim, 0)
    out = np.array(moved, order="C")
    width = math.prod(moved.shape[1:])
    rows = as_rows(np.moveaxis(src, dim, 0), index.size, width)
    if alpha != 1:
        rows = (rows * alpha).astype(x.dtype, copy=False)
    target = out.reshape(len(moved), width)
    _add_rows(target, index.reshape(-1).astype(np.intp, copy=False), rows)
    return np.ascontiguousarray(np.moveaxis(out, 0, dim))


def _is_basic(item: Any) -> bool:
    """Whether an index item selects by position without repeats: int, slice, None, `...`."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return True
    return isinstance(item, int | np.integer) and not isinstance(item, bool)


def _places(item: Any) -> tuple[Any, ...]:
    """An index item as the array module takes it; where it takes no masks, as positions."""
    return (item,)


def index_put(
    x: np.ndarray, indices: tuple[Any, ...], value: np.ndarray, accumulate: bool
) -> np.ndarray:
    """A copy of x with x[indices] = value, or += value counting repeated places each time.

    x: (...), indices: what NumPy takes (integer and bool arrays, slices, ints, None, Ellipsis),
    value: broadcastable to x[indices] -> x's shape. Without `accumulate` the last of repeated
    places wins.
    """
    indices = tuple(place for item in indices for place in _places(item))
    out = np.array(x, order="C")
    if not accumulate:
        out[indices] = value
    elif all(_is_basic(item) for item in indices):
        out[indices] += value
    elif len(indices) == 1 and indices[0].dtype != np.bool_ and x.ndim:
        index = indices[0].reshape(-1)
        width = math.prod(x.shape[1:])
        value = np.broadcast_to(value, indices[0].shape + x.shape[1:])
        rows = as_rows(value.astype(x.dtype, copy=False), index.size, width)
        _add_rows(out.reshape(len(x), width), index, rows)
    else:
        # NumPy itself says which flat position every selected element has
        places = np.arange(x.size).reshape(x.shape)[indices]
        value = np.broadcast_to(value, places.shape).astype(x.dtype, copy=False)
        add_at(out.reshape(-1), places.reshape(-1), value.reshape(-1))
    return out
