"""Rows of `minidl.ops.linalg`; matrices are made well conditioned, and symmetric, in the call."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd import enable_grad
from minidl.dtypes import DType, float32, float64
from minidl.ops import linalg as ops
from minidl.ops.arrange import cat
from minidl.ops.creation import eye
from minidl.ops.matmul import matmul
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import alike
from minidl.testing.targets import placed

WIDE = (float64, float32)


def _batch(d: Any) -> tuple[int, ...]:
    return d.shape(max_dims=2, max_side=3, min_side=1)


def _matrix(d: Any, dtype: DType, batch: Any = None, n: int | None = None) -> np.ndarray:
    n = d.integer(1, 4) if n is None else n
    return d.array((*(_batch(d) if batch is None else batch), n, n), dtype, -1, 1)


def _one(d: Any, dtype: DType) -> Sample:
    return sample(_matrix(d, dtype))


def _system(d: Any, dtype: DType) -> Sample:
    batch, n = _batch(d), d.integer(1, 4)
    other = d.choice([batch, d.broadcastable(batch)])
    right = d.array((*other, n, d.integer(1, 3)), dtype)
    return sample(*alike(_matrix(d, dtype, batch, n), right))


def _matrices(d: Any, dtype: DType) -> Sample:
    """As many axes on the right as on the left: fewer may be taken for vectors."""
    batch, n = _batch(d), d.integer(1, 4)
    other = batch if d.boolean() else (1,) * len(batch)
    right = d.array((*other, n, d.integer(1, 3)), dtype)
    return sample(*alike(_matrix(d, dtype, batch, n), right))


def _spd(x: Any) -> Any:
    """Positive definite: x x^T + 1."""
    if isinstance(x, np.ndarray):
        return x @ np.swapaxes(x, -1, -2) + np.eye(x.shape[-1])
    return matmul(x, x.mT) + eye(x.shape[-1], dtype=x.dtype, device=x.device)


def _regular(x: Any) -> Any:
    """With eigenvalues around 5."""
    if isinstance(x, np.ndarray):
        return x + np.eye(x.shape[-1]) * 5
    return x + eye(x.shape[-1], dtype=x.dtype, device=x.device) * 5


def _turned(x: Any) -> Any:
    return np.swapaxes(x, -1, -2) if isinstance(x, np.ndarray) else x.mT


def _triangular(x: Any, y: Any, upper: bool, left: bool, unit: bool) -> Any:
    return ops.solve_triangular(
        _regular(x), y if left else y.mT, upper=upper, left=left, unitriangular=unit
    )


def _triangular_oracle(x: Any, y: Any, upper: bool, left: bool, unit: bool) -> Any:
    x = np.triu(_regular(x)) if upper else np.tril(_regular(x))
    if unit:
        one = np.eye(x.shape[-1])
        x = x * (1 - one) + one
    return np.linalg.solve(x, y) if left else _turned(np.linalg.solve(_turned(x), y))


def _triangular_torch(torch: Any, x: Any, y: Any, upper: bool, left: bool, unit: bool) -> Any:
    x = x + torch.eye(x.shape[-1], dtype=x.dtype) * 5
    y = y if left else y.mT
    return torch.linalg.solve_triangular(x, y, upper=upper, left=left, unitriangular=unit)


def _vectors(d: Any, dtype: DType) -> Sample:
    n = d.integer(1, 4)
    batch = d.choice([(), (2,)])
    return sample(*alike(_matrix(d, dtype, batch, n), d.array((*batch, n), dtype)))


def _spread(x: Any) -> Any:
    """Symmetric with eigenvalues apart."""
    steps = np.diag(8.0 * np.arange(x.shape[-1]))
    if not isinstance(x, np.ndarray):
        steps = type(x)(placed(steps.astype(x.array.dtype)))
    return x + _turned(x) + steps


def _decomposed(eigh: Any, x: Any) -> Any:
    """Eigenvalues, and squares of the vectors, which do not depend on their signs.

    1 is added: small components have the error of the whole vector.
    """
    values, vectors = eigh(_spread(x))
    return values, vectors * vectors + 1


def _decomposed_torch(torch: Any, x: Any) -> Any:
    steps = torch.arange(x.shape[-1], dtype=x.dtype).diag() * 8
    values, vectors = torch.linalg.eigh(x + x.mT + steps)
    return values, vectors * vectors + 1


def _row(
    name: str, make: Callable, function: Any, oracle: Any, torch: Any, inputs: Any, *operators: str
) -> Case:
    """A row of `function` of the matrices that `make` makes of the drawn ones.

    scale: the error of a result is that of its matrix times the condition, up to 100 here.
    """

    def theirs(torch_: Any, x: Any, *args: Any) -> Any:
        one = torch_.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        return torch(torch_)(x @ x.mT + one if make is _spd else x + one * 5, *args)

    return Case(name, lambda x, *args: function(make(x), *args),
                lambda x, *args: oracle(make(x), *args), inputs, theirs, dtypes=WIDE,
                operators=operators, scale=32)  # fmt: skip


def _flagged(inputs: Callable) -> Callable:
    """The same inputs and `upper`."""
    return lambda d, dtype: sample(*inputs(d, dtype).args, d.boolean())


def _by_factor(b: Any, x: Any, upper: bool) -> Any:
    return ops.cholesky_solve(b, ops.cholesky(_spd(x), upper), upper)


def _by_factor_torch(torch: Any, b: Any, x: Any, upper: bool) -> Any:
    spd = x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    factor = torch.linalg.cholesky(spd)
    return torch.cholesky_solve(b, factor.mT if upper else factor, upper)


def _square_system(d: Any, dtype: DType) -> Sample:
    """A right side and a matrix, of one batch: torch broadcasts no other."""
    batch, n = _batch(d), d.integer(1, 4)
    right = d.array((*batch, n, 2), dtype)
    return sample(*alike(right, _matrix(d, dtype, batch, n)), d.boolean())


def _chain(d: Any, dtype: DType) -> list[np.ndarray]:
    """Matrices whose product exists; the first and the last may be vectors."""
    sides = [d.integer(1, 4) for _ in range(d.integer(3, 5))]
    chain = [d.array(pair, dtype) for pair in itertools.pairwise(sides)]
    if d.boolean():
        chain[0] = d.array(sides[1:2], dtype)
    if d.boolean():
        chain[-1] = d.array(sides[-2:-1], dtype)
    return chain


def _singular(x: Any) -> Any:
    """The last row of each matrix is 0."""
    join = np.concatenate if isinstance(x, np.ndarray) else cat
    return join([x[..., :-1, :], x[..., -1:, :] * 0], -2)


def _cofactors(x: Any) -> Any:
    with enable_grad():
        x = x.detach().requires_grad_()
        ops.det(x).sum().backward()
    return x.grad


def _minors(x: np.ndarray) -> np.ndarray:
    n, out = x.shape[-1], np.empty(x.shape)
    for i, j in np.ndindex(n, n):
        minor = np.delete(np.delete(x, i, -2), j, -1)
        out[..., i, j] = (-1) ** (i + j) * np.linalg.det(minor)
    return out


CASES = [
    _row("cholesky", _spd, ops.cholesky,
         lambda x, upper: _turned(np.linalg.cholesky(x)) if upper else np.linalg.cholesky(x),
         lambda torch: lambda x, upper: torch.linalg.cholesky(x, upper=upper), _flagged(_one),
         "cholesky"),
    _row("cholesky_inverse", _spd,
         lambda x, upper: ops.cholesky_inverse(ops.cholesky(x, upper), upper),
         lambda x, upper: np.linalg.inv(x), lambda torch: lambda x, upper: torch.linalg.inv(x),
         _flagged(_one), "substituted"),
    Case("cholesky_solve", _by_factor, lambda b, x, upper: np.linalg.solve(_spd(x), b),
         _square_system, _by_factor_torch, dtypes=WIDE, operators=("substituted",), scale=32),
    Case("solve_triangular", _triangular, _triangular_oracle,
         lambda d, dtype: sample(*_system(d, dtype).args, d.boolean(), d.boolean(), d.boolean()),
         _triangular_torch, dtypes=WIDE, operators=("substituted",), scale=32),
    _row("solve", _regular, ops.solve, np.linalg.solve, lambda torch: torch.linalg.solve, _matrices,
         "solve"),
    _row("solve_vectors", _regular, ops.solve,
         lambda x, b: np.linalg.solve(x, b[..., None])[..., 0],
         lambda torch: torch.linalg.solve, _vectors, "solve"),
    _row("solve_right", _regular, lambda x, b: ops.solve(x, b.mT, left=False),
         lambda x, b: _turned(np.linalg.solve(_turned(x), b)),
         lambda torch: lambda x, b: torch.linalg.solve(x, b.mT, left=False), _matrices, "solve"),
    _row("inverse", _regular, ops.inv, np.linalg.inv, lambda torch: torch.linalg.inv, _one,
         "inverse"),
    _row("det", _regular, ops.det, np.linalg.det, lambda torch: torch.linalg.det, _one, "det"),
    Case("det of singular matrices", lambda x: _cofactors(_singular(x)),
         lambda x: _minors(_singular(x)), _one, torch=None, dtypes=WIDE, grad=False,
         operators=("cofactors",), scale=32),
    _row("slogdet", _regular, lambda x: ops.slogdet(x)[1], lambda x: np.linalg.slogdet(x)[1],
         lambda torch: lambda x: torch.linalg.slogdet(x)[1], _one, "slogdet"),
    _row("logdet", _regular, ops.logdet, lambda x: np.log(np.linalg.det(x)),
         lambda torch: torch.logdet, _one, "slogdet"),
    Case("trace", ops.trace, lambda x: np.trace(x),
         lambda d, dtype: sample(d.array((d.integer(1, 4), d.integer(1, 4)), dtype)),
         operators=("sum", "diagonal"), dtypes=WIDE),
    Case("matrix_power", ops.matrix_power, np.linalg.matrix_power,
         lambda d, dtype: sample(d.array((*_batch(d), 3, 3), dtype, -1, 1), d.integer(1, 6)),
         operators=("matmul",), dtypes=WIDE, scale=32),
    Case("kron", ops.kron, np.kron,
         lambda d, dtype: sample(d.array(d.shape(min_dims=1, max_dims=2, max_side=3), dtype),
                                 d.array(d.shape(min_dims=1, max_dims=2, max_side=3), dtype)),
         operators=("mul",), dtypes=WIDE),
    Case("cross", lambda x, y, dim: ops.cross(x, y, dim), lambda x, y, dim: np.cross(x, y),
         lambda d, dtype: sample(d.array((2, 3), dtype), d.array((d.integer(1, 2), 3), dtype), -1),
         torch=lambda torch, x, y, dim: torch.linalg.cross(x, y, dim=dim),
         operators=("index_select",), dtypes=WIDE, scale=4),
    Case("multi_dot", lambda *xs: ops.multi_dot(xs), lambda *xs: np.linalg.multi_dot(xs),
         lambda d, dtype: sample(*_chain(d, dtype)),
         torch=lambda torch, *xs: torch.linalg.multi_dot(xs), operators=("matmul",), dtypes=WIDE,
         scale=32),
    Case("vecdot", ops.vecdot, lambda x, y: (x * y).sum(-1),
         lambda d, dtype: sample(d.array((3, 4), dtype), d.array((4,), dtype)),
         torch="torch.linalg.vecdot", operators=("mul", "sum"), dtypes=WIDE, scale=4),
    Case("eigh", lambda x: _decomposed(ops.eigh, x), lambda x: _decomposed(np.linalg.eigh, x),
         _one, _decomposed_torch, dtypes=WIDE, scale=32),
]  # fmt: skip
