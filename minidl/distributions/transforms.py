"""Invertible functions with the logarithm of their Jacobian's determinant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.dtypes import finfo
from minidl.errors import ArgumentError, ShapeError, UnsupportedError
from minidl.ops.activation import logsigmoid, sigmoid, softplus
from minidl.ops.arithmetic import abs, sign
from minidl.ops.arrange import cat, diag_embed, tril
from minidl.ops.creation import ones
from minidl.ops.cumulative import cumprod
from minidl.ops.linalg import cholesky
from minidl.ops.matmul import matmul
from minidl.ops.reduce import sum
from minidl.ops.select import clamp
from minidl.ops.softmax import softmax
from minidl.ops.transcendental import atanh, exp, log, log1p, tanh
from minidl.ops.views import broadcast_shapes, diagonal, transpose
from minidl.tensor import Tensor

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "ComposeTransform",
    "CumulativeDistributionTransform",
    "ExpTransform",
    "IndependentTransform",
    "LowerCholeskyTransform",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StickBreakingTransform",
    "TanhTransform",
    "Transform",
    "identity_transform",
]


class Transform:
    """A function between `domain` and `codomain`: `t(x)`, its inverse `t.inv(y)`.

    A subclass defines `_call`, `_inverse` and, where it has one, `log_abs_det_jacobian`.
    bijective: whether every value has one origin; sign: 1 or -1 for monotone functions of one
    number. cache_size is 0 or 1 as in PyTorch: whether the last pair of x and y is kept, so that
    the inverse of a result is exact and free.
    """

    domain: ClassVar[Any] = constraints.real
    codomain: ClassVar[Any] = constraints.real
    bijective = False

    def __init__(self, cache_size: int = 0) -> None:
        if cache_size not in (0, 1):
            raise ArgumentError("cache_size must be 0 or 1", operator=type(self).__name__,
                                got=repr(cache_size))  # fmt: skip
        self._cache_size = cache_size
        self._last: tuple[Any, Any] = (None, None)

    def with_cache(self, cache_size: int = 1) -> Transform:
        """The same transform with or without a cache."""
        if cache_size == self._cache_size:
            return self
        new = object.__new__(type(self))
        new.__dict__.update(self.__dict__)
        new._cache_size, new._last = cache_size, (None, None)
        return new

    @property
    def event_dim(self) -> int:
        """How many last axes make one value, where domain and codomain agree in it."""
        if self.domain.event_dim != self.codomain.event_dim:
            raise ArgumentError("domain and codomain differ in event_dim",
                                operator=type(self).__name__)  # fmt: skip
        return self.domain.event_dim

    @property
    def sign(self) -> Any:
        """1 for an increasing function, -1 for a decreasing one."""
        return self._sign()

    def _sign(self) -> Any:
        raise UnsupportedError("has no sign", operator=type(self).__name__)

    @property
    def inv(self) -> Transform:
        """The inverse transform."""
        return _Inverse(self)

    def __call__(self, x: Tensor) -> Tensor:
        """The transform of x."""
        if self._cache_size and x is self._last[0]:
            return self._last[1]
        y = self._call(x)
        if self._cache_size:
            self._last = x, y
        return y

    def _inv_call(self, y: Tensor) -> Tensor:
        if self._cache_size and y is self._last[1]:
            return self._last[0]
        x = self._inverse(y)
        if self._cache_size:
            self._last = x, y
        return x

    def _call(self, x: Tensor) -> Tensor:
        raise UnsupportedError("has no function", operator=type(self).__name__)

    def _inverse(self, y: Tensor) -> Tensor:
        raise UnsupportedError("has no inverse", operator=type(self).__name__)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        """log |dy/dx| where y is the transform of x; without the event's axes."""
        return self._log_slope(x, y)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        raise UnsupportedError("has no log_abs_det_jacobian", operator=type(self).__name__)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the result for an input of `shape`."""
        return tuple(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the input of a result of `shape`."""
        return tuple(shape)

    def _values(self) -> tuple[Any, ...]:
        """What tells two transforms of one class apart."""
        return ()

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return False
        pairs = zip(self._values(), other._values(), strict=True)  # type: ignore[attr-defined]
        return all(_same(a, b) for a, b in pairs)

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(str, self._values()))})"


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if type(value) is Tensor else ()


def _same(a: Any, b: Any) -> bool:
    found = a == b
    return bool(found.all()) if type(found) is Tensor else bool(found)


