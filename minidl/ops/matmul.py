"""Matrix products, and the contractions that come down to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from minidl.autograd.op import Array, in_place, op
from minidl.errors import ArgumentError, DTypeError, OutOfRangeError, ShapeError
from minidl.ops.arithmetic import mul
from minidl.ops.creation import zeros_like
from minidl.ops.index import getitem
from minidl.ops.method import method
from minidl.ops.reduce import axes, sum, sum_to
from minidl.ops.views import broadcast_shapes, permute, reshape, transpose
from minidl.tensor import Tensor

__all__ = [
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
    "bilinear",
    "bmm",
    "dot",
    "einsum",
    "ger",
    "inner",
    "matmul",
    "mm",
    "mv",
    "outer",
    "tensordot",
    "vdot",
]

# of labels that are numbers; without `->` a result is ordered by them, and as text "A" < "a"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@method("matmul", "__matmul__")
@op(promote="match", needed_by={"input": "other", "other": "input"})
def matmul(k: Any, input: Array, other: Array) -> Any:
    """Matrix product. input (..., n, m) or (m,), other (..., m, p) or (m,); batches broadcast."""
    try:
        return k.matmul(input, other)
    except ValueError:  # asked only now: these questions cost as much as a product of 16 x 16
        if not input.ndim or not other.ndim:
            raise ShapeError("both tensors need at least one axis") from None
        if input.shape[-1] != other.shape[-2 if other.ndim > 1 else 0]:
            raise ShapeError("inner sizes must agree") from None
        raise


@matmul.gradient
def _(g: Tensor, input: Any, other: Any, input_shape: tuple, other_shape: tuple, needs: Any) -> Any:
    if len(input_shape) == len(other_shape) == 1:
        return g * other if needs[0] else None, g * input if needs[1] else None
    # the columns, or the row, that a vector lacks
    wide = (*other_shape, 1) if len(other_shape) == 1 else other_shape
    tall = (1, *input_shape) if len(input_shape) == 1 else input_shape
    if wide is not other_shape:
        g = reshape(g, (*g.shape, 1))
    if tall is not input_shape:
        g = reshape(g, (*g.shape[:-1], 1, g.shape[-1]))
    dx = dy = None
    if needs[0]:
        y = transpose(reshape(other, wide), -1, -2)
        dx = reshape(sum_to(matmul(g, y), tall), input_shape)
    if needs[1]:
        x = reshape(input, tall)
        if len(wide) == 2 and len(tall) > 2:
            # one product over all batches instead of a product per batch and their sum
            x, g = _rows(x), _rows(g)
        dy = reshape(sum_to(matmul(transpose(x, -1, -2), g), wide), other_shape)
    return dx, dy


def _rows(x: Tensor) -> Tensor:
    """All but the last axis as one."""
    return reshape(x, (math.prod(x.shape[:-1]), x.shape[-1])) if x.ndim != 2 else x


# ---------------------------------------------------------------- products of given ranks


def _ranks(name: str, x: Any, y: Any, ranks: tuple[int, int]) -> None:
    if type(x) is not Tensor or type(y) is not Tensor:
        given = x if type(x) is not Tensor else y
        raise DTypeError("needs two Tensors", operator=name, got=type(given).__name__)
    if (x.ndim, y.ndim) != ranks:
        raise ShapeError(
            f"needs tensors of {ranks[0]} and {ranks[1]} axes",
            operator=name,
            got=f"{x.shape}, {y.shape}",
        )


@method("mm")
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Matrix product without broadcasting. input (n, m), mat2 (m, p) -> (n, p)."""
    _ranks("mm", input, mat2, (2, 2))
    return matmul(input, mat2)


@method("bmm")
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Matrix products of a batch. input (b, n, m), mat2 (b, m, p) -> (b, n, p)."""
    _ranks("bmm", input, mat2, (3, 3))
    if input.shape[0] != mat2.shape[0]:
        raise ShapeError(
            "batch sizes must agree", operator="bmm", got=f"{input.shape}, {mat2.shape}"
        )
    return matmul(input, mat2)


@method("mv")
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Matrix times vector. input (n, m), vec (m,) -> (n,)."""
    _ranks("mv", input, vec, (2, 1))
    return matmul(input, vec)


