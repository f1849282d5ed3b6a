"""Views: other shapes over the same elements. Nothing here copies unless it says so."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, op
from minidl.errors import DTypeError, OutOfRangeError, ShapeError, UnsupportedError
from minidl.ops.convert import clone
from minidl.ops.creation import named, sizes
from minidl.ops.method import check_tensor, method
from minidl.tensor import Tensor

__all__ = [
    "adjoint",
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "broadcast_shapes",
    "broadcast_tensors",
    "broadcast_to",
    "diagonal",
    "flatten",
    "movedim",
    "moveaxis",
    "permute",
    "ravel",
    "reshape",
    "squeeze",
    "swapaxes",
    "swapdims",
    "t",
    "transpose",
    "unflatten",
    "unsqueeze",
]


def axis(ndim: int, dim: Any, name: str | None = None) -> int:
    """One axis counted from the front; a 0-d tensor has the axes 0 and -1, as in PyTorch."""
    size = ndim or 1
    if type(dim) is int and -size <= dim < size:
        return dim % size
    if isinstance(dim, bool) or not hasattr(dim, "__index__"):
        raise DTypeError("an axis must be an integer", operator=name, got=repr(dim))
    if not -size <= dim < size:
        raise OutOfRangeError(f"axis {dim} of a tensor with {ndim} axes", operator=name)
    return int(dim) % size


def axes(ndim: int, dim: Any, name: str | None = None) -> tuple[int, ...]:
    """The axes that `dim` (None or (): all, an int, several) names, counted from the front."""
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return tuple(range(ndim))
    found = tuple(axis(ndim, d, name) for d in (dim if isinstance(dim, list | tuple) else (dim,)))
    if len(set(found)) != len(found):
        raise OutOfRangeError(f"axis named twice in dim={dim}", operator=name)
    return found if ndim else ()


def _resolve(shape: tuple[int, ...], own: tuple[int, ...], name: str) -> tuple[int, ...]:
    """`shape` with its -1 replaced by the size that fits the elements of shape `own`."""
    count = math.prod(own)
    unknown = [i for i, n in enumerate(shape) if n == -1]
    known = math.prod(n for n in shape if n != -1)
    fits = len(unknown) <= 1 and all(n >= -1 for n in shape)
    if unknown and fits and known and count % known == 0:
        i = unknown[0]
        shape = (*shape[:i], count // known, *shape[i + 1 :])
    if not fits or math.prod(shape) != count:
        raise ShapeError(
            f"{count} elements do not fit the new shape", operator=name, got=f"{own} to {shape}"
        )
    return shape


# ---------------------------------------------------------------- the same order, other sizes


def _is_view(array: Any, shape: tuple[int, ...]) -> bool:
    """Whether the elements can be seen in `shape` without a copy, whatever library holds them."""
    if array.flags.c_contiguous or not array.size:
        return True
    blocks: list[tuple[int, int]] = []  # axes that lie behind each other in memory, as one
    for n, step in zip(array.shape, array.strides, strict=True):
        if n > 1 and blocks and blocks[-1][1] == n * step:
            blocks[-1] = (blocks[-1][0] * n, step)
        elif n > 1:
            blocks.append((n, step))
    wanted = iter([n for n in shape if n > 1])
    for count, _ in blocks:
        while count > 1:
            n = next(wanted)
            if count % n:
                return False
            count //= n
    return True


@op(view=True)
def _view(k: Any, input: Array, shape: tuple[int, ...]) -> Any:
    try:
        if type(input) is np.ndarray:
            return input.reshape(shape, copy=False)
        if _is_view(input, shape):
            return input.reshape(shape)
    except ValueError:
        pass
    raise ShapeError(f"a view of shape {shape} does not exist for these strides; use reshape")


@_view.gradient
def _(g: Tensor, input_shape: tuple[int, ...]) -> Any:
    return reshape(g, input_shape)


@method("view")
def view(input: Tensor, *shape: Any) -> Tensor:
    """The same elements in another shape (one -1 is computed); an error where that needs a copy."""
    if len(shape) == 1 and not isinstance(shape[0], int | list | tuple | Tensor):
        raise UnsupportedError(
            "[view] elements cannot be seen as another dtype; use .to(dtype) to convert them"
        )
    check_tensor("view", "input", input)
    wanted = sizes(shape, "view")
    if -1 in wanted or math.prod(wanted) != input.array.size:
        wanted = _resolve(wanted, input.array.shape, "view")
    return _view(input, wanted)


def reshape(input: Tensor, *args: Any, shape: Any = None) -> Tensor:
    """The same elements in another shape (one -1 is computed), copied only if the strides ask."""
    wanted = sizes(args, "reshape") if shape is None else named(args, shape, "reshape")
    if type(input) is not Tensor:
        check_tensor("reshape", "input", input)
    array = input.array
    if -1 in wanted or math.prod(wanted) != array.size:
        wanted = _resolve(wanted, array.shape, "reshape")
    if not array.flags.c_contiguous:
        try:
            if type(array) is np.ndarray:
                array.reshape(wanted, copy=False)
            elif not _is_view(array, wanted):
                input = clone(input)
        except ValueError:
            input = clone(input)
    return _view(input, wanted)


method("reshape")(reshape)


@method("view_as")
def view_as(input: Tensor, other: Tensor) -> Tensor:
    """`input` viewed in the shape of `other`."""
    check_tensor("view_as", "other", other)
    return view(input, other.array.shape)


@method("reshape_as")
def reshape_as(input: Tensor, other: Tensor) -> Tensor:
    """`input` reshaped to the shape of `other`."""
    check_tensor("reshape_as", "other", other)
    return reshape(input, other.array.shape)


@method("squeeze")
def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """Without the axes of size 1 (those among `dim`, if given; longer ones stay)."""
    check_tensor("squeeze", "input", input)
    shape = input.array.shape
    if dim is None:
        return _view(input, tuple([n for n in shape if n != 1]))
    given = axes(len(shape), dim, "squeeze") if dim != () else ()
    return _view(input, tuple([n for i, n in enumerate(shape) if n != 1 or i not in given]))


@method("unsqueeze")
def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """With a new axis of size 1 at `dim` of the result."""
    check_tensor("unsqueeze", "input", input)
    shape = input.array.shape
    i = axis(len(shape) + 1, dim, "unsqueeze")
    return _view(input, (*shape[:i], 1, *shape[i:]))


@method("flatten")
def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """The axes from `start_dim` to `end_dim` joined into one; a 0-d tensor gets one axis."""
    check_tensor("flatten", "input", input)
    shape = input.array.shape
    first, last = (axis(len(shape), d, "flatten") for d in (start_dim, end_dim))
    if first > last:
        raise ShapeError("start_dim comes after end_dim", operator="flatten", got=f"{first, last}")
    joined = math.prod(shape[first : last + 1])
    return reshape(input, (*shape[:first], joined, *shape[last + 1 :]))


@method("ravel")
def ravel(input: Tensor) -> Tensor:
    """One axis of all elements in C order, copied only if the strides ask."""
    check_tensor("ravel", "input", input)
    return reshape(input, (input.array.size,))


@method("unflatten")
def unflatten(input: Tensor, dim: int, sizes: Any) -> Tensor:
    """Axis `dim` split into `sizes` (one -1 is computed)."""
    check_tensor("unflatten", "input", input)
    shape = input.array.shape
    i = axis(len(shape), dim, "unflatten")
    if not shape:
        raise ShapeError("needs a tensor with axes", operator="unflatten", got="()")
    parts = _resolve(tuple(sizes), (shape[i],), "unflatten")
    return _view(input, (*shape[:i], *parts, *shape[i + 1 :]))


def _atleast(tensors: tuple[Any, ...], raised: Any) -> Any:
    if len(tensors) == 1 and not isinstance(tensors[0], list | tuple):
        return raised(tensors[0])
    return tuple(raised(x) for x in (tensors[0] if len(tensors) == 1 else tensors))


def atleast_1d(*tensors: Any) -> Any:
    """Each tensor with one axis at least; a tensor for one argument, a tuple for several."""
    return _atleast(tensors, lambda x: x if x.ndim else reshape(x, (1,)))


def atleast_2d(*tensors: Any) -> Any:
    """Each tensor with two axes at least: (n,) becomes (1, n)."""
    return _atleast(tensors, lambda x: x if x.ndim >= 2 else reshape(x, (1, x.numel())))


def atleast_3d(*tensors: Any) -> Any:
    """Each tensor with three axes at least: (n,) becomes (1, n, 1), (m, n) becomes (m, n, 1)."""
    return _atleast(tensors, lambda x: x if x.ndim >= 3 else unsqueeze(atleast_2d(x), -1))


# ---------------------------------------------------------------- broadcast


@op(view=True)
def _expand(k: Any, input: Array, shape: tuple[int, ...]) -> Any:
    if type(input) is not np.ndarray or input.dtype.kind != "f" or not input.flags.c_contiguous:
        return k.broadcast_to(input, shape)
    # 2 us instead of 5, which every gradient of a sum would pay
    extra = len(shape) - input.ndim
    pairs = zip(shape[extra:], input.shape, input.strides, strict=True)
    strides = (0,) * extra + tuple([step if n == own else 0 for n, own, step in pairs])
    out = np.ndarray(shape, input.dtype, input, 0, strides)
    out.flags.writeable = False
    return out


@_expand.gradient
def _(g: Tensor) -> Any:
    return g  # the engine sums it down


@method("expand")
def expand(input: Tensor, *size: Any) -> Tensor:
    """Axes of size 1 seen with another size (-1 keeps a size); the result is read-only."""
    if type(input) is not Tensor:
        check_tensor("expand", "input", input)
    wanted, shape = sizes(size, "expand"), input.array.shape
    if wanted == shape:
        return input
    extra = len(wanted) - len(shape)
    if extra >= 0 and -1 not in wanted[:extra]:
        pairs = list(zip(wanted[extra:], shape, strict=True))
        if all([n == own or (own == 1 and n >= 0) or n == -1 for n, own in pairs]):
            whole = tuple([own if n == -1 else n for n, own in pairs])
            if min(wanted[:extra], default=0) >= 0:
                return _expand(input, wanted[:extra] + whole)
    raise ShapeError(
        "only axes of size 1 and new leading axes take another size",
        operator="expand",
        got=f"{shape} to {wanted}",
    )


@method("expand_as")
def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """`input` expanded to the shape of `other`."""
    check_tensor("expand_as", "other", other)
    return expand(input, other.array.shape)


@method("broadcast_to")
def broadcast_to(input: Tensor, size: Any) -> Tensor:
    """`input` expanded to `size`."""
    return expand(input, size)


def broadcast_shapes(*shapes: Any) -> tuple[int, ...]:
    """The shape that `shapes` (tuples or sizes of one axis) broadcast to."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        got = ", ".join(map(str, shapes))
        raise ShapeError("shapes must broadcast", operator="broadcast_shapes", got=got) from None


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """The tensors expanded to their common shape."""
    if len(tensors) == 1 and isinstance(tensors[0], list | tuple):
        tensors = tuple(tensors[0])
    shape = broadcast_shapes(*(x.shape for x in tensors))
    return tuple(expand(x, shape) for x in tensors)


