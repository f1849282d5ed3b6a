"""The half-normal distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import HALF_LOG_TAU, broadcast_all
from minidl.ops.arithmetic import abs
from minidl.ops.random import randn
from minidl.ops.select import where
from minidl.ops.transcendental import erf, erfinv, log
from minidl.tensor import Tensor

__all__ = ["HalfNormal"]


class HalfNormal(Distribution):
    """The absolute value of a normal variable of mean 0 and standard deviation `scale`."""

    arg_constraints: ClassVar = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        (self.scale,) = broadcast_all(scale)
        super().__init__(self.scale.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.scale * math.sqrt(2 / math.pi)

    def _mode(self) -> Tensor:
        return self.scale.detach() * 0

    def _variance(self) -> Tensor:
        return self.scale * self.scale * (1 - 2 / math.pi)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return abs(randn(shape, dtype=self.scale.dtype, device=self.scale.device)) * self.scale

    def _log_prob(self, value: Tensor) -> Tensor:
        z = value / self.scale
        density = z * z * -0.5 - log(self.scale) + (math.log(2) - HALF_LOG_TAU)
        return where(value >= 0, density, -math.inf)

    def _cdf(self, value: Tensor) -> Tensor:
        return erf(value / self.scale * math.sqrt(0.5))

    def _icdf(self, value: Tensor) -> Tensor:
        return erfinv(value) * self.scale * math.sqrt(2)

    def _entropy(self) -> Tensor:
        return log(self.scale) + (0.5 + HALF_LOG_TAU - math.log(2))