@method("dot")
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Sum of the products of two vectors. input, tensor (n,) -> ()."""
    _ranks("dot", input, tensor, (1, 1))
    return matmul(input, tensor)


@method("vdot")
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """`dot`: there are no complex tensors here. input, other (n,) -> ()."""
    _ranks("vdot", input, other, (1, 1))
    return matmul(input, other)


@method("inner")
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sum of products over the last axes. input (*a, n), other (*b, n) -> (*a, *b)."""
    if not input.ndim or not other.ndim:
        return mul(input, other)
    if input.shape[-1] != other.shape[-1]:
        raise ShapeError(
            "last axes must agree", operator="inner", got=f"{input.shape}, {other.shape}"
        )
    return tensordot(input, other, ([-1], [-1]))


@method("outer")
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of two vectors. input (n,), vec2 (m,) -> (n, m)."""
    _ranks("outer", input, vec2, (1, 1))
    return mul(reshape(input, (-1, 1)), vec2)


ger = method("ger")(outer)


# ---------------------------------------------------------------- beta * input + alpha * product


def _plus(k: Any, input: Any, x: Any, y: Any, ranks: tuple[int, int], beta: Any, alpha: Any) -> Any:
    if (x.ndim, y.ndim) != ranks:
        raise ShapeError(f"the factors need {ranks[0]} and {ranks[1]} axes")
    if x.shape[-1] != y.shape[-2 if y.ndim > 1 else 0]:
        raise ShapeError("inner sizes must agree")
    if ranks == (3, 3) and len(x) != len(y):
        raise ShapeError("batch sizes must agree")
    if x.dtype.kind in "iub" and (isinstance(beta, float) or isinstance(alpha, float)):
        raise ArgumentError("beta and alpha must be integers for integer tensors")
    out = k.matmul(x, y)
    if alpha != 1:
        out = k.mul(out, alpha)
    input = k.broadcast_to(input, out.shape)
    if beta == 0:  # then NaN and inf in input do not count
        return out
    return k.add(out, input if beta == 1 else k.mul(input, beta))


def _scaled(g: Tensor, factor: float) -> Tensor:
    return g if factor == 1 else g * factor


@method("addmm")
@op(promote="match")
def addmm(
    k: Any, input: Array, mat1: Array, mat2: Array, *, beta: float = 1, alpha: float = 1
) -> Any:
    """`beta * input + alpha * (mat1 @ mat2)`. mat1 (n, m), mat2 (m, p), input broadcast to (n, p).

    With beta=0 input is ignored, NaN and infinities included.
    """
    return _plus(k, input, mat1, mat2, (2, 2), beta, alpha)


@method("addmv")
@op(promote="match")
def addmv(
    k: Any, input: Array, mat: Array, vec: Array, *, beta: float = 1, alpha: float = 1
) -> Any:
    """`beta * input + alpha * (mat @ vec)`. mat (n, m), vec (m,), input broadcast to (n,)."""
    return _plus(k, input, mat, vec, (2, 1), beta, alpha)


@method("baddbmm")
@op(promote="match")
def baddbmm(
    k: Any, input: Array, batch1: Array, batch2: Array, *, beta: float = 1, alpha: float = 1
) -> Any:
    """`beta * input + alpha * (batch1 @ batch2)`; batches (b, n, m) and (b, m, p)."""
    return _plus(k, input, batch1, batch2, (3, 3), beta, alpha)


@method("addbmm")
def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """`beta * input + alpha * sum_i(batch1[i] @ batch2[i])`; batches (b, n, m) and (b, m, p)."""
    if batch1.ndim != 3 or batch2.ndim != 3:
        raise ShapeError("the factors need 3 and 3 axes", operator="addbmm",
                         got=f"{batch1.shape}, {batch2.shape}")  # fmt: skip
    if batch1.shape[::2] != (batch2.shape[0], batch2.shape[1]):
        raise ShapeError("batch sizes and inner sizes must agree", operator="addbmm",
                         got=f"{batch1.shape}, {batch2.shape}")  # fmt: skip
    rows = reshape(permute(batch1, 1, 0, 2), (batch1.shape[1], -1))  # side by side: one product
    return addmm(input, rows, reshape(batch2, (-1, batch2.shape[2])), beta=beta, alpha=alpha)


@method("addr")
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """`beta * input + alpha * outer(vec1, vec2)`. vec1 (n,), vec2 (m,), input to (n, m)."""
    if vec1.ndim != 1 or vec2.ndim != 1:
        raise ShapeError("the factors need one axis", operator="addr",
                         got=f"{vec1.shape}, {vec2.shape}")  # fmt: skip
    out = outer(vec1, vec2)
    if input.ndim > 2 or broadcast_shapes(input.shape, out.shape) != out.shape:
        raise ShapeError(f"input must broadcast to {out.shape}", operator="addr",
                         got=str(input.shape))  # fmt: skip
    scaled = out if alpha == 1 else mul(out, alpha)
    return scaled + (mul(input, beta) if beta else zeros_like(input))  # type: ignore[operator]


@addmm.gradient
def _(g: Tensor, mat1: Tensor, mat2: Tensor, beta: float, alpha: float, needs: Any) -> Any:
    return _plus_gradient(g, mat1, mat2, beta, alpha, needs)


@baddbmm.gradient
def _(g: Tensor, batch1: Tensor, batch2: Tensor, beta: float, alpha: float, needs: Any) -> Any:
    return _plus_gradient(g, batch1, batch2, beta, alpha, needs)


def _plus_gradient(g: Tensor, x: Tensor, y: Tensor, beta: float, alpha: float, needs: Any) -> Any:
    scaled = _scaled(g, alpha)
    return (
        _scaled(g, beta) if needs[0] else None,
        matmul(scaled, transpose(y, -1, -2)) if needs[1] else None,
        matmul(transpose(x, -1, -2), scaled) if needs[2] else None,
    )


@addmv.gradient
def _(g: Tensor, mat: Tensor, vec: Tensor, beta: float, alpha: float, needs: Any) -> Any:
    scaled = _scaled(g, alpha)
    return (
        _scaled(g, beta) if needs[0] else None,
        outer(scaled, vec) if needs[1] else None,
        matmul(scaled, mat) if needs[2] else None,
    )


addmm_ = method("addmm_")(in_place("addmm_", addmm))
addmv_ = method("addmv_")(in_place("addmv_", addmv))
baddbmm_ = method("baddbmm_")(in_place("baddbmm_", baddbmm))


# ---------------------------------------------------------------- contractions by label


def _flattened(x: Tensor, labels: list, groups: Sequence[list]) -> Tensor:
    """`x` with one axis per group of labels."""
    order = [label for group in groups for label in group]
    size = dict(zip(labels, x.shape, strict=True))
    x = permute(x, [labels.index(label) for label in order])
    shape = []
    for group in groups:
        shape.append(1)
        for label in group:
            shape[-1] *= size[label]
    return reshape(x, shape)


def _summed(x: Tensor, labels: list, keep: Any) -> tuple[Tensor, list]:
    """`x` without the axes that are not in `keep`."""
    gone = [i for i, label in enumerate(labels) if label not in keep]
    return (sum(x, gone) if gone else x), [label for label in labels if label in keep]


def _contracted(x: Tensor, xs: list, y: Tensor, ys: list, keep: Any) -> tuple[Tensor, list]:
    """Product of two labelled tensors, summed over the labels that are not in `keep`."""
    x, xs = _summed(x, xs, {*keep, *ys})
    y, ys = _summed(y, ys, {*keep, *xs})
    size = dict(zip([*xs, *ys], [*x.shape, *y.shape], strict=True))
    batch = [label for label in xs if label in ys and label in keep]
    common = [label for label in xs if label in ys and label not in keep]
    left = [label for label in xs if label not in ys]
    right = [label for label in ys if label not in xs]
    labels = [*batch, *left, *right]
    if not common:
        x = permute(x, [xs.index(label) for label in [*batch, *left]])
        y = permute(y, [ys.index(label) for label in [*batch, *right]])
        shape = y.shape[: len(batch)] + (1,) * len(left) + y.shape[len(batch) :]
        return mul(reshape(x, x.shape + (1,) * len(right)), reshape(y, shape)), labels
    head = [batch] if batch else []
    product = matmul(
        _flattened(x, xs, [*head, left, common]), _flattened(y, ys, [*head, common, right])
    )
    return reshape(product, [size[label] for label in labels]), labels


def _terms(equation: str, count: int) -> tuple[list[str], str | None]:
    """The terms left of the arrow, and the one right of it."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    for term in [*terms, right]:
        letters = term.replace("...", "", 1)
        if letters and not (letters.isascii() and letters.isalpha()):
            raise ArgumentError(
                "labels are the letters a-z and A-Z, and one ... per term",
                operator="einsum", got=repr(equation),
            )  # fmt: skip
    if len(terms) != count:
        raise ArgumentError(
            f"the equation has {len(terms)} terms for {count} tensors",
            operator="einsum", got=repr(equation),
        )  # fmt: skip
    return terms, right if arrow else None


