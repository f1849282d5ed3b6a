"""Linear algebra: Cholesky factors, solutions of linear systems, determinants, eigenvalues.

Matrices are the last two axes; the axes before them are a batch. Source of the gradients: Giles,
"Collected matrix derivative results for forward and reverse mode algorithmic differentiation",
2008; Murray, "Differentiation of the Cholesky decomposition", arXiv:1602.07527.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from minidl.autograd.op import Array, constant, op
from minidl.backends import kernels_for
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.along import index_select
from minidl.ops.arrange import diag_embed, tril, triu
from minidl.ops.compare import eq, logical_and
from minidl.ops.convert import clone
from minidl.ops.creation import eye
from minidl.ops.matmul import matmul
from minidl.ops.method import check_tensor, method
from minidl.ops.reduce import norm, sum
from minidl.ops.select import where
from minidl.ops.transcendental import log
from minidl.ops.views import (
    axis,
    broadcast_tensors,
    diagonal,
    expand,
    reshape,
    transpose,
    unsqueeze,
)
from minidl.tensor import Tensor

__all__ = [
    "cholesky",
    "cholesky_inverse",
    "cholesky_solve",
    "cross",
    "det",
    "inverse",
    "kron",
    "logdet",
    "matrix_power",
    "slogdet",
    "trace",
]


def _turned(x: Tensor) -> Tensor:
    return transpose(x, -1, -2)


def _square(x: Array) -> None:
    if x.ndim < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError("needs square matrices in the last two axes")
    if x.dtype.kind != "f":
        raise DTypeError("matrices must be floating point")


def _found(rule: str, function: Callable[..., Any], *args: Any) -> Any:
    """`function(*args)`, where a matrix without a result is refused by `rule`."""
    try:
        return function(*args)
    except np.linalg.LinAlgError:
        raise ArgumentError(rule) from None


# ---------------------------------------------------------------- triangular factors


@op
def _cholesky(k: Any, input: Array) -> Any:
    _square(input)
    rule = "the matrix is not positive definite"
    out = _found(rule, k.cholesky, input)
    # one NaN that is read makes the last pivot one
    k.refuse(k.isnan(out[..., -1:, -1:]), ArgumentError(rule))
    return out


@_cholesky.gradient
def _(g: Tensor, out: Tensor) -> Any:
    inner = tril(matmul(_turned(out), g))
    inner = inner - diag_embed(diagonal(inner, 0, -2, -1)) * 0.5
    half = _substituted(_turned(out), inner + _turned(inner), True)  # L^-T (P + P^T) L^-1 / 2
    return _turned(_substituted(_turned(out), _turned(half), True)) * 0.5


@method("cholesky")
def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """Lower triangular L with L L^T = input (..., n, n); its transpose if `upper`.

    Only one triangle of `input` is read: the lower one, or the upper one if `upper`. Raises
    ArgumentError for a matrix that is not positive definite.
    """
    check_tensor("cholesky", "input", input)
    return _turned(_cholesky(_turned(input))) if upper and input.ndim > 1 else _cholesky(input)


@op(promote="match")
def _substituted(k: Any, input: Array, other: Array, upper: bool) -> Any:
    _square(input)
    if other.ndim < 2 or input.shape[-1] != other.shape[-2]:
        raise ShapeError("the right side needs as many rows as the matrix")
    return k.solve_triangular(input, other, upper)


@_substituted.gradient
def _(g: Tensor, input: Tensor, out: Tensor, upper: bool, needs: Any) -> Any:
    right = _substituted(_turned(input), g, not upper)
    if not needs[0]:
        return None, right
    left = -matmul(right, _turned(out))
    return triu(left) if upper else tril(left), right


def solve_triangular(
    input: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """X with `input` X = B, or X `input` = B if not `left`; `input` (..., n, n) is triangular.

    The other triangle is not read, nor is the diagonal if `unitriangular` (it is 1 then). A 0 on
    the diagonal gives infinities and NaN. Batches broadcast.
    """
    check_tensor("solve_triangular", "input", input)
    check_tensor("solve_triangular", "B", B)
    if unitriangular:
        one = eye(input.shape[-1], dtype=input.dtype, device=input.device)
        input = (triu(input, 1) if upper else tril(input, -1)) + one
    if left:
        return _substituted(input, B, upper)
    return _turned(_substituted(_turned(input), _turned(B), not upper))


@method("cholesky_solve")
def cholesky_solve(input: Tensor, input2: Tensor, upper: bool = False) -> Tensor:
    """X with A X = input (..., n, k), where `input2` (..., n, n) is A's Cholesky factor."""
    check_tensor("cholesky_solve", "input2", input2)
    lower = _turned(input2) if upper else input2
    return _substituted(_turned(lower), _substituted(lower, input, False), True)


