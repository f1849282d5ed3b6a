"""Ready parametrisations: weight norm, spectral norm, orthogonal matrices.

Sources: Salimans and Kingma 2016, arXiv:1602.07868 (weight norm); Miyato et al. 2018,
arXiv:1802.05957 (spectral norm); Lezcano-Casado 2019, arXiv:1909.09501 (orthogonal maps and
trivialisations); Higham 2005, SIAM J. Matrix Anal. Appl. 26 (matrix exponential).
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np

import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.dtypes import finfo
from minidl.errors import ArgumentError, OutOfRangeError, ShapeError
from minidl.nn.module import Module
from minidl.nn.utils.parametrize import register_parametrization
from minidl.nn.utils.spectral_norm import as_matrix, output_axis
from minidl.nn.utils.weight_norm import norm_except, with_norm
from minidl.ops.linalg import solve
from minidl.ops.norm import normalize
from minidl.tensor import Tensor

ModuleT = TypeVar("ModuleT", bound=Module)


def _tensor_of(module: Module, name: str, operator: str) -> Tensor:
    tensor = getattr(module, name, None)
    if not isinstance(tensor, Tensor):
        raise ArgumentError(
            f"{type(module).__name__} has no parameter or buffer '{name}'", operator=operator
        )
    return tensor


class _WeightNorm(Module):
    """A weight from its norms over all axes but `dim`, and a direction."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = -1 if dim is None else dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        return with_norm(weight_v, weight_g, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        return norm_except(weight, self.dim), weight


def weight_norm(module: ModuleT, name: str = "weight", dim: int | None = 0) -> ModuleT:
    """Compute the tensor `name` from its norms over all axes but `dim` and a direction.

    Both are trained, as `parametrizations.NAME.original0` and `original1`; states saved with the
    older `utils.weight_norm` load, too. `dim` None: one norm for all of it.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def renamed(state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        keys = [f"{prefix}{name}_g", f"{prefix}{name}_v"]
        if all(key in state_dict for key in keys):
            for i, key in enumerate(keys):
                new = f"{prefix}parametrizations.{name}.original{i}"
                state_dict[new] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(renamed)
    return module


class _SpectralNorm(Module):
    """A weight over its largest singular value, by power iteration in training mode."""

    _u: Tensor
    _v: Tensor

    def __init__(
        self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12
    ) -> None:
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise OutOfRangeError(
                f"dim must lie in [{-weight.ndim}, {weight.ndim})",
                operator="spectral_norm",
                got=str(dim),
            )
        if n_power_iterations <= 0:
            raise ArgumentError(
                "n_power_iterations must be positive",
                operator="spectral_norm",
                got=str(n_power_iterations),
            )
        self.dim = dim % weight.ndim
        self.eps = eps
        self.n_power_iterations = n_power_iterations
        if weight.ndim > 1:
            matrix = as_matrix(weight.detach(), self.dim)
            for name, size in zip(("_u", "_v"), matrix.shape, strict=True):
                drawn = matrix.new_empty(size).normal_()
                self.register_buffer(name, normalize(drawn, dim=0, eps=eps))
            self._iterate(matrix, 15)

    def _iterate(self, matrix: Tensor, steps: int) -> None:
        with no_grad():
            for _ in range(steps):
                self._u.copy_(normalize(matrix.mv(self._v), dim=0, eps=self.eps))
                self._v.copy_(normalize(matrix.T.mv(self._u), dim=0, eps=self.eps))

    def forward(self, weight: Tensor) -> Tensor:
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        matrix = as_matrix(weight, self.dim)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        # copies: the next forward may come before the backward of this one
        return weight / self._u.clone().dot(matrix.mv(self._v.clone()))

    def right_inverse(self, value: Tensor) -> Tensor:
        return value


def spectral_norm(
    module: ModuleT,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> ModuleT:
    """Divide the tensor `name` by its largest singular value (a vector: by its length).

    The value is that of the matrix of axis `dim` against all others; by default the axis of the
    outputs. Each use in training mode makes `n_power_iterations` steps of power iteration.
    """
    weight = _tensor_of(module, name, "spectral_norm")
    dim = output_axis(module) if dim is None else dim
    norm = _SpectralNorm(weight, n_power_iterations, dim, eps)
    return register_parametrization(module, name, norm)


def _exponential(a: Tensor) -> Tensor:
    """exp of a matrix: Taylor's polynomial of a / 2**s, squared s times."""
    size = float(a.detach().abs().sum(-2).amax()) if a.numel() else 0.0
    squarings = max(0, math.ceil(math.log2(size / 0.25))) if 0 < size < math.inf else 0
    scaled = a / 2**squarings
    one = ops.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    result = one + scaled / 12  # the rest is below 1e-17 at norm 1/4
    for i in range(11, 0, -1):
        result = one + scaled @ result / i
    for _ in range(squarings):
        result = result @ result
    return result


def _orthonormal(matrix: Tensor) -> Tensor:
    """The Q of matrix = Q R with a positive diagonal of R; not differentiated."""
    q, r = np.linalg.qr(matrix.detach().cpu().numpy().astype(np.float64))
    signs = np.where(np.diagonal(r, axis1=-2, axis2=-1) < 0, -1.0, 1.0)
    return ops.tensor(q * signs[..., None, :], dtype=matrix.dtype, device=matrix.device)


