"""Putting tensors together, taking them apart, and their elements in another order."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.autograd.node import Node, edge_of, show
from minidl.autograd.op import Array, constant, op
from minidl.backends import kernels_for, local
from minidl.errors import (
    ArgumentError,
    DTypeError,
    OutOfMemoryError,
    ShapeError,
    UnsupportedError,
)
from minidl.ops.along import index_select
from minidl.ops.convert import clone, number_for
from minidl.ops.creation import named, sizes
from minidl.ops.index import getitem
from minidl.ops.method import check_tensor, in_place_methods, method
from minidl.ops.views import (
    atleast_1d,
    atleast_2d,
    atleast_3d,
    axes,
    axis,
    diagonal,
    expand,
    flatten,
    plane,
    reshape,
    spread_diagonal,
    transpose,
)
from minidl.tensor import Tensor, View

__all__ = [
    "cartesian_prod",
    "cat",
    "chunk",
    "column_stack",
    "concat",
    "concatenate",
    "diag",
    "diag_embed",
    "diagflat",
    "diagonal_scatter",
    "dsplit",
    "dstack",
    "flip",
    "fliplr",
    "flipud",
    "hsplit",
    "hstack",
    "meshgrid",
    "pad",
    "repeat_interleave",
    "roll",
    "rot90",
    "select_scatter",
    "slice_scatter",
    "split",
    "split_with_sizes",
    "stack",
    "tensor_split",
    "tile",
    "tril",
    "triu",
    "unbind",
    "vsplit",
    "vstack",
]

# ---------------------------------------------------------------- together


@op
def cat(k: Any, tensors: Sequence[Array], dim: int = 0) -> Any:
    """Join along axis `dim`. tensors: of equal shapes elsewhere; 1-d empty ones are skipped."""
    parts = [t for t in tensors if t.shape != (0,)] or list(tensors[:1])
    if not all([p.ndim for p in parts]):
        raise ShapeError("0-d tensors have no axis to be joined along; use stack")
    dim = axis(parts[0].ndim, dim)
    first = parts[0].shape
    if any([p.shape[:dim] + p.shape[dim + 1 :] != first[:dim] + first[dim + 1 :] for p in parts]):
        raise ShapeError(f"shapes must agree except along axis {dim}")
    return k.cat(parts, axis=dim)


@cat.gradient
def _(g: Tensor, tensors_shape: list, dim: int) -> Any:
    dim = axis(g.ndim, dim)
    parts, start = [], 0
    for shape in tensors_shape:
        if shape == (0,):
            parts.append(None)
            continue
        stop = start + shape[dim]
        parts.append(getitem(g, (slice(None),) * dim + (slice(start, stop),)))
        start = stop
    return parts


concat = concatenate = cat


@op
def stack(k: Any, tensors: Sequence[Array], dim: int = 0) -> Any:
    """Join along a new axis `dim` of the result. tensors: of one shape."""
    if any([t.shape != tensors[0].shape for t in tensors]):
        raise ShapeError("shapes must be equal")
    return k.stack(tensors, axis=axis(tensors[0].ndim + 1, dim))


@stack.gradient
def _(g: Tensor, tensors_shape: list, dim: int) -> Any:
    lead = (slice(None),) * axis(g.ndim, dim)
    return [getitem(g, (*lead, i)) for i in range(len(tensors_shape))]


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along axis 1 (axis 0 for tensors of at most one axis)."""
    parts = atleast_1d(tuple(tensors))
    return cat(parts, 0 if parts and parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along axis 0; (n,) counts as (1, n)."""
    return cat(atleast_2d(tuple(tensors)), 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along axis 2; (n,) counts as (1, n, 1), (m, n) as (m, n, 1)."""
    return cat(atleast_3d(tuple(tensors)), 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Join along axis 1; 0-d and 1-d tensors count as columns."""
    return cat([x if x.ndim > 1 else reshape(x, (x.numel(), 1)) for x in tensors], 1)


# ---------------------------------------------------------------- apart


class _Split:
    """The operator behind all parts of a tensor: one gradient joins what each would have padded."""

    name = "split"
    fresh = materialize = True
    frees = False

    def __init__(self, join: Any, dim: int) -> None:
        self.join = join
        self.dim = dim

    def backward(self, node: Node, g: Any, create_graph: bool) -> tuple:
        return (self.join(list(g), self.dim),)


def _parts(input: Tensor, dim: int, items: Sequence[Any]) -> tuple[Tensor, ...]:
    """Views of `input`, one per slice or integer of axis `dim`, that together cover it."""
    indices = [(*(slice(None),) * dim, item, Ellipsis) for item in items]
    plain = type(input) is Tensor and local.state.recording is not False and input.requires_grad
    if len(items) < 2 or not plain:
        return tuple([getitem(input, index) for index in indices])
    arrays = [input.array[index] for index in indices]
    shapes, dtypes = tuple([a.shape for a in arrays]), (input.array.dtype,) * len(arrays)
    made_by = _Split(stack if type(items[0]) is int else cat, dim)
    node = Node(made_by, (edge_of(input),), (), shapes, dtypes)
    parts = []
    for i, index in enumerate(indices):
        # a view like any other: it shares the version, and after a write derives its own node
        part = Tensor(arrays[i], input.storage)
        part.base = View(input, getitem, (index,), True)
        part.node, part.tracked = (node, i), True
        parts.append(part)
    show(node)
    return tuple(parts)


def _sliced(input: Tensor, dim: int, lengths: Sequence[int]) -> tuple[Tensor, ...]:
    items, start = [], 0
    for length in lengths:
        items.append(slice(start, start + length))
        start += length
    return _parts(input, dim, items)


def _axis_of(input: Tensor, dim: int, name: str) -> tuple[int, int]:
    check_tensor(name, "input", input)
    if not input.ndim:
        raise ShapeError("needs a tensor with axes", operator=name, got="()")
    dim = axis(input.ndim, dim, name)
    return dim, input.array.shape[dim]


def _even(size: int, step: int) -> list[int]:
    """Lengths of `step`, the last one shorter, that sum to `size`; at least one."""
    return [min(step, size - start) for start in range(0, max(size, 1), max(step, 1))]


@method("split")
def split(tensor: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of neighbouring parts of axis `dim`: of one length (the last may be less), or several.

    Raises ShapeError if the lengths do not sum to the axis.
    """
    dim, size = _axis_of(tensor, dim, "split")
    given = split_size_or_sections
    if isinstance(given, list | tuple):
        lengths = list(sizes((given,), "split"))
        if min(lengths, default=0) < 0 or sum(lengths) != size:
            raise ShapeError(f"lengths must sum to {size}", operator="split", got=str(lengths))
    else:
        (length,) = sizes((given,), "split")
        if length < 0 or (length == 0 != size):
            raise ShapeError("the length must be positive", operator="split", got=str(given))
        lengths = _even(size, length)
    return _sliced(tensor, dim, lengths)


@method("chunk")
def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of parts of axis `dim`, all of one length but the last."""
    dim, size = _axis_of(input, dim, "chunk")
    (chunks,) = sizes((chunks,), "chunk")
    if chunks < 1:
        raise ArgumentError("chunks must be positive", operator="chunk", got=str(chunks))
    if not size:
        return _sliced(input, dim, [0] * chunks)
    return _sliced(input, dim, _even(size, -(-size // chunks)))


@method("tensor_split")
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts of axis `dim`: that many of nearly one length, or cut before each index."""
    dim, size = _axis_of(input, dim, "tensor_split")
    given = indices_or_sections
    if type(given) is Tensor:
        given = given.tolist()
    if isinstance(given, list | tuple):
        ends = [*(slice(i).indices(size)[1] for i in given), size]
        items = [slice(a, max(a, b)) for a, b in zip([0, *ends], ends, strict=False)]
        if all(a.stop == b.start for a, b in zip(items, items[1:], strict=False)):
            return _parts(input, dim, items)
        return tuple([getitem(input, (*(slice(None),) * dim, item)) for item in items])
    (given,) = sizes((given,), "tensor_split")
    if given < 1:
        raise ArgumentError("sections must be positive", operator="tensor_split", got=str(given))
    least, more = divmod(size, given)
    return _sliced(input, dim, [least + (i < more) for i in range(given)])


@method("split_with_sizes")
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """`split` into parts of these lengths."""
    return split(input, tuple(split_sizes), dim)


def _split_along(name: str, input: Tensor, given: Any, dim: int, least: int) -> tuple[Tensor, ...]:
    check_tensor(name, "input", input)
    if input.ndim < least:
        raise ShapeError(f"needs at least {least} axes", operator=name, got=str(input.shape))
    if isinstance(given, int) and given > 0 and input.shape[dim] % given:
        rule = f"axis {dim} must divide into equal parts"
        raise ShapeError(rule, operator=name, got=f"{input.shape}, {given}")
    return tensor_split(input, given, dim)


@method("hsplit")
def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` of axis 1 (of axis 0 for one axis) into equal parts, or before each index."""
    dim = 0 if input.ndim == 1 else 1
    return _split_along("hsplit", input, indices_or_sections, dim, 1)


@method("vsplit")
def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` of axis 0 of two axes or more into equal parts, or before each index."""
    return _split_along("vsplit", input, indices_or_sections, 0, 2)


@method("dsplit")
def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` of axis 2 of three axes or more into equal parts, or before each index."""
    return _split_along("dsplit", input, indices_or_sections, 2, 3)


@method("unbind")
def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices of axis `dim`, which is removed, as a tuple of views."""
    dim, size = _axis_of(input, dim, "unbind")
    return _parts(input, dim, range(size))


# ---------------------------------------------------------------- another order


@op(promote=None)
def _flip(k: Any, input: Array, dims: tuple[int, ...]) -> Any:
    return k.array(k.flip(input, dims), order="C")


@_flip.gradient
def _(g: Tensor, dims: tuple[int, ...]) -> Any:
    return _flip(g, dims)


@method("flip")
def flip(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """A copy with the order of the elements along the axes `dims` reversed."""
    given = named(args, dims, "flip")
    return _flip(input, axes(input.ndim, given, "flip") if given else ())


@method("fliplr")
def fliplr(input: Tensor) -> Tensor:
    """A copy with axis 1 reversed."""
    return flip(input, 1)


@method("flipud")
def flipud(input: Tensor) -> Tensor:
    """A copy with axis 0 reversed."""
    return flip(input, 0)


@op(promote=None)
def _roll(k: Any, input: Array, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    return k.roll(input, shifts, dims)


@_roll.gradient
def _(g: Tensor, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Any:
    return _roll(g, tuple([-shift for shift in shifts]), dims)


@method("roll")
def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """A copy moved along the axes `dims` by `shifts`; what leaves one end comes in at the other.

    Without `dims` the elements are moved in C order.
    """
    check_tensor("roll", "input", input)
    by = sizes((shifts,), "roll")
    if dims is None or dims == ():
        if len(by) != 1:
            raise ShapeError("several shifts need dims", operator="roll", got=str(shifts))
        return reshape(_roll(flatten(input), by, (0,)), input.shape)
    along = tuple([axis(input.ndim, d, "roll") for d in sizes((dims,), "roll")])
    if len(by) != len(along):
        got = f"{shifts}, {dims}"
        raise ShapeError("needs as many shifts as dims", operator="roll", got=got)
    return _roll(input, by, along) if input.ndim else clone(input)


@method("rot90")
def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """A copy turned by `k` quarter turns from axis dims[0] towards dims[1]."""
    if len(dims) != 2:
        raise ShapeError("dims must name two axes", operator="rot90", got=str(dims))
    first, second = plane(input.ndim, dims[0], dims[1], "rot90")
    turns = k % 4
    if turns == 0:
        return clone(input)
    if turns == 2:
        return flip(input, first, second)
    return transpose(flip(input, second if turns == 1 else first), first, second)


# ---------------------------------------------------------------- repeated


def _tiled(input: Tensor, repeats: tuple[int, ...]) -> Tensor:
    shape = (1,) * (len(repeats) - input.ndim) + input.array.shape
    if min(repeats, default=0) < 0:
        raise ShapeError("repeats must not be negative", operator="repeat", got=str(repeats))
    pairs = [(r, n) for r, n in zip(repeats, shape, strict=True)]
    wide = expand(
        reshape(input, [n for pair in pairs for n in (1, pair[1])]),
        [n for pair in pairs for n in pair],
    )
    return reshape(clone(wide), [r * n for r, n in pairs])


@method("repeat")
def repeat(input: Tensor, *args: Any, repeats: Any = None) -> Tensor:
    """A copy repeated along each axis; more repeats than axes add leading axes."""
    counts = named(args, repeats, "repeat")
    if len(counts) < input.ndim:
        got = f"{input.shape}, {counts}"
        raise ShapeError("needs a count for every axis", operator="repeat", got=got)
    return _tiled(input, counts)


@method("tile")
def tile(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """`repeat` with counts `dims` for the last axes; those before it are repeated once."""
    check_tensor("tile", "input", input)
    counts = named(args, dims, "tile")
    return _tiled(input, (1,) * (input.ndim - len(counts)) + counts)


@method("repeat_interleave")
def repeat_interleave(
    input: Tensor, repeats: Any = None, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each slice of axis `dim` (each element, without `dim`) repeated in place.

    repeats: a number, or an integer tensor with one count per slice. Without it, `input` holds
    the counts and the result says which slice stands where.
    """
    check_tensor("repeat_interleave", "input", input)
    if repeats is None:
        steps: Any = kernels_for(input.array).arange(input.numel())
        return repeat_interleave(constant(steps), input, 0, output_size=output_size)
    if dim is None:
        input, dim = flatten(input), 0
    input = atleast_1d(input)
    dim = axis(input.ndim, dim, "repeat_interleave")
    size = input.shape[dim]
    if type(repeats) is Tensor:
        counts: Any = kernels_for(repeats.array).host(repeats.array)
    else:
        counts = np.asarray(repeats)
    if counts.dtype.kind not in "iu" or counts.ndim > 1 or np.any(counts < 0):
        rule = "repeats must be integers that are not negative, on one axis at most"
        raise DTypeError(rule, operator="repeat_interleave", got=repr(repeats))
    if counts.size not in (1, size):
        rule = f"repeats must have one count for each of {size} slices"
        raise ShapeError(rule, operator="repeat_interleave", got=str(counts.shape))
    try:
        places = np.repeat(np.arange(size), counts.reshape(-1))
    except MemoryError as error:
        got = f"{input.shape}, {counts.sum()} repeats"
        raise OutOfMemoryError(str(error), operator="repeat_interleave", got=got) from None
    if output_size not in (None, places.size):
        rule = f"the repeats sum to {places.size}"
        raise ArgumentError(rule, operator="repeat_interleave", got=f"output_size={output_size}")
    return index_select(input, dim, constant(places))


# ---------------------------------------------------------------- padded


@op(promote=None)
def _pad(k: Any, input: Array, widths: tuple[tuple[int, int], ...], value: Any) -> Any:
    """Pad, or crop where a width is negative; crops come first."""
    kept, inner, shape = [], [], []
    for n, (before, after) in zip(input.shape, widths, strict=True):
        length = n - max(-before, 0) - max(-after, 0)
        if length < 0:
            raise ShapeError(f"padding {widths} removes more than there is")
        kept.append(slice(max(-before, 0), max(-before, 0) + length))
        inner.append(slice(max(before, 0), max(before, 0) + length))
        shape.append(n + before + after)
    make = k.zeros if not value else functools.partial(k.full, fill_value=value)
    out = make(tuple(shape), dtype=input.dtype)
    out[tuple(inner)] = input[tuple(kept)]
    return out


@_pad.gradient
def _(g: Tensor, widths: tuple[tuple[int, int], ...]) -> Any:
    return _pad(g, tuple([(-before, -after) for before, after in widths]), 0)


def _reflected(k: Any, n: int, before: int, after: int) -> Any:
    places = k.abs(k.arange(-before, n + after))
    return k.where(places < n, places, 2 * (n - 1) - places)


def _replicated(k: Any, n: int, before: int, after: int) -> Any:
    return k.clip(k.arange(-before, n + after), 0, n - 1)


def _circular(k: Any, n: int, before: int, after: int) -> Any:
    """`n` elements are left where the widths crop."""
    return max(-before, 0) + k.arange(-max(before, 0), n + max(after, 0)) % n


# mode -> (source of each element, the most that may be added to an axis of n elements)
_PADDINGS: dict[str, Any] = {
    "reflect": (_reflected, lambda n: n - 1),
    "replicate": (_replicated, lambda n: n and 2**31),
    "circular": (_circular, lambda n: n),
}


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = None) -> Tensor:
    """`input` with (before, after) more elements per axis, the last axis first; less if negative.

    mode: "constant" (`value`, 0 by default), "reflect" (without the edge), "replicate" (the edge)
    or "circular". Raises ShapeError where an axis is too short.
    """
    given = sizes((pad,), "pad")
    if len(given) % 2 or len(given) > 2 * input.ndim:
        got = f"{input.shape}, {given}"
        raise ShapeError("needs two widths per axis, at most all axes", operator="pad", got=got)
    pairs = [(given[i], given[i + 1]) for i in range(0, len(given), 2)][::-1]
    widths = ((0, 0),) * (input.ndim - len(pairs)) + tuple(pairs)
    if mode == "constant":
        fill = number_for("pad", input.dtype, value, wrap=False).item() if value else 0
        return _pad(input, widths, fill)
    if mode not in _PADDINGS:
        modes = ", ".join(["constant", *_PADDINGS])
        raise UnsupportedError(f"[pad] mode must be one of {modes}, got {mode!r}")
    if value is not None:
        raise ArgumentError("value is for mode='constant' only", operator="pad", got=repr(value))
    source, most = _PADDINGS[mode]
    k: Any = kernels_for(input.array)
    for dim, (before, after) in enumerate(widths):
        n = input.shape[dim]
        if before == after == 0:
            continue
        if mode == "circular":  # where crops come first
            n += min(before, 0) + min(after, 0)
        if max(before, after) > most(n) or input.shape[dim] + before + after < 1:
            rule = f"mode {mode!r} adds at most {most(n)} elements to an axis of {n}"
            raise ShapeError(rule, operator="pad", got=f"{input.shape}, {given}")
        input = index_select(input, dim, constant(source(k, n, before, after)))
    return input


# ---------------------------------------------------------------- triangles and diagonals


@op(promote=None)
def _triangle(k: Any, input: Array, diagonal: int, upper: bool) -> Any:
    if input.ndim < 2:
        raise ShapeError("needs at least 2 axes")
    return (k.triu if upper else k.tril)(input, diagonal)


@_triangle.gradient
def _(g: Tensor, diagonal: int, upper: bool) -> Any:
    return _triangle(g, diagonal, upper)


@method("tril")
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """A copy with zeros above diagonal `diagonal` of the last two axes."""
    return _triangle(input, diagonal, False)


@method("triu")
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """A copy with zeros below diagonal `diagonal` of the last two axes."""
    return _triangle(input, diagonal, True)


in_place_methods(tril=tril, triu=triu)


@method("diag_embed")
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Zeros with the last axis of `input` on a diagonal of the new axes `dim1` and `dim2`."""
    if not input.ndim:
        raise ShapeError("needs a tensor with axes", operator="diag_embed", got="()")
    first, second = plane(input.ndim + 1, dim1, dim2, "diag_embed")
    shape = list(input.shape[:-1])
    for place in sorted((first, second)):
        shape.insert(place, input.shape[-1] + abs(offset))
    return spread_diagonal(input, tuple(shape), offset, first, second)


@method("diag")
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The square matrix with a vector on its diagonal, or a copy of a matrix's diagonal."""
    if input.ndim == 1:
        return diag_embed(input, diagonal)
    if input.ndim != 2:
        raise ShapeError("needs 1 or 2 axes", operator="diag", got=str(input.shape))
    return clone(_diagonal(input, diagonal))


_diagonal = diagonal  # `diag` has an argument of that name


@method("diagflat")
def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The square matrix with all elements of `input`, in C order, on a diagonal."""
    return diag_embed(flatten(input), offset)


# ---------------------------------------------------------------- with another part


def _with_part(name: str, input: Tensor, src: Tensor, part: Any) -> Tensor:
    """A copy of `input` whose part, a view that `part` takes, is `src`."""
    check_tensor(name, "src", src)
    out = clone(input)
    target = part(out)
    if target.shape != src.shape:
        rule = f"src must have the shape {target.shape} of the part"
        raise ShapeError(rule, operator=name, got=str(src.shape))
    target.copy_(src)
    return out


@method("slice_scatter")
def slice_scatter(
    input: Tensor,
    src: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Tensor:
    """A copy of `input` with `src` as the slice start:end:step of axis `dim`."""
    lead = (slice(None),) * axis(input.ndim, dim, "slice_scatter")
    index = (*lead, slice(start, end, step))
    return _with_part("slice_scatter", input, src, lambda x: getitem(x, index))


@method("select_scatter")
def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of `input` with `src` as slice `index` of axis `dim`."""
    lead = (slice(None),) * axis(input.ndim, dim, "select_scatter")
    return _with_part("select_scatter", input, src, lambda x: getitem(x, (*lead, index)))


@method("diagonal_scatter")
def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A copy of `input` with `src` as a diagonal of the planes of axes `dim1` and `dim2`."""
    return _with_part("diagonal_scatter", input, src, lambda x: _diagonal(x, offset, dim1, dim2))


# ---------------------------------------------------------------- grids


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """Coordinates of a grid: tensor i expanded along axis i ("xy": the first two swapped).

    tensors: 0-d or 1-d, one by one or in a sequence; the results are read-only.
    """
    if indexing not in ("ij", "xy"):
        rule = "indexing must be 'ij' or 'xy'"
        raise ArgumentError(rule, operator="meshgrid", got=repr(indexing))
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    for i, x in enumerate(tensors):
        check_tensor("meshgrid", f"tensors[{i}]", x)
    if any(x.ndim > 1 for x in tensors):
        got = ", ".join(str(x.shape) for x in tensors)
        raise ShapeError("needs tensors of at most one axis", operator="meshgrid", got=got)
    if len({x.dtype for x in tensors}) > 1:
        got = ", ".join(x.dtype.name for x in tensors)
        raise DTypeError("all tensors must have the same dtype", operator="meshgrid", got=got)
    order = list(range(len(tensors)))
    if indexing == "xy":
        order[:2] = order[:2][::-1]
    shape = [0] * len(tensors)
    for i, x in enumerate(tensors):
        shape[order[i]] = x.numel()
    n = len(tensors)
    return tuple(
        [
            expand(reshape(x, (1,) * order[i] + (-1,) + (1,) * (n - order[i] - 1)), shape)
            for i, x in enumerate(tensors)
        ]
    )


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of 1-d tensors, one a row, the last fastest."""
    if len(tensors) == 1:
        return clone(tensors[0])
    return stack([reshape(x, (-1,)) for x in meshgrid(*tensors)], 1)
