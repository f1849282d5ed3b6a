"""Rows of `minidl.ops.arrange`, but for the views that it takes (see `views`)."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.dtypes import FLOATS, DType, bool_, int64, uint8
from minidl.ops import arrange
from minidl.testing.case import Case, Sample, sample

MOVED = (*FLOATS, int64, uint8, bool_)


def _input(*attributes: Any, **shapes: int) -> Any:
    """Inputs of one array; each attribute is a function of (draw, shape)."""

    def inputs(d: Any, dtype: DType) -> Sample:
        shape = d.shape(**shapes)
        return sample(d.array(shape, dtype), *(a(d, shape) for a in attributes))

    return inputs


# ---------------------------------------------------------------- together


def _cat_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, max_dims=3, max_side=3)
    dim = d.axis(len(shape))
    parts = []
    for _ in range(d.integer(1, 4)):
        sides = list(shape)
        sides[dim] = d.integer(0, 3)
        parts.append(d.array(sides if d.integer(0, 5) else (0,), dtype))
    return sample(parts, dim) if any(p.shape != (0,) for p in parts) else sample(parts)


def _cat(parts: list[np.ndarray], dim: int = 0) -> np.ndarray:
    kept = [p for p in parts if p.shape != (0,)] or parts[:1]
    total = np.empty([sum(p.shape[i] for p in kept) if i == dim % kept[0].ndim else n
                      for i, n in enumerate(kept[0].shape)], np.result_type(*parts))  # fmt: skip
    rows, start = np.moveaxis(total, dim, 0), 0
    for part in kept:
        for row in np.moveaxis(part, dim, 0):
            rows[start] = row
            start += 1
    return total


def _stack_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(max_dims=3, max_side=3)
    parts = [d.array(shape, dtype) for _ in range(d.integer(1, 4))]
    return sample(parts, d.integer(-len(shape) - 1, len(shape)))


def _stack(parts: list[np.ndarray], dim: int) -> np.ndarray:
    out = np.empty((len(parts), *parts[0].shape), np.result_type(*parts))
    for i, part in enumerate(parts):
        out[i] = part
    return np.moveaxis(out, 0, dim)


def _equal_shapes(d: Any, dtype: DType) -> Sample:
    shape = d.shape(max_dims=3, max_side=3)
    return sample([d.array(shape, dtype) for _ in range(d.integer(1, 3))])


def _column_stacked(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([p.reshape(p.size, 1) if p.ndim < 2 else p for p in parts], 1)


# ---------------------------------------------------------------- another order


def _flip_axes(d: Any, shape: tuple[int, ...]) -> Any:
    found = d.axes(len(shape))
    return () if found is None else found


def _roll_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape()
    x = d.array(shape, dtype)
    if not shape or d.boolean():
        return sample(x, d.integer(-7, 7))
    dims = d.axes(len(shape))
    if dims is None or isinstance(dims, int):
        return sample(x, d.integer(-7, 7), d.axis(len(shape)))
    return sample(x, tuple(d.integer(-7, 7) for _ in dims), dims)


def _rolled(x: np.ndarray, shifts: Any, dims: Any = None) -> np.ndarray:
    if dims is None:
        flat = x.reshape(-1)
        places = (np.arange(flat.size) - shifts) % max(flat.size, 1)
        return flat[places].reshape(x.shape)
    pairs = [(shifts, dims)] if isinstance(dims, int) else zip(shifts, dims, strict=True)
    for shift, dim in pairs:
        x = np.take(x, (np.arange(x.shape[dim]) - shift) % max(x.shape[dim], 1), dim)
    return x


def _rot_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=2)
    dims = tuple(map(int, d.rng.permutation(len(shape))[:2]))
    return sample(d.array(shape, dtype), d.integer(-5, 5), dims)


# ---------------------------------------------------------------- repeated


def _repeats(d: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(d.integer(0 if d.integer(0, 5) == 5 else 1, 3) for _ in range(len(shape) +
                 d.integer(0, 1)))  # fmt: skip


def _tiles(d: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(d.integer(1, 3) for _ in range(d.integer(0, len(shape) + 1)))


def _interleave_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(max_dims=3)
    x = d.array(shape, dtype)
    if not shape or d.boolean():
        return sample(x, d.integer(0, 3))
    dim = d.axis(len(shape))
    if d.boolean():
        return sample(x, d.integer(0, 3), dim)
    return sample(x, d.index(4, (shape[dim],)), dim)


def _interleaved(x: np.ndarray, repeats: Any, dim: int | None = None) -> np.ndarray:
    if dim is None:
        x, dim = x.reshape(-1), 0
    counts = np.broadcast_to(repeats, (x.shape[dim],))
    return np.take(x, [i for i, n in enumerate(counts) for _ in range(n)], dim)


# ---------------------------------------------------------------- padded


def _pad_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1)
    widths: list[int] = []
    for n in shape[::-1][: d.integer(1, len(shape))]:
        before = d.integer(-n, 3)
        widths += [before, d.integer(-n - min(before, 0), 3)]
    x = d.array(shape, dtype)
    value = None if x.dtype.kind in "iub" else d.choice([None, 0.0, 1.5, -2.0])
    return sample(x, tuple(widths), "constant", value)


def _places(n: int, before: int, after: int, mode: str) -> list[int | None]:
    """Where the elements of a padded axis of n come from; None for the constant."""
    found: list[int | None] = []
    for i in range(-before, n + after):
        if 0 <= i < n:
            found.append(i)
        elif mode == "reflect":
            found.append(-i if i < 0 else 2 * n - 2 - i)
        elif mode == "replicate":
            found.append(0 if i < 0 else n - 1)
        else:
            found.append(i % n if mode == "circular" else None)
    return found


def _padded(x: np.ndarray, widths: tuple[int, ...], mode: str, value: Any = None) -> np.ndarray:
    for i in range(0, len(widths), 2):
        dim = x.ndim - 1 - i // 2
        places = _places(x.shape[dim], widths[i], widths[i + 1], mode)
        rows = np.moveaxis(x, dim, 0)
        fill = np.full(rows.shape[1:], 0 if value is None else value, x.dtype)
        parts = [fill if p is None else rows[p] for p in places]
        padded = np.stack(parts) if parts else np.empty((0, *rows.shape[1:]), x.dtype)
        x = np.moveaxis(padded, 0, dim)
    return x


def _mode_inputs(mode: str, longest: Any) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        n = d.integer(1, 3)  # padded axes; torch wants one or two axes before them
        shape = tuple(d.integer(1, 4) for _ in range(n + d.integer(1, 2)))
        widths: list[int] = []
        for side in shape[::-1][:n]:
            most = min(longest(side), 3)
            before = d.integer(0, most)
            widths += [before, d.integer(0, most)]
        return sample(d.array(shape, dtype), tuple(widths), mode)

    return inputs


# ---------------------------------------------------------------- triangles, diagonals, grids


def _offset(d: Any, shape: tuple[int, ...]) -> int:
    return d.integer(-4, 4)


def _triangle(keep: Any) -> Any:
    def oracle(x: np.ndarray, diagonal: int) -> np.ndarray:
        rows, columns = np.indices(x.shape[-2:])
        return np.where(keep(columns - rows, diagonal), x, np.zeros((), x.dtype))

    return oracle


def _embed_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, max_dims=3, max_side=3)
    first, second = map(int, d.rng.permutation(len(shape) + 1)[:2])
    second -= (len(shape) + 1) * d.integer(0, 1)
    return sample(d.array(shape, dtype), d.integer(-2, 2), first, second)


def _embedded(x: np.ndarray, offset: int, dim1: int, dim2: int) -> np.ndarray:
    n = x.shape[-1] + abs(offset)
    out = np.zeros((*x.shape[:-1], n, n), x.dtype)
    for i in range(x.shape[-1]):
        out[..., i + max(-offset, 0), i + max(offset, 0)] = x[..., i]
    return np.moveaxis(out, (-2, -1), (dim1, dim2))


def _vectors(d: Any, dtype: DType) -> Sample:
    shapes = [d.shape(max_dims=1, max_side=3) for _ in range(d.integer(1, 3))]
    return sample([d.array(shape, dtype) for shape in shapes], indexing=d.choice(["ij", "xy"]))


def _grids(parts: list[np.ndarray], indexing: str) -> list[np.ndarray]:
    return list(np.meshgrid(*parts, indexing=indexing))  # type: ignore[call-overload]


def _products(*parts: np.ndarray) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    rows = [[]]
    for part in parts:
        rows = [[*row, value] for row in rows for value in part]
    return np.array(rows, np.result_type(*parts)).reshape(-1, len(parts))


# ---------------------------------------------------------------- with another part


def _slice_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, max_dims=3)
    dim = d.axis(len(shape))
    start, end = (d.choice([None, d.integer(-6, 6)]) for _ in range(2))
    part = slice(start, end, d.integer(1, 3))
    sides = list(shape)
    sides[dim] = len(range(*part.indices(shape[dim])))
    return sample(d.array(shape, dtype), d.array(sides, dtype), dim, start, end, part.step)


def _with_slice(x: np.ndarray, src: np.ndarray, dim: int, start: Any, end: Any, step: int) -> Any:
    out = x.copy()
    np.moveaxis(out, dim, 0)[start:end:step] = np.moveaxis(src, dim, 0)
    return out


def _row_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=1, max_dims=3, min_side=1)
    dim = d.axis(len(shape))
    sides = [n for i, n in enumerate(shape) if i != dim % len(shape)]
    place = d.integer(-shape[dim], shape[dim] - 1)
    return sample(d.array(shape, dtype), d.array(sides, dtype), dim, place)


def _with_row(x: np.ndarray, src: np.ndarray, dim: int, index: int) -> np.ndarray:
    out = x.copy()
    np.moveaxis(out, dim, 0)[index] = src
    return out


def _diagonal_inputs(d: Any, dtype: DType) -> Sample:
    shape = d.shape(min_dims=2, max_dims=3, min_side=1)
    x, offset = d.array(shape, dtype), d.integer(1 - shape[0], shape[1] - 1)
    return sample(x, d.array(np.diagonal(x, offset).shape, dtype), offset)


def _with_diagonal(x: np.ndarray, src: np.ndarray, offset: int) -> np.ndarray:
    out = x.copy()
    for i in range(src.shape[-1]):
        out[i + max(-offset, 0), i + max(offset, 0)] = src[..., i]
    return out


def _equal_parts(least: int) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        shape = list(d.shape(min_dims=least, max_dims=3, min_side=1))
        dim = {1: int(len(shape) > 1), 2: 0, 3: 2}[least]
        parts = d.integer(1, 3)
        if d.boolean():
            cuts = sorted(d.integer(0, shape[dim]) for _ in range(2))
            return sample(d.array(shape, dtype), cuts)
        shape[dim] = parts * d.integer(1, 2)
        return sample(d.array(shape, dtype), parts)

    return inputs


CASES = [
    Case("cat", arrange.cat, _cat, _cat_inputs, dtypes=MOVED),
    Case("stack", arrange.stack, _stack, _stack_inputs, dtypes=MOVED),
    Case("hstack", arrange.hstack, np.hstack, _equal_shapes, operators=("cat",)),
    Case("vstack", arrange.vstack, np.vstack, _equal_shapes, operators=("cat",)),
    Case("dstack", arrange.dstack, np.dstack, _equal_shapes, operators=("cat",)),
    Case("column_stack", arrange.column_stack, _column_stacked, _equal_shapes,
         operators=("cat",)),
    Case("flip", arrange.flip, np.flip, _input(_flip_axes), dtypes=MOVED,
         torch=lambda torch, x, dims: x.flip(dims)),
    Case("fliplr", arrange.fliplr, np.fliplr, _input(min_dims=2), operators=("flip",)),
    Case("flipud", arrange.flipud, np.flipud, _input(min_dims=1), operators=("flip",)),
    Case("roll", arrange.roll, _rolled, _roll_inputs, dtypes=MOVED),
    Case("rot90", arrange.rot90, np.rot90, _rot_inputs, operators=("flip",)),
    Case("repeat", lambda x, counts: x.repeat(counts), np.tile, _input(_repeats, max_dims=3),
         torch="torch.Tensor.repeat", operators=("clone",), dtypes=MOVED),
    Case("tile", arrange.tile, np.tile, _input(_tiles, max_dims=3), operators=("clone",)),
    Case("repeat_interleave", arrange.repeat_interleave, _interleaved, _interleave_inputs,
         operators=("index_select",)),
    Case("pad", arrange.pad, _padded, _pad_inputs, torch="torch.nn.functional.pad",
         dtypes=MOVED),
    Case("pad reflect", arrange.pad, _padded, _mode_inputs("reflect", lambda n: n - 1),
         torch="torch.nn.functional.pad", operators=("index_select",)),
    Case("pad replicate", arrange.pad, _padded, _mode_inputs("replicate", lambda n: 3),
         torch="torch.nn.functional.pad", operators=("index_select",)),
    Case("pad circular", arrange.pad, _padded, _mode_inputs("circular", lambda n: n),
         torch="torch.nn.functional.pad", operators=("index_select",)),
    Case("tril", arrange.tril, _triangle(np.less_equal), _input(_offset, min_dims=2),
         operators=("triangle",), dtypes=MOVED),
    Case("triu", arrange.triu, _triangle(np.greater_equal), _input(_offset, min_dims=2),
         operators=("triangle",), dtypes=MOVED),
    Case("diag", arrange.diag, np.diag, _input(_offset, min_dims=1, max_dims=2),
         operators=("spread_diagonal", "diagonal")),
    Case("diagflat", arrange.diagflat, lambda x, offset: np.diagflat(x, offset),
         _input(_offset, min_side=1), operators=("spread_diagonal",)),
    Case("slice_scatter", arrange.slice_scatter, _with_slice, _slice_inputs,
         operators=("clone", "copy_")),
    Case("select_scatter", arrange.select_scatter, _with_row, _row_inputs,
         operators=("clone", "copy_")),
    Case("diagonal_scatter", arrange.diagonal_scatter, _with_diagonal, _diagonal_inputs,
         operators=("clone", "copy_")),
    *(Case(name, getattr(arrange, name), getattr(np, name), _equal_parts(least),
           operators=("split",)) for name, least in (("hsplit", 1), ("vsplit", 2), ("dsplit", 3))),
    Case("diag_embed", arrange.diag_embed, _embedded, _embed_inputs,
         operators=("spread_diagonal",)),
    Case("meshgrid", lambda xs, indexing: arrange.meshgrid(*xs, indexing=indexing), _grids,
         _vectors, operators=("expand",),
         torch=lambda torch, xs, indexing: torch.meshgrid(*xs, indexing=indexing)),
    Case("cartesian_prod", arrange.cartesian_prod, _products,
         lambda d, dtype: sample(*[d.array((d.integer(0, 3),), dtype)
                                   for _ in range(d.integer(1, 3))]),
         operators=("stack", "expand")),
]  # fmt: skip
