"""The half-Cauchy distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.ops.random import rand
from minidl.ops.select import where
from minidl.ops.transcendental import atan, log, log1p, tan
from minidl.tensor import Tensor

__all__ = ["HalfCauchy"]


class HalfCauchy(Distribution):
    """The absolute value of a Cauchy variable of median 0 and half width `scale`."""

    arg_constraints: ClassVar = {"scale": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, scale: Any, validate_args: bool | None = None) -> None:
        (self.scale,) = broadcast_all(scale)
        super().__init__(self.scale.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.scale.detach() * 0 + math.inf

    def _mode(self) -> Tensor:
        return self.scale.detach() * 0

    def _variance(self) -> Tensor:
        return self.scale.detach() * 0 + math.inf

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self._icdf(rand(shape, dtype=self.scale.dtype, device=self.scale.device))

    def _log_prob(self, value: Tensor) -> Tensor:
        z = value / self.scale
        density = math.log(2 / math.pi) - log(self.scale) - log1p(z * z)
        return where(value >= 0, density, -math.inf)

    def _cdf(self, value: Tensor) -> Tensor:
        return atan(value / self.scale) * (2 / math.pi)

    def _icdf(self, value: Tensor) -> Tensor:
        return tan(value * (math.pi / 2)) * self.scale

    def _entropy(self) -> Tensor:
        return log(self.scale) + math.log(2 * math.pi)
