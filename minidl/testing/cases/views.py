"""Rows of `minidl.ops.views`, and of the views that `minidl.ops.index` and `arrange` take."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import FLOATS, DType, bool_, int64, uint8
from minidl.ops import arrange, index, views
from minidl.testing.case import Case, Sample, sample

MOVED = (*FLOATS, int64, uint8, bool_)  # what only moves elements takes every dtype


def _input(*attributes: Any, **shapes: int) -> Any:
    """Inputs of one array; each attribute is a function of (draw, shape)."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(**shapes)
        return sample(d.array(shape, dtype), *(a(d, shape) for a in attributes))

    return inputs


def _axis(d: Any, shape: tuple[int, ...]) -> int:
    return d.axis(len(shape))


def _other_shape(d: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    options = [shape[::-1], (1, *shape), (*shape, 1), (int(np.prod(shape)),)]
    if shape and 0 not in shape:
        options += [(-1,), (-1, *shape[1:]), (shape[0], -1)]
    return d.choice(options)


def _split_shape(d: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape in which one axis is split: the strides of a view always exist."""
    if not shape:
        return d.choice([(), (1,), (1, 1)])
    i = d.integer(0, len(shape) - 1)
    n = shape[i]
    factors = [f for f in range(1, n + 1) if n % f == 0] or [1]
    f = d.choice(factors)
    return (*shape[:i], f, n // f, *shape[i + 1 :])


def _squeezed(x: np.ndarray, dim: Any = None) -> np.ndarray:
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    gone = {d % x.ndim for d in dims} if x.ndim else set()
    return x.reshape([n for i, n in enumerate(x.shape) if n != 1 or i not in gone])


def _squeeze(x: Any, dim: Any = None) -> Any:
    return x.squeeze() if dim is None else x.squeeze(dim)


def _ones_inputs(d: Any, dtype: DType) -> Sample:
    shape = tuple(d.choice([1, n]) for n in d.shape(max_dims=4))
    dim = d.axes(len(shape))
    return sample(d.array(shape, dtype), dim)


def _new_axis(d: Any, shape: tuple[int, ...]) -> int:
    return d.integer(-len(shape) - 1, len(shape))


def _flatten_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    first = d.integer(0, max(len(shape) - 1, 0))
    last = d.integer(first, max(len(shape) - 1, 0))
    return sample(d.array(shape, dtype), first, d.choice([last, last - max(len(shape), 1)]))


def _flattened(x: np.ndarray, first: int, last: int) -> np.ndarray:
    shape = x.shape or (1,)
    last %= len(shape)
    joined = int(np.prod(shape[first : last + 1]))
    return x.reshape((*shape[:first], joined, *shape[last + 1 :]))


def _unflatten_inputs(d: Any, dtype: DType) -> Sample:
    parts = d.shape(min_dims=1, max_dims=2, min_side=1, max_side=3)
    front, back = (d.shape(max_dims=1, min_side=1, max_side=3) for _ in range(2))
    shape = (*front, int(np.prod(parts)), *back)
    given = parts[:-1] + (d.choice([-1, parts[-1]]),)
    return sample(d.array(shape, dtype), d.choice([len(front), len(front) - len(shape)]), given)


def _unflattened(x: np.ndarray, dim: int, parts: tuple[int, ...]) -> np.ndarray:
    dim %= x.ndim
    known = int(np.prod([p for p in parts if p != -1]))
    full = [x.shape[dim] // known if p == -1 else p for p in parts]
    return x.reshape((*x.shape[:dim], *full, *x.shape[dim + 1 :]))


def _expand_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(max_dims=3, max_side=3)
    wide = [d.integer(0, 3) if n == 1 else n for n in shape]
    lead = d.shape(max_dims=1, max_side=3)
    kept = [-1 if w == n and d.boolean() else w for w, n in zip(wide, shape, strict=True)]
    return sample(d.array(shape, dtype), (*lead, *kept))


def _expanded(x: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    own = (1,) * (len(size) - x.ndim) + x.shape
    return np.ones([o if n == -1 else n for n, o in zip(size, own, strict=True)], x.dtype) * x


def _two_shapes(d: Any, dtype: DType) -> Sample:
    shape = d.shape(max_dims=3)
    return sample(d.array(shape, dtype), d.array(d.broadcastable(shape), dtype))


def _like_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(max_dims=3)
    like = np.zeros((*d.shape(max_dims=1, min_side=1, max_side=2), *shape), int)
    return sample(d.array(shape, dtype), d.constant(like))


def _order(d: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    n = len(shape)
    return tuple(int(i) - n * int(d.rng.integers(2)) for i in d.rng.permutation(n))


def _move_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1)
    if d.boolean():
        return sample(d.array(shape, dtype), d.axis(len(shape)), d.axis(len(shape)))
    count = d.integer(1, len(shape))
    pairs = [tuple(map(int, d.rng.permutation(len(shape))[:count])) for _ in range(2)]
    return sample(d.array(shape, dtype), *pairs)


def _plane_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=2)
    first, second = map(int, d.rng.permutation(len(shape))[:2])
    offset = d.integer(-3, 3)
    return sample(d.array(shape, dtype), offset, first, second - len(shape) * d.integer(0, 1))


def _spread_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=2)
    first, second = map(int, d.rng.permutation(len(shape))[:2])
    offset = d.integer(-3, 3)
    part = np.zeros(shape).diagonal(offset, first, second).shape
    return sample(d.array(part, dtype), shape, offset, first, second)


def _spread(
    x: np.ndarray, shape: tuple[int, ...], offset: int, first: int, second: int
) -> np.ndarray:
    out = np.zeros(shape, x.dtype)
    for place in np.ndindex(x.shape):
        i = place[-1]
        rest = iter(place[:-1])
        row, column = i + max(-offset, 0), i + max(offset, 0)
        where = [row if a == first else column if a == second else next(rest)
                 for a in range(len(shape))]  # fmt: skip
        out[tuple(where)] = x[place]
    return out


def _unfold_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(max_dims=3, min_side=1)
    dim = d.axis(len(shape))
    size = d.integer(1, shape[dim] if shape else 1)
    return sample(d.array(shape, dtype), dim, size, d.integer(1, 3))


def _unfolded(x: np.ndarray, dim: int, size: int, step: int) -> np.ndarray:
    if not x.ndim:
        return x.reshape(size)
    x = np.moveaxis(x, dim, -1)
    starts = range(0, x.shape[-1] - size + 1, step)
    windows = np.stack([x[..., s : s + size] for s in starts], -2)
    return np.moveaxis(windows, -2, dim if dim >= 0 else dim - 1)


def _unfold_back_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, max_dims=3, min_side=1)
    dim = d.integer(0, len(shape) - 1)
    size, step = d.integer(1, shape[dim]), d.integer(1, 3)
    windows = _unfolded(np.zeros(shape), dim, size, step).shape
    return sample(d.array(windows, dtype), shape, dim, size, step)


def _folded(g: np.ndarray, shape: tuple[int, ...], dim: int, size: int, step: int) -> np.ndarray:
    out = np.zeros(shape, g.dtype)
    for place in np.ndindex(g.shape):
        *where, i = place
        where[dim] = where[dim] * step + i
        out[tuple(where)] += g[place]
    return out


def _select_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, min_side=1)
    dim = d.axis(len(shape))
    return sample(d.array(shape, dtype), dim, d.integer(-shape[dim], shape[dim] - 1))


def _narrow_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1)
    dim = d.axis(len(shape))
    start = d.integer(0, shape[dim])
    length = d.integer(0, shape[dim] - start)
    negative = start and d.boolean()
    return sample(d.array(shape, dtype), dim, start - shape[dim] * (start < shape[dim])
                  if negative else start, length)  # fmt: skip


def _narrowed(x: np.ndarray, dim: int, start: int, length: int) -> np.ndarray:
    start += x.shape[dim] * (start < 0)
    return np.take(x, np.arange(start, start + length), dim)


def _split_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1)
    dim = d.axis(len(shape))
    n = shape[dim]
    if d.boolean():
        return sample(d.array(shape, dtype), d.integer(1, 3), dim)
    cuts = sorted(d.integer(0, n) for _ in range(d.integer(0, 3)))
    lengths = [b - a for a, b in zip([0, *cuts], [*cuts, n], strict=True)]
    return sample(d.array(shape, dtype), lengths, dim)


def _cut(x: np.ndarray, dim: int, cuts: Any) -> list[np.ndarray]:
    return [np.take(x, np.arange(a, b), dim) for a, b in zip(cuts, cuts[1:], strict=False)]


def _splits(x: np.ndarray, by: Any, dim: int) -> list[np.ndarray]:
    n = x.shape[dim]
    if isinstance(by, list):
        return _cut(x, dim, [0, *np.cumsum(by).tolist()])
    return _cut(x, dim, [*range(0, max(n, 1), by), n])


def _chunks(x: np.ndarray, count: int, dim: int) -> list[np.ndarray]:
    n = x.shape[dim]
    if not n:
        return [x] * count
    step = -(-n // count)
    return _cut(x, dim, [*range(0, n, step), n])


def _cuts_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1)
    dim = d.axis(len(shape))
    if d.boolean():
        return sample(d.array(shape, dtype), d.integer(1, 4), dim)
    given = [d.integer(-2, shape[dim] + 1) for _ in range(d.integer(0, 3))]
    return sample(d.array(shape, dtype), d.choice([given, sorted(given)]), dim)


def _array_splits(x: np.ndarray, by: Any, dim: int) -> list[np.ndarray]:
    if isinstance(by, int):
        return np.array_split(x, by, dim)
    lead = (slice(None),) * (dim % x.ndim)
    return [x[(*lead, slice(a, b))] for a, b in zip([0, *by], [*by, None], strict=True)]


def _several(d: Any, dtype: DType) -> Sample:
    return sample([d.array(d.shape(max_dims=3), dtype) for _ in range(d.integer(1, 3))])


def _atleast(oracle: Any) -> Any:
    return lambda xs: [oracle(x) for x in xs]


CASES = [
    Case("view", lambda x, shape: x.view(shape), np.reshape, _input(_split_shape),
         torch="torch.Tensor.view", dtypes=MOVED),
    Case("view_as", views.view_as, lambda x, y: x.reshape(y.shape),
         lambda d, dtype: sample(d.array((2, 6), dtype), d.constant(np.zeros((2, 2, 3), int))),
         torch="torch.Tensor.view_as", operators=("view",)),
    Case("reshape", views.reshape, np.reshape, _input(_other_shape), operators=("view",),
         torch="torch.reshape", dtypes=MOVED),
    Case("reshape_as", views.reshape_as, lambda x, y: x.reshape(y.shape),
         lambda d, dtype: sample(d.array((4, 3), dtype), d.constant(np.zeros((2, 2, 3), int))),
         torch="torch.Tensor.reshape_as", operators=("view",)),
    Case("squeeze", _squeeze, _squeezed, _ones_inputs, operators=("view",), dtypes=MOVED,
         torch=lambda torch, x, dim: x.squeeze() if dim is None else x.squeeze(dim)),
    Case("unsqueeze", views.unsqueeze, np.expand_dims, _input(_new_axis, max_dims=3),
         operators=("view",), dtypes=MOVED),
    Case("flatten", views.flatten, _flattened, _flatten_inputs, operators=("view",)),
    Case("ravel", views.ravel, np.ravel, _input(), operators=("view",)),
    Case("unflatten", views.unflatten, _unflattened, _unflatten_inputs, operators=("view",)),
    Case("atleast_1d", views.atleast_1d, _atleast(np.atleast_1d), _several, operators=("view",)),
    Case("atleast_2d", views.atleast_2d, _atleast(np.atleast_2d), _several, operators=("view",)),
    Case("atleast_3d", views.atleast_3d, _atleast(np.atleast_3d), _several, operators=("view",)),
    Case("expand", views.expand, _expanded, _expand_inputs, torch="torch.Tensor.expand",
         dtypes=FLOATS),
    Case("expand_as", views.expand_as, lambda x, y: np.broadcast_to(x, y.shape), _like_inputs,
         torch="torch.Tensor.expand_as", operators=("expand",)),
    Case("broadcast_to", views.broadcast_to, _expanded, _expand_inputs, operators=("expand",)),
    Case("broadcast_tensors", views.broadcast_tensors, np.broadcast_arrays, _two_shapes,
         operators=("expand",)),
    Case("permute", views.permute, np.transpose, _input(_order), dtypes=MOVED),
    Case("transpose", views.transpose, np.swapaxes, _input(_axis, _axis, min_dims=1),
         operators=("permute",), dtypes=MOVED),
    Case("t", views.t, np.transpose, _input(max_dims=2), operators=("permute",)),
    Case("T", lambda x: x.T, np.transpose, _input(), operators=("permute",),
         torch=lambda torch, x: x.permute(tuple(range(x.ndim))[::-1])),
    Case("mT", lambda x: x.mT, lambda x: np.swapaxes(x, -2, -1), _input(min_dims=2),
         torch=lambda torch, x: x.mT, operators=("permute",)),
    Case("movedim", views.movedim, np.moveaxis, _move_inputs, operators=("permute",)),
    Case("diagonal", views.diagonal, np.diagonal, _plane_inputs, dtypes=MOVED),
    Case("diagonal gradient", views.spread_diagonal, _spread, _spread_inputs, torch=None,
         operators=("spread_diagonal",)),
    Case("unfold", views.unfold, _unfolded, _unfold_inputs, torch="torch.Tensor.unfold",
         dtypes=MOVED),
    Case("unfold gradient", views._unfold_back, _folded, _unfold_back_inputs, torch=None,
         operators=("unfold_back",)),
    Case("select", index.select, lambda x, dim, i: np.take(x, i, dim), _select_inputs,
         operators=("getitem",), dtypes=MOVED),
    Case("narrow", index.narrow, _narrowed, _narrow_inputs, operators=("getitem",)),
    Case("split", arrange.split, _splits, _split_inputs, operators=("getitem",), dtypes=MOVED),
    Case("chunk", arrange.chunk, _chunks,
         _input(lambda d, shape: d.integer(1, 4), _axis, min_dims=1), operators=("getitem",)),
    Case("tensor_split", arrange.tensor_split, _array_splits, _cuts_inputs,
         operators=("getitem",)),
    Case("unbind", arrange.unbind, lambda x, dim: list(np.moveaxis(x, dim, 0)),
         _input(_axis, min_dims=1, min_side=1), operators=("getitem",)),
]  # fmt: skip
