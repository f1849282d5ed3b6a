"""The Weibull distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import EULER, broadcast_all
from minidl.ops.random import rand
from minidl.ops.select import where
from minidl.ops.special import lgamma
from minidl.ops.transcendental import exp, expm1, log, log1p
from minidl.tensor import Tensor

__all__ = ["Weibull"]


class Weibull(Distribution):
    """`scale` times the power 1 / concentration of an exponential variable; both broadcast."""

    arg_constraints: ClassVar = {
        "scale": constraints.positive,
        "concentration": constraints.positive,
    }
    support = constraints.positive
    has_rsample = True

    def __init__(self, scale: Any, concentration: Any, validate_args: bool | None = None) -> None:
        self.scale, self.concentration = broadcast_all(scale, concentration)
        super().__init__(self.scale.shape, validate_args=validate_args)

    def _moment(self, order: int) -> Tensor:
        return exp(lgamma(1 + order / self.concentration))

    def _mean(self) -> Tensor:
        return self.scale * self._moment(1)

    def _mode(self) -> Tensor:
        k = self.concentration
        return where(k > 1, self.scale * ((k - 1) / k).clamp(min=0) ** (1 / k), 0.0)

    def _variance(self) -> Tensor:
        first = self._moment(1)
        return self.scale * self.scale * (self._moment(2) - first * first)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self._icdf(rand(shape, dtype=self.scale.dtype, device=self.scale.device))

    def _log_prob(self, value: Tensor) -> Tensor:
        k = self.concentration
        z = log(value / self.scale)
        return log(k / self.scale) + (k - 1) * z - exp(k * z)

    def _cdf(self, value: Tensor) -> Tensor:
        return -expm1(-((value / self.scale) ** self.concentration))

    def _icdf(self, value: Tensor) -> Tensor:
        return self.scale * (-log1p(-value)) ** (1 / self.concentration)

    def _entropy(self) -> Tensor:
        k = self.concentration
        return (1 - 1 / k) * EULER + log(self.scale / k) + 1
