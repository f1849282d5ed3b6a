"""Rows of `minidl.ops.index` and `along`. The oracles of look-ups are loops over all places."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import FLOATS, DType, bool_, float32, float64, int64, uint8
from minidl.ops import along, creation, index
from minidl.testing.case import Case, Sample, sample

MOVED = (*FLOATS, int64, uint8, bool_)


# ---------------------------------------------------------------- brackets


def _slice(d: Any, n: int) -> slice:
    start, stop = (d.choice([None, d.integer(-n - 1, n + 1)]) for _ in range(2))
    return slice(start, stop, d.choice([None, 1, 2, 3]))


def _basic_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    parts: list[Any] = []
    for n in shape[: d.integer(0, len(shape))]:
        parts.append(_slice(d, n) if not n or d.boolean() else d.integer(-n, n - 1))
    for extra in (None, Ellipsis):
        if d.boolean():
            parts.insert(d.integer(0, len(parts)), extra)
    at = parts.index(Ellipsis) if Ellipsis in parts else 0
    if Ellipsis in parts and any(p is not None for p in parts[at:]):
        parts = parts[: at + 1]  # what follows would meet other axes than it was drawn for
    return sample(d.array(shape, dtype), tuple(parts))


def _advanced_inputs(d: Any, dtype: DType) -> Sample:
    """Index arrays that broadcast together, slices, integers, None and masks, mixed."""
    shape = d.shape(min_dims=1, min_side=1)
    common = d.shape(max_dims=2, max_side=3)
    parts: list[Any] = []
    arrays = 0
    for n in shape[: d.integer(1, len(shape))]:
        kind = d.choice(["array", "array", "slice", "int", "mask"])
        if kind == "array":
            size = d.broadcastable(common, within=True)
            # one that stands alone has axes: a 0-d one is an integer
            parts.append(d.index(n, size or (2,) if not common else size or (1,)))
            arrays += 1
        elif kind == "mask" and not arrays:
            parts.append(_mask_of(d, n, common))
            arrays += 1
        else:
            parts.append(_slice(d, n) if kind == "slice" else d.integer(-n, n - 1))
    if not any(isinstance(p, np.ndarray) for p in parts):
        parts[0] = d.index(shape[0], common or (2,))
    if d.boolean():
        parts.insert(d.integer(0, len(parts)), None)
    return sample(d.array(shape, dtype), tuple(parts))


def _mask_of(d: Any, n: int, common: tuple[int, ...]) -> np.ndarray:
    """A mask of which one element is true: it broadcasts with all index arrays."""
    mask = np.zeros(n, bool)
    mask[d.integer(0, n - 1)] = True
    return mask


def _integers_first(x: np.ndarray, parts: tuple[Any, ...]) -> np.ndarray:
    """PyTorch's order: integers select first, whatever remains is NumPy's business."""
    axis = 0
    rest: list[Any] = []
    for part in parts:
        if isinstance(part, int):
            x = np.take(x, part, axis)
            continue
        rest.append(part)
        axis += part is not None
    return x[tuple(rest)]


def _mask_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1)
    first = d.integer(0, len(shape) - 1)
    last = d.integer(first, len(shape))
    parts = (*[slice(None)] * first, d.mask(shape[first:last]))
    return sample(d.array(shape, dtype), parts)


def _masked(x: np.ndarray, parts: tuple[Any, ...]) -> np.ndarray:
    *lead, mask = parts
    n = len(lead)
    flat = x.reshape((*x.shape[:n], mask.size, *x.shape[n + mask.ndim :]))
    return np.take(flat, np.flatnonzero(mask), n)


def _back_inputs(d: Any, dtype: DType) -> Sample:
    given = _advanced_inputs(d, dtype).args
    shape = given[0].shape
    parts = [slice(None) if isinstance(p, int) else p for p in given[1] if p is not None]
    parts += [slice(None)] * (len(shape) - len(parts))
    arrays = tuple(_Fixed(p) if isinstance(p, np.ndarray) else p for p in parts)
    out = np.zeros(shape)[tuple(parts)]
    return sample(d.array(out.shape, dtype), arrays, shape)


class _Fixed:
    """An index array that is an attribute of the call, not a tensor."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = np.array(array)

    def __repr__(self) -> str:
        return repr(self.array)