def _spelled(term: str, rank: int) -> list:
    """The labels of a term; the axes of `...` are -1, -2, ... from the right."""
    before, dots, after = term.partition("...")
    return [*before, *range(-rank, 0), *after] if dots else [*term]


def _labelled(x: Tensor, term: str) -> tuple[Tensor, list]:
    """An operand and its labels, each of them once (a repeated one takes the diagonal)."""
    rank = x.ndim - len(term.replace("...", ""))
    if rank < 0 or (rank and "..." not in term):
        raise ShapeError(f"term {term!r} does not fit", operator="einsum", got=str(x.shape))
    labels = _spelled(term, rank)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            if x.shape[i] != x.shape[j]:
                raise ShapeError(
                    f"axes named {label!r} must have equal sizes",
                    operator="einsum", got=str(x.shape),
                )  # fmt: skip
            rest = [a for a in range(x.ndim) if a not in (i, j)]
            x = getitem(permute(x, [i, j, *rest]), ([*range(x.shape[i])],) * 2)
            labels = [label, *(labels[a] for a in rest)]
    return x, labels


def einsum(equation: Any, *operands: Any) -> Tensor:
    """Sum of products by Einstein's convention, e.g. `einsum("bij,bjk->bik", x, y)`.

    operands: tensors of any shapes, or one list of them; a repeated label in one term takes the
    diagonal, `...` stands for axes that broadcast, without `->` the labels that occur once make
    the result. Lists of numbers can spell the labels: `einsum(x, [0, 1], y, [1, 2], [0, 2])`.
    Operands are contracted two at a time from the left, as matrix products. Raises
    ArgumentError for the equation, ShapeError for sizes.
    """
    if not isinstance(equation, str):
        equation, operands = _spelled_out(equation, *operands)
    given = operands
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        given = operands[0]
    terms, result = _terms(equation, len(given))
    pairs = []
    for x, term in zip(given, terms, strict=True):
        if type(x) is not Tensor:
            raise DTypeError("operands must be Tensors", operator="einsum", got=type(x).__name__)
        pairs.append(_labelled(x, term))
    found = [label for _, labels in pairs for label in labels]
    dots = sorted({label for label in found if type(label) is int})
    if result is None:
        joined = "".join(terms).replace("...", "")
        out = [*dots, *sorted(label for label in set(joined) if joined.count(label) == 1)]
    else:
        out = _spelled(result, len(dots))
    if len(set(out)) != len(out) or not set(out) <= set(found):
        raise ArgumentError(
            "labels of the result must occur once, and in the operands",
            operator="einsum", got=repr(equation),
        )  # fmt: skip
    pairs = _without_broadcast(pairs)
    x, labels = pairs[0]
    for i, (y, ys) in enumerate(pairs[1:], 2):
        later = {label for _, labels in pairs[i:] for label in labels}
        x, labels = _contracted(x, labels, y, ys, later.union(out))
    x, labels = _summed(x, labels, out)
    return permute(x, [labels.index(label) for label in out])