class _Inverse(Transform):
    """The inverse of `transform`."""

    def __init__(self, transform: Transform) -> None:
        super().__init__(transform._cache_size)
        self._transform = transform
        self.domain = transform.codomain  # type: ignore[misc]
        self.codomain = transform.domain  # type: ignore[misc]
        self.bijective = transform.bijective

    def _sign(self) -> Any:
        return self._transform.sign

    @property
    def inv(self) -> Transform:
        """The transform itself."""
        return self._transform

    def __call__(self, x: Tensor) -> Tensor:
        return self._transform._inv_call(x)

    def _inv_call(self, y: Tensor) -> Tensor:
        return self._transform(y)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        return -self._transform.log_abs_det_jacobian(y, x)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the transform's input for a result of `shape`."""
        return self._transform.inverse_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the transform's result for an input of `shape`."""
        return self._transform.forward_shape(shape)

    def _values(self) -> tuple[Any, ...]:
        return (self._transform,)


def sum_rightmost(value: Tensor, dim: int) -> Tensor:
    """The sum over the last `dim` axes."""
    return sum(value.reshape(*value.shape[: value.ndim - dim], -1), -1) if dim else value


class ComposeTransform(Transform):
    """Several transforms, the first of which is applied first."""

    def __init__(self, parts: Sequence[Transform], cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.parts = [part.with_cache(cache_size) if cache_size else part for part in parts]
        self.bijective = all(part.bijective for part in self.parts)

    @property
    def domain(self) -> Any:
        """What the first transform takes."""
        if not self.parts:
            return constraints.real
        dims = self.parts[-1].codomain.event_dim
        for part in reversed(self.parts):
            dims += part.domain.event_dim - part.codomain.event_dim
            dims = max(dims, part.domain.event_dim)
        return _wider(self.parts[0].domain, dims)

    @property
    def codomain(self) -> Any:
        """What the last transform gives."""
        if not self.parts:
            return constraints.real
        dims = self.parts[0].domain.event_dim
        for part in self.parts:
            dims += part.codomain.event_dim - part.domain.event_dim
            dims = max(dims, part.codomain.event_dim)
        return _wider(self.parts[-1].codomain, dims)

    def _sign(self) -> Any:
        return math.prod(part.sign for part in self.parts)

    def _call(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x

    def _inverse(self, y: Tensor) -> Tensor:
        for part in reversed(self.parts):
            y = part._inv_call(y)
        return y

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.parts:
            return x * 0
        dims, total = self.domain.event_dim, None
        for i, part in enumerate(self.parts):
            out = y if i == len(self.parts) - 1 else part(x)
            slope = part.log_abs_det_jacobian(x, out)
            slope = sum_rightmost(slope, dims - part.domain.event_dim)
            total = slope if total is None else total + slope
            dims += part.codomain.event_dim - part.domain.event_dim
            x = out
        assert total is not None
        return total

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape behind the last transform."""
        for part in self.parts:
            shape = part.forward_shape(shape)
        return tuple(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape before the first transform."""
        for part in reversed(self.parts):
            shape = part.inverse_shape(shape)
        return tuple(shape)

    def _values(self) -> tuple[Any, ...]:
        return tuple(self.parts)


def _wider(constraint: Any, dims: int) -> Any:
    more = dims - constraint.event_dim
    return constraints.independent(constraint, more) if more else constraint


identity_transform = ComposeTransform([])


class IndependentTransform(Transform):
    """`base_transform`, with `reinterpreted_batch_ndims` more axes making one value."""

    def __init__(
        self, base_transform: Transform, reinterpreted_batch_ndims: int, cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.base_transform = base_transform
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        self.bijective = base_transform.bijective
        count = reinterpreted_batch_ndims
        self.domain = constraints.independent(base_transform.domain, count)  # type: ignore[misc]
        self.codomain = constraints.independent(base_transform.codomain, count)  # type: ignore[misc]

    def _sign(self) -> Any:
        return self.base_transform.sign

    def _call(self, x: Tensor) -> Tensor:
        return self.base_transform(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.base_transform._inv_call(y)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        slope = self.base_transform.log_abs_det_jacobian(x, y)
        return sum_rightmost(slope, self.reinterpreted_batch_ndims)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The base transform's."""
        return self.base_transform.forward_shape(shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The base transform's."""
        return self.base_transform.inverse_shape(shape)

    def _values(self) -> tuple[Any, ...]:
        return self.base_transform, self.reinterpreted_batch_ndims


class ReshapeTransform(Transform):
    """Values of shape `in_shape` as values of `out_shape`, of as many elements."""

    bijective = True

    def __init__(
        self, in_shape: Sequence[int], out_shape: Sequence[int], cache_size: int = 0
    ) -> None:
        super().__init__(cache_size)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        if math.prod(self.in_shape) != math.prod(self.out_shape):
            raise ShapeError("both shapes need the same number of elements",
                             operator="ReshapeTransform",
                             got=f"{self.in_shape}, {self.out_shape}")  # fmt: skip
        self.domain = constraints.independent(constraints.real, len(self.in_shape))  # type: ignore[misc]
        self.codomain = constraints.independent(constraints.real, len(self.out_shape))  # type: ignore[misc]

    def _call(self, x: Tensor) -> Tensor:
        return x.reshape(*self.forward_shape(x.shape))

    def _inverse(self, y: Tensor) -> Tensor:
        return y.reshape(*self.inverse_shape(y.shape))

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        return x.new_zeros(x.shape[: x.ndim - len(self.in_shape)])

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape` with out_shape at its end in place of in_shape."""
        return _exchanged(shape, self.in_shape, self.out_shape)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape` with in_shape at its end in place of out_shape."""
        return _exchanged(shape, self.out_shape, self.in_shape)

    def _values(self) -> tuple[Any, ...]:
        return self.in_shape, self.out_shape


def _exchanged(shape: tuple[int, ...], old: tuple[int, ...], new: tuple[int, ...]) -> tuple:
    cut = len(shape) - len(old)
    if cut < 0 or tuple(shape[cut:]) != old:
        raise ShapeError(f"values must end in {old}", operator="ReshapeTransform", got=str(shape))
    return (*shape[:cut], *new)


class ExpTransform(Transform):
    """y = exp(x)."""

    codomain = constraints.positive
    bijective = True

    def _sign(self) -> int:
        return 1

    def _call(self, x: Tensor) -> Tensor:
        return exp(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(y)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class PowerTransform(Transform):
    """y = x ** exponent, for positive numbers."""

    domain = constraints.positive
    codomain = constraints.positive
    bijective = True

    def __init__(self, exponent: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.exponent = exponent

    def _sign(self) -> Any:
        if type(self.exponent) is Tensor:
            return sign(self.exponent)
        return math.copysign(1, self.exponent)

    def _call(self, x: Tensor) -> Tensor:
        return x**self.exponent

    def _inverse(self, y: Tensor) -> Tensor:
        return y ** (1 / self.exponent)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        return log(abs(self.exponent * y / x))

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape` broadcast with the exponent's."""
        return broadcast_shapes(shape, _shape(self.exponent))

    inverse_shape = forward_shape

    def _values(self) -> tuple[Any, ...]:
        return (self.exponent,)


def _clipped_sigmoid(x: Tensor) -> Tensor:
    """Never 0 nor 1, whose inverses are infinite."""
    limits = finfo(x.dtype)
    return clamp(sigmoid(x), limits.tiny, 1 - limits.eps)


class SigmoidTransform(Transform):
    """y = 1 / (1 + exp(-x))."""

    codomain = constraints.unit_interval
    bijective = True

    def _sign(self) -> int:
        return 1

    def _call(self, x: Tensor) -> Tensor:
        return _clipped_sigmoid(x)

    def _inverse(self, y: Tensor) -> Tensor:
        limits = finfo(y.dtype)
        y = clamp(y, limits.tiny, 1 - limits.eps)
        return log(y) - log1p(-y)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x) - softplus(x)


class SoftplusTransform(Transform):
    """y = log(1 + exp(x))."""

    codomain = constraints.positive
    bijective = True

    def _sign(self) -> int:
        return 1

    def _call(self, x: Tensor) -> Tensor:
        return softplus(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(-(-y).expm1()) + y

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        return -softplus(-x)


class TanhTransform(Transform):
    """y = tanh(x); a cache keeps the inverse from losing the digits near -1 and 1."""

    codomain = constraints.interval(-1.0, 1.0)
    bijective = True

    def _sign(self) -> int:
        return 1

    def _call(self, x: Tensor) -> Tensor:
        return tanh(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return atanh(y)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        return (math.log(2) - x - softplus(x * -2)) * 2


class AbsTransform(Transform):
    """y = |x|; the inverse gives the positive origin."""

    codomain = constraints.positive

    def _call(self, x: Tensor) -> Tensor:
        return abs(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return y


class AffineTransform(Transform):
    """y = loc + scale * x, elementwise; event_dim last axes make one value."""

    bijective = True

    def __init__(self, loc: Any, scale: Any, event_dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.loc, self.scale, self._event_dim = loc, scale, event_dim
        kind = _wider(constraints.real, event_dim)
        self.domain = self.codomain = kind  # type: ignore[misc]

    def _sign(self) -> Any:
        if type(self.scale) is Tensor:
            return sign(self.scale)
        return 0 if self.scale == 0 else math.copysign(1, self.scale)

    def _call(self, x: Tensor) -> Tensor:
        return self.loc + x * self.scale

    def _inverse(self, y: Tensor) -> Tensor:
        return (y - self.loc) / self.scale

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        if type(self.scale) is Tensor:
            slope = log(abs(self.scale)).expand(*x.shape)
        else:
            slope = x.new_full(x.shape, math.log(math.fabs(self.scale)))
        return sum_rightmost(slope, self._event_dim)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape` broadcast with those of loc and scale."""
        return broadcast_shapes(shape, _shape(self.loc), _shape(self.scale))

    inverse_shape = forward_shape

    def _values(self) -> tuple[Any, ...]:
        return self.loc, self.scale


class SoftmaxTransform(Transform):
    """The softmax over the last axis: not bijective, but onto the simplex."""

    domain = constraints.real_vector
    codomain = constraints.simplex

    def _call(self, x: Tensor) -> Tensor:
        return softmax(x, -1)

    def _inverse(self, y: Tensor) -> Tensor:
        return log(y)


class StickBreakingTransform(Transform):
    """From K - 1 numbers to the simplex of K, by breaking a stick K - 1 times.

    Source: Stan's reference manual, "Unit simplex".
    """

    domain = constraints.real_vector
    codomain = constraints.simplex
    bijective = True

    def _steps(self, x: Tensor) -> Tensor:
        k = x.shape[-1]
        left = ones(k, dtype=x.dtype, device=x.device).cumsum(0).flip(0)
        return x - log(left)

    def _call(self, x: Tensor) -> Tensor:
        z = _clipped_sigmoid(self._steps(x))
        rest = cumprod(1 - z, -1)
        one = x.new_ones(*x.shape[:-1], 1)
        return cat([z, one], -1) * cat([one, rest], -1)

    def _inverse(self, y: Tensor) -> Tensor:
        cropped = y[..., :-1]
        k = cropped.shape[-1]
        left = ones(k, dtype=y.dtype, device=y.device).cumsum(0).flip(0)
        rest = clamp(1 - cropped.cumsum(-1), finfo(y.dtype).tiny)
        return log(cropped) - log(rest) + log(left)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        z = self._steps(x)
        return sum(log(y[..., :-1]) - z + logsigmoid(z), -1)

    def forward_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One element more in the last axis."""
        return (*shape[:-1], shape[-1] + 1)

    def inverse_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """One element less in the last axis."""
        return (*shape[:-1], shape[-1] - 1)


class LowerCholeskyTransform(Transform):
    """Square matrices to lower triangular ones with a positive diagonal, exp of theirs."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.lower_cholesky

    def _call(self, x: Tensor) -> Tensor:
        return tril(x, -1) + diag_embed(exp(diagonal(x, 0, -2, -1)))

    def _inverse(self, y: Tensor) -> Tensor:
        return tril(y, -1) + diag_embed(log(diagonal(y, 0, -2, -1)))


class PositiveDefiniteTransform(Transform):
    """Square matrices to symmetric positive definite ones, by way of their Cholesky factors."""

    domain = constraints.independent(constraints.real, 2)
    codomain = constraints.positive_definite

    def _call(self, x: Tensor) -> Tensor:
        factor = LowerCholeskyTransform()(x)
        return matmul(factor, transpose(factor, -1, -2))

    def _inverse(self, y: Tensor) -> Tensor:
        return LowerCholeskyTransform().inv(cholesky(y))


class CumulativeDistributionTransform(Transform):
    """Values of a distribution to the probability of less: a copula's margins."""

    codomain = constraints.unit_interval
    bijective = True

    def __init__(self, distribution: Any, cache_size: int = 0) -> None:
        super().__init__(cache_size)
        self.distribution = distribution

    @property
    def domain(self) -> Any:  # type: ignore[override]
        """The distribution's support."""
        return self.distribution.support

    def _sign(self) -> Any:
        return 1

    def _call(self, x: Tensor) -> Tensor:
        return self.distribution.cdf(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.distribution.icdf(y)

    def _log_slope(self, x: Tensor, y: Tensor) -> Tensor:
        return self.distribution.log_prob(x)

    def _values(self) -> tuple[Any, ...]:
        return (self.distribution,)
