"""Sets of values that parameters and samples may have: `constraints.positive.check(x)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd.op import constant
from minidl.backends import kernels_for
from minidl.errors import ArgumentError, UnsupportedError
from minidl.ops.compare import ge, gt, le, logical_and, lt
from minidl.ops.reduce import all as all_of, sum
from minidl.tensor import Tensor

__all__ = [
    "Constraint",
    "boolean",
    "dependent",
    "dependent_property",
    "greater_than",
    "greater_than_eq",
    "half_open_interval",
    "independent",
    "integer_interval",
    "interval",
    "is_dependent",
    "less_than",
    "lower_cholesky",
    "lower_triangular",
    "multinomial",
    "nonnegative",
    "nonnegative_integer",
    "one_hot",
    "positive",
    "positive_definite",
    "positive_integer",
    "real",
    "real_vector",
    "simplex",
    "square",
    "symmetric",
    "unit_interval",
]


class Constraint:
    """A set of tensors: `check` says which values lie in it.

    event_dim: how many last axes make one value; is_discrete: whether the set is countable.
    """

    is_discrete = False
    event_dim = 0

    def check(self, value: Tensor) -> Tensor:
        """Whether the values lie in the set: bool, without the last `event_dim` axes."""
        raise UnsupportedError("check is not defined", operator=type(self).__name__)

    def __repr__(self) -> str:
        return f"{type(self).__name__.strip('_').title().replace('_', '')}()"


class _Dependent(Constraint):
    """A set that depends on other parameters; it cannot be checked by itself."""

    def __init__(self, *, is_discrete: bool = False, event_dim: int = 0) -> None:
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, *, is_discrete: bool = False, event_dim: int = 0) -> _Dependent:
        return _Dependent(is_discrete=is_discrete, event_dim=event_dim)


def is_dependent(constraint: Any) -> bool:
    """Whether the constraint is known to an instance of the distribution only."""
    return isinstance(constraint, _Dependent | dependent_property)


class dependent_property(property):  # noqa: N801 - PyTorch's name
    """A property that gives an instance's constraint; on the class it is the property itself."""

    def __init__(
        self,
        fget: Callable[[Any], Constraint] | None = None,
        *,
        is_discrete: bool = False,
        event_dim: int = 0,
    ) -> None:
        super().__init__(fget)
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, fget: Callable[[Any], Constraint]) -> dependent_property:
        """Decorate the function of the instance."""
        return dependent_property(fget, is_discrete=self.is_discrete, event_dim=self.event_dim)


class _Where(Constraint):
    """The values for which a function of the tensor holds."""

    def __init__(
        self,
        name: str,
        holds: Callable[[Tensor], Tensor],
        is_discrete: bool = False,
        event_dim: int = 0,
    ) -> None:
        self.name, self.holds = name, holds
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def check(self, value: Tensor) -> Tensor:
        return self.holds(value)

    def __repr__(self) -> str:
        return self.name


def _whole(value: Tensor) -> Tensor:
    return value % 1 == 0 if value.is_floating_point() else value == value  # not inf nor NaN


def _matrices(check: Callable[[np.ndarray], np.ndarray]) -> Callable[[Tensor], Tensor]:
    """A check of matrices as NumPy arrays: (..., n, n) to (...)."""

    def checked(value: Tensor) -> Tensor:
        k: Any = kernels_for(value.array)
        return constant(k.asarray(np.asarray(check(k.host(value.array)))))

    return checked


def _is_square(x: np.ndarray) -> np.ndarray:
    return np.full(x.shape[:-2], x.shape[-1] == x.shape[-2])


def _is_symmetric(x: np.ndarray) -> np.ndarray:
    if x.shape[-1] != x.shape[-2]:
        return _is_square(x)
    return np.asarray(np.isclose(x, np.swapaxes(x, -1, -2), atol=1e-6).all((-2, -1)))


def _is_lower(x: np.ndarray) -> np.ndarray:
    return (np.tril(x) == x).all((-2, -1))


def _is_factor(x: np.ndarray) -> np.ndarray:
    return _is_lower(x) & (np.diagonal(x, 0, -2, -1) > 0).all(-1)


def _is_positive_definite(x: np.ndarray) -> np.ndarray:
    found = np.array(_is_symmetric(x))
    for i in np.ndindex(found.shape):
        if found[i]:
            found[i] = np.linalg.eigvalsh(x[i]).min(initial=np.inf) > 0
    return found


def _is_simplex(value: Tensor) -> Tensor:
    near = (sum(value, -1) - 1).abs() < 1e-6
    return logical_and(all_of(ge(value, 0), -1), near)


def _is_one_hot(value: Tensor) -> Tensor:
    return logical_and(all_of(boolean.check(value), -1), sum(value, -1) == 1)