@method("cholesky_inverse")
def cholesky_inverse(input: Tensor, upper: bool = False) -> Tensor:
    """The inverse of the matrices whose Cholesky factors are `input` (..., n, n)."""
    check_tensor("cholesky_inverse", "input", input)
    return cholesky_solve(
        eye(input.shape[-1], dtype=input.dtype, device=input.device), input, upper
    )


# ---------------------------------------------------------------- linear systems


@op(promote="match")
def _solve(k: Any, input: Array, other: Array) -> Any:
    _square(input)
    if other.ndim < 2 or input.shape[-1] != other.shape[-2]:
        raise ShapeError("the right side needs as many rows as the matrix")
    return _found("the matrix is singular", k.solve, input, other)


@_solve.gradient
def _(g: Tensor, input: Tensor, out: Tensor, needs: Any) -> Any:
    right = _solve(_turned(input), g)
    return -matmul(right, _turned(out)) if needs[0] else None, right


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X with A X = B, or X A = B if not `left`. A (..., n, n), B (..., n, k) or vectors (..., n).

    B is a batch of vectors if it has one axis, or the shape of A without its last axis; batches
    of matrices broadcast. Raises ArgumentError for a singular matrix.
    """
    check_tensor("solve", "A", A)
    check_tensor("solve", "B", B)
    vectors = B.ndim == 1 or (B.ndim == A.ndim - 1 and B.shape == A.shape[:-1])
    if not left:
        A, B = _turned(A), B if vectors else _turned(B)
    if vectors:
        return _solve(A, unsqueeze(B, -1)).squeeze(-1)
    return _solve(A, B) if left else _turned(_solve(A, B))


@op
def _inverse(k: Any, input: Array) -> Any:
    _square(input)
    return _found("the matrix is singular", k.inv, input)


@_inverse.gradient
def _(g: Tensor, out: Tensor) -> Any:
    turned = _turned(out)
    return -matmul(matmul(turned, g), turned)


@method("inverse")
def inverse(input: Tensor) -> Tensor:
    """The inverse of the matrices `input` (..., n, n); ArgumentError for a singular one."""
    return _inverse(input)


def inv(A: Tensor) -> Tensor:
    """The inverse of the matrices A (..., n, n); ArgumentError for a singular one."""
    return _inverse(A)


# ---------------------------------------------------------------- determinants


@op(outputs=("sign", "logabsdet"))
def _slogdet(k: Any, input: Array) -> Any:
    _square(input)
    return k.slogdet(input)


@_slogdet.gradient
def _(g: Any, input: Tensor) -> Any:
    return _turned(_inverse(input)) * unsqueeze(unsqueeze(g[1], -1), -1)


@method("slogdet")
def slogdet(input: Tensor) -> tuple[Tensor, Tensor]:
    """Sign and logarithm of the absolute value of the determinants of `input` (..., n, n).

    A singular matrix gives 0 and -inf, and no gradient (ArgumentError).
    """
    return _slogdet(input)


@op
def _det(k: Any, input: Array) -> Any:
    _square(input)
    sign, log = k.slogdet(input)
    return k.mul(sign, k.exp(log))


@_det.gradient
def _(g: Tensor, input: Tensor, out: Tensor) -> Any:
    k: Any = kernels_for(out.array)
    if k.host((out.array == 0).any()):  # singular
        return _cofactors(input) * unsqueeze(unsqueeze(g, -1), -1)
    return _turned(_inverse(input)) * unsqueeze(unsqueeze(g * out, -1), -1)


@op(nondiff=True)
def _cofactors(k: Any, input: Array) -> Any:
    """The determinants without each row and column, with their signs, by singular values.

    For singular matrices only, on the CPU.
    """
    left, values, right = np.linalg.svd(k.host(input))
    n = values.shape[-1]
    others = np.stack([np.delete(values, i, -1).prod(-1) for i in range(n)], -1)
    sign = np.linalg.slogdet(left)[0] * np.linalg.slogdet(right)[0]
    out = np.matmul(left * (others * sign[..., None])[..., None, :], right)
    return k.asarray(out.astype(input.dtype))


@method("det")
def det(input: Tensor) -> Tensor:
    """The determinants of `input` (..., n, n); singular ones have no second derivative."""
    return _det(input)


@method("logdet")
def logdet(input: Tensor) -> Tensor:
    """The logarithms of the determinants of `input` (..., n, n); NaN for negative ones."""
    sign, value = slogdet(input)
    return value + log(sign.detach())


# ---------------------------------------------------------------- eigenvalues


@op(outputs=("eigenvalues", "eigenvectors"))
def _eigh(k: Any, input: Array, upper: bool) -> Any:
    _square(input)
    return _found("the eigenvalues did not converge", k.eigh, input, upper)


@_eigh.gradient
def _(g: Any, eigenvalues: Tensor, eigenvectors: Tensor) -> Any:
    turned = _turned(eigenvectors)
    own = eye(eigenvalues.shape[-1], dtype=eigenvalues.dtype, device=eigenvalues.device)
    gaps = unsqueeze(eigenvalues, -2) - unsqueeze(eigenvalues, -1)
    inner = matmul(turned, g[1]) * (1 - own)
    # equal eigenvalues have gradients of their own, their eigenvectors have none
    gaps = where(logical_and(eq(gaps, 0), eq(inner, 0)), 1.0, gaps)
    inner = inner / gaps + diag_embed(g[0])
    return matmul(matmul(eigenvectors, inner), turned)


def eigh(A: Tensor, UPLO: str = "L") -> tuple[Tensor, Tensor]:
    """Eigenvalues (..., n), ascending, and eigenvectors (..., n, n) in columns, of symmetric A.

    UPLO: the triangle that is read. A gradient through eigenvectors needs distinct eigenvalues.
    """
    if UPLO not in ("L", "U"):
        raise ArgumentError("UPLO must be 'L' or 'U'", operator="eigh", got=repr(UPLO))
    return _eigh(A, UPLO == "U")


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues (..., n) of symmetric matrices, ascending."""
    return eigh(A, UPLO)[0]