# ---------------------------------------------------------------- another order


@op(view=True)
def _permute(k: Any, input: Array, dims: tuple[int, ...]) -> Any:
    return input.transpose(dims)


@_permute.gradient
def _(g: Tensor, dims: tuple[int, ...]) -> Any:
    return _permute(g, tuple(sorted(range(len(dims)), key=dims.__getitem__)))


@method("permute")
def permute(input: Tensor, *args: Any, dims: Any = None) -> Tensor:
    """The axes in the order `dims`."""
    n, given = input.ndim, named(args, dims, "permute")
    order = tuple([axis(n, d, "permute") for d in given])
    if sorted(order) != list(range(n)):
        rule = f"dims must name each of {n} axes once"
        raise ShapeError(rule, operator="permute", got=str(given))
    return _permute(input, order)


@method("transpose", "swapaxes", "swapdims")
def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    n = input.ndim
    first, second = axis(n, dim0, "transpose"), axis(n, dim1, "transpose")
    order = list(range(n))
    if n:
        order[first], order[second] = order[second], order[first]
    return _permute(input, tuple(order))


swapaxes = swapdims = transpose


@method("t")
def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; 0-d and 1-d tensors as they are."""
    if input.ndim > 2:
        raise ShapeError("needs at most 2 axes", operator="t", got=str(input.shape))
    return transpose(input, 0, -1)


def _reversed(input: Tensor) -> Tensor:
    """The axes in reverse order."""
    return _permute(input, tuple(reversed(range(input.ndim))))


def _matrix_transposed(input: Tensor) -> Tensor:
    """The last two axes exchanged."""
    if input.ndim < 2:
        raise ShapeError("needs at least 2 axes", operator="mT", got=str(input.shape))
    return transpose(input, -2, -1)


@method("adjoint")
def adjoint(input: Tensor) -> Tensor:
    """The last two axes exchanged; all dtypes being real, nothing is conjugated."""
    return _matrix_transposed(input)


def _matrix_only(input: Tensor) -> Tensor:
    if input.ndim not in (0, 2):
        raise ShapeError("needs a matrix", operator="H", got=str(input.shape))
    return t(input)


setattr(Tensor, "H", property(_matrix_only))  # noqa: B010
setattr(Tensor, "mH", property(_matrix_transposed))  # noqa: B010
setattr(Tensor, "T", property(_reversed))  # noqa: B010 - not an attribute that Tensor declares
setattr(Tensor, "mT", property(_matrix_transposed))  # noqa: B010


@method("movedim", "moveaxis")
def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """The axes `source` moved to the places `destination`; the others keep their order."""
    n = input.ndim
    pairs = [d if isinstance(d, list | tuple) else (d,) for d in (source, destination)]
    sources, targets = ([axis(n, d, "movedim") for d in dims] for dims in pairs)
    if not len(sources) == len(targets) == len(set(sources)) == len(set(targets)):
        raise ShapeError(
            "source and destination must name as many different axes",
            operator="movedim",
            got=f"{source}, {destination}",
        )
    order = [i for i in range(n) if i not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return _permute(input, tuple(order[:n]))


moveaxis = movedim


# ---------------------------------------------------------------- parts


@op(view=True)
def _diagonal(k: Any, input: Array, offset: int, dim1: int, dim2: int) -> Any:
    out = input.diagonal(offset, dim1, dim2)
    if type(input) is np.ndarray and input.flags.writeable:
        out.flags.writeable = True  # NumPy's diagonals are read-only for historical reasons only
    return out


@_diagonal.gradient
def _(g: Tensor, input_shape: tuple[int, ...], offset: int, dim1: int, dim2: int) -> Any:
    return spread_diagonal(g, input_shape, offset, dim1, dim2)


@op(promote=None)
def spread_diagonal(
    k: Any, input: Array, shape: tuple[int, ...], offset: int, dim1: int, dim2: int
) -> Any:
    """Zeros of `shape` with `input` on a diagonal: the gradient of `diagonal`."""
    out = k.zeros(shape, input.dtype)
    part = out.diagonal(offset, dim1, dim2)
    if type(part) is np.ndarray:
        part.flags.writeable = True
    part[...] = input
    return out


@spread_diagonal.gradient
def _(g: Tensor, offset: int, dim1: int, dim2: int) -> Any:
    return _diagonal(g, offset, dim1, dim2)


def plane(ndim: int, dim1: int, dim2: int, name: str) -> tuple[int, int]:
    """Two different axes, counted from the front."""
    first, second = axis(ndim, dim1, name), axis(ndim, dim2, name)
    if ndim < 2 or first == second:
        raise ShapeError(
            f"needs two different axes, got {dim1} and {dim2} of {ndim}", operator=name
        )
    return first, second


@method("diagonal")
def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A diagonal of the planes of axes `dim1` and `dim2`, as a new last axis."""
    return _diagonal(input, offset, *plane(input.ndim, dim1, dim2, "diagonal"))