class _Bounded(Constraint):
    """Numbers between bounds, numbers or tensors; None is no bound."""

    def __init__(self, lower_bound: Any = None, upper_bound: Any = None) -> None:
        self.lower_bound, self.upper_bound = lower_bound, upper_bound

    above: Any = staticmethod(ge)
    below: Any = staticmethod(le)

    def check(self, value: Tensor) -> Tensor:
        checks = []
        if self.lower_bound is not None:
            checks.append(self.above(value, self.lower_bound))
        if self.upper_bound is not None:
            checks.append(self.below(value, self.upper_bound))
        return logical_and(*checks) if len(checks) == 2 else checks[0]

    def __repr__(self) -> str:
        name = type(self).__name__.title().replace("_", "")
        bounds = {"lower_bound": self.lower_bound, "upper_bound": self.upper_bound}
        shown = [f"{word}={bound}" for word, bound in bounds.items() if bound is not None]
        return f"{name}({', '.join(shown)})"


class interval(_Bounded):  # noqa: N801
    """[lower_bound, upper_bound]."""


class half_open_interval(_Bounded):  # noqa: N801
    """[lower_bound, upper_bound)."""

    below = staticmethod(lt)


class greater_than(_Bounded):  # noqa: N801
    """Numbers above `lower_bound`."""

    above = staticmethod(gt)


class greater_than_eq(_Bounded):  # noqa: N801
    """Numbers of at least `lower_bound`."""


class less_than(_Bounded):  # noqa: N801
    """Numbers below `upper_bound`."""

    below = staticmethod(lt)

    def __init__(self, upper_bound: Any) -> None:
        super().__init__(None, upper_bound)


class integer_interval(_Bounded):  # noqa: N801
    """Whole numbers in [lower_bound, upper_bound]."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        """Whether the values are whole and between the bounds."""
        return logical_and(_whole(value), super().check(value))


class multinomial(Constraint):  # noqa: N801
    """Counts of at least 0 that add up to at most `upper_bound`, in the last axis."""

    is_discrete = True
    event_dim = 1

    def __init__(self, upper_bound: Any) -> None:
        self.upper_bound = upper_bound

    def check(self, x: Tensor) -> Tensor:
        """Whether the rows are counts of no more trials than there were."""
        return logical_and(all_of(ge(x, 0), -1), le(sum(x, -1), self.upper_bound))


class independent(Constraint):  # noqa: N801
    """Values of `base_constraint` of which `reinterpreted_batch_ndims` more axes make one."""

    def __init__(self, base_constraint: Any, reinterpreted_batch_ndims: int) -> None:
        self.base_constraint = base_constraint
        self.reinterpreted_batch_ndims = reinterpreted_batch_ndims
        self.is_discrete = base_constraint.is_discrete
        self.event_dim = base_constraint.event_dim + reinterpreted_batch_ndims

    def check(self, value: Tensor) -> Tensor:
        """Whether all values along the reinterpreted axes lie in the set."""
        found = self.base_constraint.check(value)
        count = self.reinterpreted_batch_ndims
        if found.ndim < count:
            raise ArgumentError(f"a value needs {self.event_dim} axes", operator="independent",
                                got=str(value.shape))  # fmt: skip
        shape = found.shape[: found.ndim - count]
        return all_of(found.reshape(*shape, -1), -1) if count else found

    def __repr__(self) -> str:
        return f"Independent({self.base_constraint!r}, {self.reinterpreted_batch_ndims})"


def _number(value: Tensor) -> Tensor:
    return value == value  # NaN is no number, infinities are


dependent = _Dependent()
boolean = _Where("Boolean()", lambda x: (x == 0).logical_or(x == 1), is_discrete=True)
nonnegative_integer = _Where(
    "NonnegativeInteger()", lambda x: logical_and(_whole(x), ge(x, 0)), is_discrete=True
)
positive_integer = _Where(
    "PositiveInteger()", lambda x: logical_and(_whole(x), ge(x, 1)), is_discrete=True
)
real = _Where("Real()", _number)
real_vector = independent(real, 1)
positive = greater_than(0.0)
nonnegative = greater_than_eq(0.0)
unit_interval = interval(0.0, 1.0)
simplex = _Where("Simplex()", _is_simplex, event_dim=1)
one_hot = _Where("OneHot()", _is_one_hot, is_discrete=True, event_dim=1)
square = _Where("Square()", _matrices(_is_square), event_dim=2)
symmetric = _Where("Symmetric()", _matrices(_is_symmetric), event_dim=2)
lower_triangular = _Where("LowerTriangular()", _matrices(_is_lower), event_dim=2)
lower_cholesky = _Where("LowerCholesky()", _matrices(_is_factor), event_dim=2)
positive_definite = _Where("PositiveDefinite()", _matrices(_is_positive_definite), event_dim=2)
