"""The inverse gamma distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.gamma import Gamma
from minidl.distributions.transformed_distribution import TransformedDistribution
from minidl.distributions.transforms import PowerTransform
from minidl.ops.select import where
from minidl.ops.special import digamma, lgamma
from minidl.ops.transcendental import log
from minidl.tensor import Tensor

__all__ = ["InverseGamma"]


class InverseGamma(TransformedDistribution):
    """The distribution of 1 / x where x has a gamma distribution of `concentration` and `rate`."""

    arg_constraints: ClassVar = {
        "concentration": constraints.positive,
        "rate": constraints.positive,
    }
    support = constraints.positive  # type: ignore[assignment]

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        base = Gamma(concentration, rate, validate_args=validate_args)
        super().__init__(base, PowerTransform(-1.0), validate_args)

    @property
    def concentration(self) -> Tensor:
        """The shape of the gamma distribution."""
        return self.base_dist.concentration  # type: ignore[attr-defined]

    @property
    def rate(self) -> Tensor:
        """The rate of the gamma distribution, the scale of this one."""
        return self.base_dist.rate  # type: ignore[attr-defined]

    def _mean(self) -> Tensor:
        a = self.concentration
        return where(a > 1, self.rate / where(a > 1, a - 1, 1.0), math.inf)

    def _mode(self) -> Tensor:
        return self.rate / (self.concentration + 1)

    def _variance(self) -> Tensor:
        a = self.concentration
        there = a > 2
        first, second = where(there, a - 1, 1.0), where(there, a - 2, 1.0)
        return where(there, self.rate * self.rate / (first * first * second), math.inf)

    def _entropy(self) -> Tensor:
        a = self.concentration
        return a + log(self.rate) + lgamma(a) - (1 + a) * digamma(a)

    def __repr__(self) -> str:
        return repr(self.base_dist).replace("Gamma", "InverseGamma", 1)