def _raw(parts: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(p.array if isinstance(p, _Fixed) else p for p in parts)


def _index_back(g: Any, parts: tuple[Any, ...], shape: tuple[int, ...]) -> Any:
    whole = creation.zeros(shape, dtype=g.dtype, device=g.device)
    return index._index_back(g, index.placed_index(whole, _raw(parts)), shape)


def _added(g: np.ndarray, parts: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray:
    out = np.zeros(shape, g.dtype)
    places = np.arange(out.size).reshape(shape)[_raw(parts)]
    for place, value in zip(places.ravel(), g.ravel(), strict=True):
        out.flat[place] += value
    return out


def _basic_back_inputs(d: Any, dtype: DType) -> Sample:
    x, parts = _basic_inputs(d, dtype).args
    if Ellipsis not in parts:
        parts = (*parts, Ellipsis)
    return sample(d.array(np.zeros(x.shape)[parts].shape, dtype), parts, x.shape)


# ---------------------------------------------------------------- writing


def _put_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, min_side=1)
    count = d.integer(1, len(shape))
    common = d.shape(min_dims=1, max_dims=2, min_side=1, max_side=2)
    # different places: which of repeated ones wins is not specified
    flat = d.rng.permutation(int(np.prod(shape[:count])))[: int(np.prod(common))]
    common = common if flat.size == np.prod(common) else flat.shape
    places = np.unravel_index(flat.reshape(common), shape[:count])
    indices = tuple(d.layout(p.astype(np.int64), broadcast=False) for p in places)
    values = d.broadcastable((*common, *shape[count:]), within=True)
    return sample(d.array(shape, dtype), indices, d.array(values, dtype))


def _put(x: np.ndarray, indices: tuple[Any, ...], values: np.ndarray) -> np.ndarray:
    out, wide = x.copy(), np.broadcast_to(values, x[indices].shape)
    for place in np.ndindex(indices[0].shape):
        out[tuple(i[place] for i in indices)] = wide[place]
    return out


def _put_add_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, min_side=1)
    count = d.integer(1, len(shape))
    common = d.shape(min_dims=1, max_dims=2, max_side=3)
    indices = tuple(d.index(n, common) for n in shape[:count])
    values = d.broadcastable((*common, *shape[count:]), within=True)
    return sample(d.array(shape, dtype), indices, d.array(values, dtype))


def _put_add(x: np.ndarray, indices: tuple[Any, ...], values: np.ndarray) -> np.ndarray:
    out, wide = x.copy(), np.broadcast_to(values, x[indices].shape)
    for place in np.ndindex(indices[0].shape):
        out[tuple(i[place] for i in indices)] += wide[place]
    return out


def _mask_put_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1)
    mask = d.mask(shape)
    values = d.array(d.choice([(), (int(mask.sum()),)]), dtype)
    return sample(d.array(shape, dtype), mask, values)


def _set_items(x: Any, *assignments: Any) -> Any:
    """A clone after `x[index] = value` for each (index, value)."""
    x = x.clone()
    for where, value in assignments:
        x[where] = value
    return x


def _set_inputs(d: Any, dtype: DType) -> Sample:
    """A write through a view, one through an index array, one of a number."""
    shape = d.shape(min_dims=1, max_dims=3, min_side=1)
    view = _slice(d, shape[0])
    values = d.broadcastable(np.zeros(shape)[view].shape, within=True)
    rows = d.index(shape[0], (d.integer(1, shape[0]),), distinct=True)
    picked = (*rows.shape, *shape[1:])  # of another dtype: refused, but for one element
    return sample(
        d.array(shape, dtype),
        (view, d.array((*[1] * d.integer(0, 1), *values), dtype)),
        ((rows,), d.array(picked, dtype)),
        (d.integer(-shape[0], shape[0] - 1), d.choice([0, 1.5, True])),
    )


