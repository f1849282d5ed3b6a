"""Transforms from all real numbers to the values that a constraint allows.

`biject_to(constraint)` is bijective, with a Jacobian: for sampling and changes of variables;
`transform_to(constraint)` may map several numbers to one value: for optimisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minidl.distributions import constraints, transforms
from minidl.errors import DTypeError, UnsupportedError

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]


class ConstraintRegistry:
    """Constraint -> function that makes its transform; a constraint or a class of them is a key."""

    def __init__(self) -> None:
        self._registry: dict[Any, Callable[[Any], transforms.Transform]] = {}

    def register(self, constraint: Any, factory: Callable | None = None) -> Any:
        """Set the function for a constraint, or for all of a class; also as a decorator."""
        if factory is None:
            return lambda function: self.register(constraint, function)
        kind = constraint if isinstance(constraint, type) else type(constraint)
        if not issubclass(kind, constraints.Constraint):
            raise DTypeError("needs a constraint or a class of them", operator="register",
                             got=repr(constraint))  # fmt: skip
        self._registry[constraint] = factory
        return factory

    def __call__(self, constraint: Any) -> transforms.Transform:
        """The transform of a constraint; UnsupportedError where none is registered."""
        for key in (constraint, type(constraint)):
            if key in self._registry:
                return self._registry[key](constraint)
        raise UnsupportedError("no transform is registered for this constraint; add one with"
                               " register", got=repr(constraint))  # fmt: skip


biject_to = ConstraintRegistry()
transform_to = ConstraintRegistry()


def _identity(constraint: Any) -> transforms.Transform:
    return transforms.identity_transform


def _above(constraint: Any) -> transforms.Transform:
    exp, low = transforms.ExpTransform(), constraint.lower_bound
    if type(low) is float and low == 0:
        return exp
    return transforms.ComposeTransform([exp, transforms.AffineTransform(low, 1)])


def _below(constraint: Any) -> transforms.Transform:
    shift = transforms.AffineTransform(constraint.upper_bound, -1)
    return transforms.ComposeTransform([transforms.ExpTransform(), shift])


def _between(constraint: Any) -> transforms.Transform:
    low, high = constraint.lower_bound, constraint.upper_bound
    sigmoid = transforms.SigmoidTransform()
    if type(low) is type(high) is float and (low, high) == (0, 1):
        return sigmoid
    return transforms.ComposeTransform([sigmoid, transforms.AffineTransform(low, high - low)])


def _independent(registry: ConstraintRegistry) -> Callable[[Any], transforms.Transform]:
    return lambda c: transforms.IndependentTransform(
        registry(c.base_constraint), c.reinterpreted_batch_ndims
    )


for _registry in (biject_to, transform_to):
    _registry.register(constraints.real, _identity)
    _registry.register(constraints.independent, _independent(_registry))
    for _kind in (constraints.greater_than, constraints.greater_than_eq):
        _registry.register(_kind, _above)
    _registry.register(constraints.less_than, _below)
    for _kind in (constraints.interval, constraints.half_open_interval):
        _registry.register(_kind, _between)
biject_to.register(constraints.simplex, lambda c: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda c: transforms.SoftmaxTransform())
transform_to.register(constraints.lower_cholesky, lambda c: transforms.LowerCholeskyTransform())
transform_to.register(
    constraints.positive_definite, lambda c: transforms.PositiveDefiniteTransform()
)