@op(view=True)
def _unfold(k: Any, input: Array, dim: int, size: int, step: int) -> Any:
    windows = k.windows(input, size, dim)
    if type(input) is np.ndarray and step < size:
        windows.flags.writeable = False  # elements are seen twice
    return windows[(slice(None),) * dim + (slice(None, None, step), Ellipsis)]


@_unfold.gradient
def _(g: Tensor, input_shape: tuple[int, ...], dim: int, size: int, step: int) -> Any:
    return _unfold_back(g, input_shape, dim, size, step)


@op
def _unfold_back(
    k: Any, grad: Array, shape: tuple[int, ...], dim: int, size: int, step: int
) -> Any:
    out = k.zeros(shape, grad.dtype)
    lead, count = (slice(None),) * dim, grad.shape[dim]
    for i in range(size):
        out[(*lead, slice(i, i + step * (count - 1) + 1, step))] += grad[..., i]
    return out


@_unfold_back.gradient
def _(g: Tensor, dim: int, size: int, step: int) -> Any:
    return _unfold(g, dim, size, step)


@method("unfold")
def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` along an axis, `step` apart, as a new last axis.

    input: (..., n, ...) -> (..., (n - size) // step + 1, ..., size); a 0-d tensor gives (1,).
    Where windows overlap the result is read-only.
    """
    dim = axis(input.ndim, dimension, "unfold")
    n = input.shape[dim] if input.ndim else 1
    if not 1 <= size <= n or step < 1:
        raise ShapeError(
            f"size must be in 1..{n} and step positive", operator="unfold", got=f"{size}, {step}"
        )
    return _unfold(input, dim, size, step) if input.ndim else reshape(input, (1,))