def _set_oracle(x: np.ndarray, *assignments: Any) -> np.ndarray:
    out = np.array(x)
    for where, value in assignments:
        out[where] = value
    return out


# ---------------------------------------------------------------- along an axis


def _along_inputs(d: Any, dtype: DType, distinct: bool = False) -> tuple[np.ndarray, Any, Any]:
    """(input, dim, index): the index is shorter than the input, but of any length along dim."""
    shape = d.shape(max_dims=3, min_side=1)
    dim = d.axis(len(shape))
    if not shape:
        return d.array((), dtype), dim, d.index(1, ())
    sides = [d.integer(1, n) for n in shape]
    if not distinct:
        sides[dim] = d.integer(0, 4)
        return d.array(shape, dtype), dim, d.index(shape[dim], sides)
    values = np.stack([d.rng.permutation(shape[dim])[: sides[dim]] for _ in range(np.prod(sides)
                       // sides[dim])])  # fmt: skip
    rest = [n for i, n in enumerate(sides) if i != dim % len(shape)]
    values = np.moveaxis(values.reshape((*rest, sides[dim])), -1, dim)
    return d.array(shape, dtype), dim, d.layout(values.astype(np.int64), broadcast=False)


def _gather_inputs(d: Any, dtype: DType) -> Sample:
    return sample(*_along_inputs(d, dtype))


def _place(dim: int, i: Any, place: tuple[int, ...]) -> tuple[int, ...]:
    full = list(place)
    full[dim] = i
    return tuple(full)


def _gathered(x: np.ndarray, dim: int, where: np.ndarray) -> np.ndarray:
    if not x.ndim:
        return x
    out = np.empty(where.shape, x.dtype)
    for place in np.ndindex(where.shape):
        out[place] = x[_place(dim, where[place], place)]
    return out


def _scatter_inputs(d: Any, dtype: DType, distinct: bool = True) -> Sample:
    x, dim, where = _along_inputs(d, dtype, distinct)
    sides = tuple(n + d.integer(0, 1) for n in where.shape)
    return sample(x, dim, where, d.array(sides, dtype))


def _scatter_add_inputs(d: Any, dtype: DType) -> Sample:
    return _scatter_inputs(d, dtype, distinct=False)


def _scatter_number_inputs(d: Any, dtype: DType) -> Sample:
    x, dim, where = _along_inputs(d, dtype)
    return sample(x, dim, where, d.integer(-2, 2))


def _scattered(x: np.ndarray, dim: int, where: np.ndarray, src: Any) -> np.ndarray:
    out = np.atleast_1d(x).copy()
    where, src = np.atleast_1d(where), np.atleast_1d(src)
    for place in np.ndindex(where.shape):
        value = src[place] if src.ndim == where.ndim and src.size > 1 else src.flat[0]
        out[_place(dim, where[place], place)] = value
    return out.reshape(x.shape)


def _scatter_added(x: np.ndarray, dim: int, where: np.ndarray, src: np.ndarray) -> np.ndarray:
    out = np.atleast_1d(x).copy()
    where, src = np.atleast_1d(where), np.atleast_1d(src)
    for place in np.ndindex(where.shape):
        out[_place(dim, where[place], place)] += src[place]
    return out.reshape(x.shape)


def _scatter_reduce(*reductions: str, operators: tuple[str, ...]) -> Case:
    """A row of `scatter_reduce`; torch derives it only where src has index's shape."""

    def inputs(d: Any, dtype: DType) -> Sample:
        x, dim, where = _along_inputs(d, dtype)
        src = d.array(where.shape, dtype)
        return sample(x, dim, where, src, d.choice(reductions), include_self=d.boolean())

    def apart(d: Any, dtype: DType) -> Sample:
        (x, dim, where, src, reduce), options = inputs(d, dtype)
        values = d.array((x.size + src.size,), dtype, distinct=True)
        x, src = values[: x.size].reshape(x.shape), values[x.size :].reshape(src.shape)
        return sample(x, dim, where, src, reduce, **options)

    return Case(f"scatter_reduce {' '.join(reductions)}", along.scatter_reduce, _reduced, inputs,
                operators=operators, dtypes=(float64, float32, int64),
                grad_inputs=apart)  # fmt: skip


def _reduced(
    x: np.ndarray, dim: int, where: np.ndarray, src: np.ndarray, reduce: str, include_self: bool
) -> np.ndarray:
    target, where, src = np.atleast_1d(x), np.atleast_1d(where), np.atleast_1d(src)
    out = target.copy()
    meets: dict[tuple[int, ...], list[Any]] = {}
    for place in np.ndindex(where.shape):
        at = tuple(i % n for i, n in zip(_place(dim, where[place], place), out.shape, strict=True))
        meets.setdefault(at, [target[at]] if include_self else []).append(src[place])
    whole = out.dtype.kind in "iu"
    for at, values in meets.items():
        found = np.array(values)
        if reduce == "mean":
            total = found.sum(dtype=out.dtype)
            out[at] = total // len(values) if whole else total / len(values)
        else:
            name = {"sum": "sum", "prod": "prod", "amax": "max", "amin": "min"}[reduce]
            out[at] = getattr(np, name)(found, **({"dtype": out.dtype} if name[-1] != "x" and
                                                  name != "min" else {}))  # fmt: skip
    return out.reshape(x.shape)


def _rows_inputs(d: Any, dtype: DType, distinct: bool = False) -> tuple[Any, ...]:
    shape = d.shape(min_dims=1, max_dims=3, min_side=1)
    dim = d.axis(len(shape))
    n = shape[dim]
    count = d.integer(0, n) if distinct else d.integer(0, 4)
    sides = list(shape)
    sides[dim] = count
    return d.array(shape, dtype), dim, d.index(n, (count,), distinct), tuple(sides)


def _select_inputs(d: Any, dtype: DType) -> Sample:
    return sample(*_rows_inputs(d, dtype)[:3])


def _add_inputs(d: Any, dtype: DType) -> Sample:
    x, dim, where, sides = _rows_inputs(d, dtype)
    return sample(x, dim, where, d.array(sides, dtype), alpha=d.choice([1, 2, -1]))


def _index_added(
    x: np.ndarray, dim: int, where: np.ndarray, source: np.ndarray, alpha: float
) -> np.ndarray:
    out = np.moveaxis(x.copy(), dim, 0)
    for i, rows in zip(where, np.moveaxis(source, dim, 0), strict=True):
        out[i] += alpha * rows
    return np.moveaxis(out, 0, dim)


def _copy_inputs(d: Any, dtype: DType) -> Sample:
    x, dim, where, sides = _rows_inputs(d, dtype, distinct=True)
    return sample(x, dim, where, d.array(sides, dtype))


def _index_copied(x: np.ndarray, dim: int, where: np.ndarray, source: Any) -> np.ndarray:
    out = np.moveaxis(x.copy(), dim, 0)
    rows = np.moveaxis(np.broadcast_to(source, _with(x.shape, dim, where.size)), dim, 0)
    for i, row in zip(where, rows, strict=True):
        out[i] = row
    return np.moveaxis(out, 0, dim)


def _with(shape: tuple[int, ...], dim: int, n: int) -> tuple[int, ...]:
    sides = list(shape)
    sides[dim] = n
    return tuple(sides)


def _fill_inputs(d: Any, dtype: DType) -> Sample:
    x, dim, where, _ = _rows_inputs(d, dtype, distinct=True)
    if d.boolean():
        return sample(x, dim, where, d.array((), dtype))
    return sample(x, dim, where - x.shape[dim] * d.integer(0, 1), d.integer(-2, 2))


def _take_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_side=1)
    size = int(np.prod(shape))
    where = np.asarray(d.index(size, d.shape(max_dims=2)) - size * d.integer(0, 1))
    return sample(d.array(shape, dtype), where)


def _along_dim_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, max_dims=3, min_side=1)
    if d.boolean():
        size = int(np.prod(shape))
        return sample(d.array(shape, dtype), d.index(size, (3,)), None)
    dim = d.axis(len(shape))
    sides = [d.choice([1, n]) for n in shape]
    sides[dim] = d.integer(1, 3)
    other = [n if d.boolean() or i == dim % len(shape) else 1 for i, n in enumerate(shape)]
    return sample(d.array(other, dtype), d.index(shape[dim], sides), dim)


def _along_dim(x: np.ndarray, where: np.ndarray, dim: int | None) -> np.ndarray:
    if dim is None:
        return x.reshape(-1)[where.reshape(-1)]
    n = x.shape[dim]
    common = np.broadcast_shapes(_with(x.shape, dim, 1), _with(where.shape, dim, 1))
    x = np.broadcast_to(x, _with(common, dim, n))
    return _gathered(x, dim, np.broadcast_to(where, _with(common, dim, where.shape[dim])))


def _masked_scatter_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    mask = d.mask(d.broadcastable(shape, within=True))
    count = int(np.broadcast_to(mask, shape).sum())
    return sample(d.array(shape, dtype), mask, d.array((count + d.integer(0, 2),), dtype))


def _masked_scattered(x: np.ndarray, mask: np.ndarray, source: np.ndarray) -> np.ndarray:
    out, left = np.array(x), iter(source.ravel())
    wide = np.broadcast_to(mask, x.shape)
    for place in np.ndindex(x.shape):
        if wide[place]:
            out[place] = next(left)
    return out


def _any_input(d: Any, dtype: DType) -> Sample:
    x = d.array(d.shape(), dtype)
    return sample(np.asarray(x * d.mask(x.shape).astype(x.dtype)))


def _in_place(method: str) -> Any:
    """The functional call, made of the in-place method on a clone."""

    def function(input: Any, *args: Any, **kwargs: Any) -> Any:
        copy = input.clone()
        assert getattr(copy, method)(*args, **kwargs) is copy
        return copy

    function.__name__ = method
    return function


def _torch_in_place(method: str) -> Any:
    return lambda torch, x, *args, **kwargs: getattr(x.clone(), method)(*args, **kwargs)


def _torch_scatter(method: str) -> Any:
    """torch derives a scatter only where src has index's shape."""

    def call(torch: Any, x: Any, dim: int, where: Any, src: Any) -> Any:
        src = src[tuple(slice(n) for n in where.shape)]
        return getattr(x.clone(), method)(dim, where, src)

    return call


def _both(name: str, function: Any, oracle: Any, inputs: Any, **options: Any) -> list[Case]:
    """Rows of an operator and of its in-place method."""
    operators = options.pop("operators", (name,))
    torch = options.pop("torch", _torch_in_place)
    return [
        Case(name, function, oracle, inputs, operators=operators, torch=torch(name),
             **options),
        Case(f"{name}_", _in_place(f"{name}_"), oracle, inputs, operators=operators,
             torch=torch(f"{name}_")),
    ]  # fmt: skip


CASES = [
    Case("getitem", index.getitem, lambda x, parts: x[parts], _basic_inputs, dtypes=MOVED,
         torch=lambda torch, x, parts: x[parts]),
    Case("getitem with arrays", index.getitem, _integers_first, _advanced_inputs, dtypes=MOVED,
         torch=lambda torch, x, parts: x[parts], operators=("getitem", "index")),
    Case("getitem with a mask", index.getitem, _masked, _mask_inputs,
         torch=lambda torch, x, parts: x[parts], operators=("index",)),
    Case("getitem gradient", index.getitem_back, lambda g, parts, shape: _added(g, parts, shape),
         _basic_back_inputs, torch=None, operators=("getitem_back",)),
    Case("index gradient", _index_back,
         _added, _back_inputs, torch=None, operators=("index_back",)),
    Case("setitem", _set_items, _set_oracle, _set_inputs, operators=("index_put", "getitem"),
         torch=lambda torch, x, *assignments: _set_items(x, *assignments)),
    *_both("index_put", index.index_put, _put, _put_inputs, operators=("index_put",)),
    Case("index_put accumulate", lambda *args: index.index_put(*args, accumulate=True), _put_add,
         _put_add_inputs, operators=("index_put_add",), dtypes=FLOATS,
         torch=lambda torch, *args: torch.index_put(*args, accumulate=True)),
    Case("index_put_ accumulate", lambda x, *args: x.clone().index_put_(*args, accumulate=True),
         _put_add, _put_add_inputs, operators=("index_put_add",),
         torch=lambda torch, *args: torch.index_put(*args, accumulate=True)),
    Case("index_put mask", lambda x, mask, v: index.index_put(x, (mask,), v),
         lambda x, mask, v: _set_oracle(x, (mask, v)), _mask_put_inputs, operators=("index_put",),
         torch=lambda torch, x, mask, v: torch.index_put(x, (mask,), v)),
    Case("gather", along.gather, _gathered, _gather_inputs, dtypes=MOVED),
    *_both("scatter", along.scatter, _scattered, _scatter_inputs, operators=("index_put",),
           torch=_torch_scatter),
    Case("scatter number", along.scatter, _scattered, _scatter_number_inputs,
         operators=("index_put",), torch="torch.scatter"),
    *_both("scatter_add", along.scatter_add, _scatter_added, _scatter_add_inputs,
           torch=_torch_scatter),
    Case("scatter add", lambda *args: along.scatter(*args, reduce="add"), _scatter_added,
         _scatter_add_inputs, operators=("scatter_add",), torch=_torch_scatter("scatter_add")),
    Case("index_select", along.index_select, lambda x, dim, i: np.take(x, i, dim), _select_inputs,
         torch="torch.index_select", dtypes=MOVED),
    *_both("index_add", along.index_add, _index_added, _add_inputs),
    *_both("index_copy", along.index_copy, _index_copied, _copy_inputs, operators=("index_put",)),
    *_both("index_fill", along.index_fill, _index_copied, _fill_inputs, operators=("index_put",)),
    Case("take", along.take, lambda x, where: x.reshape(-1)[where], _take_inputs,
         operators=("index",), dtypes=MOVED),
    Case("take_along_dim", along.take_along_dim, _along_dim, _along_dim_inputs,
         operators=("gather",)),
    _scatter_reduce("sum", "mean", operators=("scatter_add",)),
    _scatter_reduce("amax", "amin", operators=("scatter_best",)),
    _scatter_reduce("prod", operators=("scatter_prod",)),
    *_both("masked_scatter", along.masked_scatter, _masked_scattered, _masked_scatter_inputs,
           operators=("index_put",)),
    Case("nonzero", index.nonzero, lambda x: np.stack(np.nonzero(np.atleast_1d(x)), 1)[:, : x.ndim],
         _any_input, grad=False, dtypes=MOVED),
    Case("nonzero as tuple", lambda x: index.nonzero(x, as_tuple=True),
         lambda x: list(np.nonzero(np.atleast_1d(x))), _any_input, grad=False,
         torch=lambda torch, x: torch.nonzero(x, as_tuple=True), operators=("nonzero",)),
    Case("argwhere", index.argwhere, np.argwhere, _any_input, grad=False, operators=("nonzero",)),
]  # fmt: skip