# ---------------------------------------------------------------- products and sums


@method("trace")
def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    check_tensor("trace", "input", input)
    if input.ndim != 2:
        raise ShapeError("needs a matrix", operator="trace", got=str(input.shape))
    return sum(diagonal(input))


@method("matrix_power")
def matrix_power(input: Tensor, n: int) -> Tensor:
    """Square matrices (..., m, m) times themselves `n` times; for n < 0, their inverses."""
    check_tensor("matrix_power", "input", input)
    if input.ndim < 2 or input.shape[-1] != input.shape[-2]:
        raise ShapeError("needs square matrices", operator="matrix_power", got=str(input.shape))
    if n == 0:
        one = eye(input.shape[-1], dtype=input.dtype, device=input.device)
        return clone(expand(one, input.shape))
    square, out = inv(input) if n < 0 else input, None
    n = -n if n < 0 else n
    while n:
        if n % 2:
            out = square if out is None else matmul(out, square)
        n //= 2
        square = matmul(square, square) if n else square
    assert out is not None
    return clone(out) if out is input else out


@method("kron")
def kron(input: Tensor, other: Tensor) -> Tensor:
    """Kronecker's product: blocks of `other`, one times each element of `input`.

    Axes are counted from the last; missing ones have size 1.
    """
    check_tensor("kron", "input", input)
    check_tensor("kron", "other", other)
    n = max(input.ndim, other.ndim)
    own, inner = ((1,) * (n - x.ndim) + x.shape for x in (input, other))
    left = reshape(input, [size for a in own for size in (a, 1)])
    right = reshape(other, [size for b in inner for size in (1, b)])
    return reshape(left * right, [a * b for a, b in zip(own, inner, strict=True)])  # type: ignore[operator]


