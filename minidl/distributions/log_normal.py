"""The log-normal distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.normal import Normal
from minidl.distributions.transformed_distribution import TransformedDistribution
from minidl.distributions.transforms import ExpTransform
from minidl.ops.transcendental import exp, expm1
from minidl.tensor import Tensor

__all__ = ["LogNormal"]


class LogNormal(TransformedDistribution):
    """The distribution of exp(x) where x is normal with mean `loc` and deviation `scale`."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.positive  # type: ignore[assignment]

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        base = Normal(loc, scale, validate_args=validate_args)
        super().__init__(base, ExpTransform(), validate_args)

    @property
    def loc(self) -> Tensor:
        """The mean of the logarithm."""
        return self.base_dist.loc  # type: ignore[attr-defined]

    @property
    def scale(self) -> Tensor:
        """The standard deviation of the logarithm."""
        return self.base_dist.scale  # type: ignore[attr-defined]

    def _mean(self) -> Tensor:
        return exp(self.loc + self.scale * self.scale / 2)

    def _mode(self) -> Tensor:
        return exp(self.loc - self.scale * self.scale)

    def _variance(self) -> Tensor:
        square = self.scale * self.scale
        return expm1(square) * exp(self.loc * 2 + square)

    def _entropy(self) -> Tensor:
        return self.base_dist.entropy() + self.loc

    def __repr__(self) -> str:
        return repr(self.base_dist).replace("Normal", "LogNormal", 1)