class _Orthogonal(Module):
    """A matrix with orthonormal columns (or rows, where it is wide) from a free one."""

    base: Tensor | None

    def __init__(self, weight: Tensor, map_name: str, use_trivialization: bool) -> None:
        super().__init__()
        self.shape = weight.shape
        self.map_name = map_name
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, X: Tensor) -> Tensor:
        wide = X.shape[-2] < X.shape[-1]
        X = X.mT if wide else X
        rows, columns = X.shape[-2:]
        if self.map_name == "householder":
            Q = self._reflections(X)
        else:
            lower = X.tril()
            if rows != columns:
                lower = ops.cat([lower, X.new_zeros((*X.shape[:-1], rows - columns))], -1)
            skew = lower - lower.mT
            if self.map_name == "matrix_exp":
                Q = _exponential(skew)
            else:
                one = ops.eye(rows, dtype=X.dtype, device=X.device)
                Q = solve(one - skew / 2, one + skew / 2)
            Q = Q[..., :columns]
        base = getattr(self, "base", None)
        Q = Q if base is None else base @ Q
        return Q.mT if wide else Q

    def _reflections(self, X: Tensor) -> Tensor:
        """The first columns of the product of Householder's reflections in X's columns."""
        rows, columns = X.shape[-2:]
        below = X.tril(-1)
        factors = 2 / (1 + below.square().sum(-2))
        Q = ops.eye(rows, columns, dtype=X.dtype, device=X.device)
        unit = ops.eye(rows, columns, dtype=X.dtype, device=X.device)
        for i in range(columns - 1, -1, -1):
            v = (below[..., i] + unit[:, i]).unsqueeze(-1)
            Q = Q - factors[..., i, None, None] * v @ (v.mT @ Q)
        return Q * X.detach().diagonal(0, -2, -1).trunc().unsqueeze(-2)

    def right_inverse(self, Q: Tensor) -> Tensor:
        if Q.shape != self.shape:
            raise ShapeError(
                f"the matrix must keep its shape {self.shape}",
                operator="orthogonal",
                got=str(Q.shape),
            )
        wide = Q.shape[-2] < Q.shape[-1]
        tall = Q.mT if wide else Q
        rows, columns = tall.shape[-2:]
        if "base" not in self._buffer_names:
            if self.map_name != "householder":
                raise NotImplementedError(
                    f"[orthogonal] a matrix cannot be set with {self.map_name} and "
                    "use_trivialization=False; leave the trivialisation on"
                )
            return self._reflectors(tall, wide)
        if rows == columns:
            full = tall.clone() if _is_orthonormal(tall) else _orthonormal(tall)
        else:
            more = tall.new_empty((*tall.shape[:-1], rows - columns)).normal_()
            full = _orthonormal(ops.cat([tall, more], -1))
        self.base = full
        negative = ops.zeros_like(Q)
        negative.diagonal(0, -2, -1).fill_(-1)
        return negative

    def _reflectors(self, tall: Tensor, wide: bool) -> Tensor:
        """What `_reflections` takes to give the matrix: LAPACK's form of Q, R's signs on top."""
        arrays = tall.detach().cpu().numpy().astype(np.float64).reshape(-1, *tall.shape[-2:])
        found = []
        for array in arrays:
            packed, factors = np.linalg.qr(array, mode="raw")
            packed = packed.T.copy()
            places = np.arange(array.shape[-1])
            # a factor of 0 is no reflection, where `_reflections` makes one
            signs = np.sign(packed[places, places]) * np.where(factors == 0, -1, 1)
            packed[places, places] = signs
            found.append(packed)
        stacked = np.stack(found).reshape(tall.shape)
        result = ops.tensor(stacked, dtype=tall.dtype, device=tall.device)
        return result.mT.contiguous() if wide else result


def _is_orthonormal(Q: Tensor) -> bool:
    array = Q.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(array).all():
        return False
    one = np.eye(array.shape[-1])
    eps = 10 * array.shape[-2] * finfo(Q.dtype).eps
    return bool(np.allclose(array.swapaxes(-1, -2) @ array, one, rtol=0, atol=eps))


def orthogonal(
    module: ModuleT,
    name: str = "weight",
    orthogonal_map: str | None = None,
    *,
    use_trivialization: bool = True,
) -> ModuleT:
    """Keep the matrix `name` (or the matrices of its last two axes) orthogonal.

    orthogonal_map: "matrix_exp" (by default for square ones), "cayley" or "householder". With
    `use_trivialization` the map starts at the matrix that is there, made orthogonal, and the
    tensor can be assigned. Raises ValueError for another map or a tensor with fewer than 2 axes.
    """
    weight = _tensor_of(module, name, "orthogonal")
    if weight.ndim < 2:
        raise ShapeError("a matrix is needed", operator="orthogonal", got=str(weight.shape))
    if orthogonal_map is None:
        orthogonal_map = "matrix_exp" if weight.shape[-2] == weight.shape[-1] else "householder"
    if orthogonal_map not in ("matrix_exp", "cayley", "householder"):
        raise ArgumentError(
            "orthogonal_map must be 'matrix_exp', 'cayley' or 'householder'",
            operator="orthogonal",
            got=repr(orthogonal_map),
        )
    free = _Orthogonal(weight, orthogonal_map, use_trivialization)
    return register_parametrization(module, name, free, unsafe=True)


__all__ = ["orthogonal", "spectral_norm", "weight_norm"]