def _alike(name: str, *tensors: Tensor) -> None:
    if len({x.dtype for x in tensors}) > 1:
        got = ", ".join(x.dtype.name for x in tensors)
        raise DTypeError("all tensors must have the same dtype", operator=name, got=got)


@method("cross")
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """Vector products along `dim`, of size 3 (by default the first such axis); broadcast."""
    check_tensor("cross", "input", input)
    check_tensor("cross", "other", other)
    _alike("cross", input, other)
    x, y = broadcast_tensors(input, other)
    if dim is None:
        if 3 not in x.shape:
            raise ShapeError("needs an axis of size 3", operator="cross", got=str(x.shape))
        dim = x.shape.index(3)
    i = axis(x.ndim, dim, "cross")
    if not x.ndim or x.shape[i] != 3:
        raise ShapeError(f"axis {dim} must have size 3", operator="cross", got=str(x.shape))
    ahead, behind = (constant(np.array(places)) for places in ([1, 2, 0], [2, 0, 1]))
    x1, x2, y1, y2 = (index_select(v, i, p) for v in (x, y) for p in (ahead, behind))
    return x1 * y2 - x2 * y1  # type: ignore[operator]


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of two or more matrices in the order of fewest multiplications.

    The first may be a row (n,), the last a column (m,). Source: Cormen et al., "Introduction to
    algorithms", matrix-chain multiplication.
    """
    if len(tensors) < 2:
        raise ArgumentError("needs two tensors or more", operator="multi_dot")
    parts = list(tensors)
    first, last = parts[0].ndim == 1, parts[-1].ndim == 1
    if first:
        parts[0] = unsqueeze(parts[0], 0)
    if last:
        parts[-1] = unsqueeze(parts[-1], 1)
    _alike("multi_dot", *parts)
    got = ", ".join(str(x.shape) for x in tensors)
    if any(x.ndim != 2 for x in parts):
        raise ShapeError("needs matrices", operator="multi_dot", got=got)
    if any(x.shape[1] != y.shape[0] for x, y in pairwise(parts)):
        raise ShapeError("inner sizes must agree", operator="multi_dot", got=got)
    side = [x.shape[0] for x in parts] + [parts[-1].shape[1]]
    best: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(len(parts))}
    for length in range(1, len(parts)):
        for i in range(len(parts) - length):
            j = i + length
            best[i, j] = min(
                (best[i, m][0] + best[m + 1, j][0] + side[i] * side[m + 1] * side[j + 1], m)
                for m in range(i, j)
            )

    def product(i: int, j: int) -> Tensor:
        if i == j:
            return parts[i]
        m = best[i, j][1]
        return matmul(product(i, m), product(m + 1, j))

    out = product(0, len(parts) - 1)
    shape = out.shape[first : 1 if last else 2]
    return reshape(out, shape) if first or last else out


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """The sums of products along `dim`, broadcast."""
    check_tensor("vecdot", "x", x)
    check_tensor("vecdot", "y", y)
    _alike("vecdot", x, y)
    return sum(x * y, dim)  # type: ignore[operator]


def vector_norm(
    x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """`norm` of order `ord` over `dim`, of all elements by default."""
    return norm(x, float(ord), dim, keepdim, dtype)
