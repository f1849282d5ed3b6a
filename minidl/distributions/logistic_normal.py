"""The logistic-normal distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.normal import Normal
from minidl.distributions.transformed_distribution import TransformedDistribution
from minidl.distributions.transforms import StickBreakingTransform
from minidl.tensor import Tensor

__all__ = ["LogisticNormal"]


class LogisticNormal(TransformedDistribution):
    """Points of the simplex: normal numbers, independent, broken off a stick one after the other.

    loc, scale: (..., n); draws (..., n + 1) sum to 1.
    """

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.simplex  # type: ignore[assignment]

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args=validate_args)
        base = base if base.batch_shape else base.expand((1,))
        super().__init__(base, StickBreakingTransform(), validate_args)

    @property
    def loc(self) -> Tensor:
        """The means of the normal numbers."""
        return self.base_dist.base_dist.loc  # type: ignore[attr-defined]

    @property
    def scale(self) -> Tensor:
        """The standard deviations of the normal numbers."""
        return self.base_dist.base_dist.scale  # type: ignore[attr-defined]

    def __repr__(self) -> str:
        return repr(self.base_dist.base_dist).replace("Normal", "LogisticNormal", 1)  # type: ignore[attr-defined]
