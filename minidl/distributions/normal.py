"""The normal distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import HALF_LOG_TAU, broadcast_all
from minidl.ops.random import randn
from minidl.ops.special import ndtr
from minidl.ops.transcendental import erfinv, log
from minidl.tensor import Tensor

__all__ = ["Normal"]


class Normal(Distribution):
    """The normal distribution of mean `loc` and standard deviation `scale`; both broadcast."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.loc

    def _mode(self) -> Tensor:
        return self.loc

    def _variance(self) -> Tensor:
        return self.scale * self.scale

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self.loc + randn(shape, dtype=self.loc.dtype, device=self.loc.device) * self.scale

    def _log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        return z * z * -0.5 - log(self.scale) - HALF_LOG_TAU

    def _cdf(self, value: Tensor) -> Tensor:
        return ndtr((value - self.loc) / self.scale)

    def _icdf(self, value: Tensor) -> Tensor:
        return self.loc + self.scale * erfinv(value * 2 - 1) * math.sqrt(2)

    def _entropy(self) -> Tensor:
        return log(self.scale) + (0.5 + HALF_LOG_TAU)
