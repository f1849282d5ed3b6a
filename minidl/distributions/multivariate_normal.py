"""The normal distribution of vectors."""

from __future__ import annotations

from typing import ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import HALF_LOG_TAU, lazy_property
from minidl.errors import ArgumentError, ShapeError
from minidl.ops.creation import eye
from minidl.ops.linalg import cholesky, cholesky_inverse, solve_triangular
from minidl.ops.matmul import matmul
from minidl.ops.random import randn
from minidl.ops.reduce import sum
from minidl.ops.transcendental import log
from minidl.ops.views import broadcast_shapes, diagonal, expand
from minidl.tensor import Tensor

__all__ = ["MultivariateNormal"]


class MultivariateNormal(Distribution):
    """The normal distribution of mean `loc` (..., n) and one of three matrices (..., n, n).

    covariance_matrix: positive definite; precision_matrix: its inverse; scale_tril: the lower
    Cholesky factor of the covariance, the cheapest of the three.
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Tensor | None = None,
        precision_matrix: Tensor | None = None,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        given = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        found = [(name, matrix) for name, matrix in given.items() if matrix is not None]
        if len(found) != 1:
            raise ArgumentError("exactly one of covariance_matrix, precision_matrix and scale_tril"
                                " must be given", operator="MultivariateNormal")  # fmt: skip
        ((name, matrix),) = found
        if loc.ndim < 1 or matrix.ndim < 2 or matrix.shape[-1] != loc.shape[-1]:
            raise ShapeError(f"loc must be (..., n), {name} (..., n, n)",
                             operator="MultivariateNormal",
                             got=f"{loc.shape}, {matrix.shape}")  # fmt: skip
        batch = broadcast_shapes(loc.shape[:-1], matrix.shape[:-2])
        n = loc.shape[-1]
        self.loc = expand(loc, (*batch, n))
        self.__dict__[name] = expand(matrix, (*batch, *matrix.shape[-2:]))
        super().__init__(batch, (n,), validate_args=validate_args)
        # of the matrix before it was broadcast: one factor for the whole batch
        if covariance_matrix is not None:
            self._factor = cholesky(covariance_matrix)
        elif precision_matrix is not None:
            self._factor = _factor_of_inverse(precision_matrix)
        else:
            self._factor = matrix

    @lazy_property
    def scale_tril(self) -> Tensor:
        """The lower Cholesky factor of the covariance."""
        return self._factor.expand(*self._batch_shape, *self._event_shape, -1)

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        """The covariance."""
        found = matmul(self._factor, self._factor.mT)
        return found.expand(*self._batch_shape, *self._event_shape, -1)

    @lazy_property
    def precision_matrix(self) -> Tensor:
        """The inverse of the covariance."""
        found = cholesky_inverse(self._factor)
        return found.expand(*self._batch_shape, *self._event_shape, -1)

    def _mean(self) -> Tensor:
        return self.loc

    def _mode(self) -> Tensor:
        return self.loc

    def _variance(self) -> Tensor:
        found = sum(self._factor * self._factor, -1)
        return found.expand(*self._batch_shape, *self._event_shape)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        z = randn(shape, dtype=self.loc.dtype, device=self.loc.device).unsqueeze(-1)
        return self.loc + matmul(self._factor, z).squeeze(-1)

    def _log_prob(self, value: Tensor) -> Tensor:
        return (
            mahalanobis(self._factor, value - self.loc) * -0.5
            - half_log_det(self._factor)
            - self._event_shape[0] * HALF_LOG_TAU
        )

    def _entropy(self) -> Tensor:
        found = half_log_det(self._factor) + self._event_shape[0] * (0.5 + HALF_LOG_TAU)
        return found.expand(*self._batch_shape)


def _factor_of_inverse(precision: Tensor) -> Tensor:
    """The lower Cholesky factor of the inverse: that of the matrix turned around, inverted."""
    turned = cholesky(precision.flip(-2, -1)).flip(-2, -1).mT
    return solve_triangular(
        turned,
        eye(precision.shape[-1], dtype=precision.dtype, device=precision.device),
        upper=False,
    )


def half_log_det(factor: Tensor) -> Tensor:
    """The logarithm of the determinant of a triangular matrix: half that of its square."""
    return sum(log(diagonal(factor, 0, -2, -1)), -1)


def mahalanobis(factor: Tensor, difference: Tensor) -> Tensor:
    """x^T (L L^T)^-1 x of the vectors in the last axis; batches broadcast.

    Vectors of one factor are solved for together.
    """
    if factor.ndim == 2:
        rows = difference.reshape(-1, difference.shape[-1])
        z = solve_triangular(factor, rows.mT, upper=False)
        return sum(z * z, 0).reshape(*difference.shape[:-1])
    z = solve_triangular(factor, difference.unsqueeze(-1), upper=False).squeeze(-1)
    return sum(z * z, -1)