def _spelled_out(*operands: Any) -> tuple[str, tuple[Any, ...]]:
    """The equation and the tensors of operands that are each followed by a list of labels."""
    count = len(operands) // 2
    terms = []
    for labels in [*operands[1 : 2 * count : 2], *operands[2 * count :]]:
        if not isinstance(labels, list | tuple):
            raise ArgumentError(
                "takes an equation and tensors, or tensors that are each followed by their labels",
                operator="einsum", got=type(labels).__name__,
            )  # fmt: skip
        for label in labels:
            if label is not Ellipsis and (type(label) is not int or not 0 <= label < len(_LETTERS)):
                rule = f"labels are integers from 0 to {len(_LETTERS) - 1}, and Ellipsis"
                raise ArgumentError(rule, operator="einsum", got=repr(label))
        terms.append("".join("..." if label is ... else _LETTERS[label] for label in labels))
    equation = ",".join(terms[:count]) + "".join(f"->{term}" for term in terms[count:])
    return equation, operands[: 2 * count : 2]


def _without_broadcast(pairs: list) -> list:
    """The operands without the axes of size 1 whose label is longer elsewhere."""
    size: dict = {}
    for x, labels in pairs:
        for label, n in zip(labels, x.shape, strict=True):
            if size.setdefault(label, n) != n and 1 not in (n, size[label]):
                raise ShapeError(
                    f"label {label!r} has sizes {size[label]} and {n}", operator="einsum",
                    got=", ".join(str(y.shape) for y, _ in pairs),
                )  # fmt: skip
            size[label] = n if size[label] == 1 else size[label]
    result = []
    for x, labels in pairs:
        stays = [i for i, label in enumerate(labels) if x.shape[i] == size[label]]
        if len(stays) < x.ndim:
            x = reshape(x, [x.shape[i] for i in stays])
        result.append((x, [labels[i] for i in stays]))
    return result


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Sum of products over axes of both: the last of `a` and first of `b`, or two lists of axes.

    a (*x, *s), b (*s, *y) -> (*x, *y). Raises ShapeError where the sizes of an axis differ.
    """
    if isinstance(dims, int):
        if not 0 <= dims <= min(a.ndim, b.ndim):
            raise OutOfRangeError(
                f"dims={dims} of {a.ndim} and {b.ndim} axes", operator="tensordot"
            )
        dims = (list(range(a.ndim - dims, a.ndim)), list(range(dims)))
    own, other = (
        list(axes(x.ndim, d, "tensordot")) if isinstance(d, int) or d else []
        for x, d in zip((a, b), dims, strict=True)
    )
    if [a.shape[i] for i in own] != [b.shape[j] for j in other]:
        raise ShapeError(
            "the summed axes must have equal sizes", operator="tensordot",
            got=f"{a.shape}, {b.shape}, dims={dims}",
        )  # fmt: skip
    names = list(range(a.ndim))
    others = [own[other.index(j)] if j in other else a.ndim + j for j in range(b.ndim)]
    keep = {*names, *others} - set(own)
    x, labels = _contracted(a, names, b, others, keep)
    return x


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`input1 @ weight[o] @ input2 + bias[o]` for every output o.

    input1 (..., m), input2 (..., n), weight (out, m, n), bias (out,) -> (..., out).
    """
    out = einsum("...i,oij,...j->...o", input1, weight, input2)
    if bias is None:
        return out
    if bias.dtype is not out.dtype:
        raise DTypeError(
            "all tensors must have the same dtype", operator="bilinear",
            got=f"{out.dtype}, bias {bias.dtype}",
        )  # fmt: skip
    return out + bias
