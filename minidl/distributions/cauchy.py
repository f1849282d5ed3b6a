"""The Cauchy distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.ops.random import rand
from minidl.ops.transcendental import atan, log, log1p, tan
from minidl.tensor import Tensor

__all__ = ["Cauchy"]


class Cauchy(Distribution):
    """The Cauchy distribution of median `loc` and half width `scale`; both broadcast."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.loc.detach() * math.nan

    def _mode(self) -> Tensor:
        return self.loc

    def _variance(self) -> Tensor:
        return self.loc.detach() * 0 + math.inf

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self._icdf(rand(shape, dtype=self.loc.dtype, device=self.loc.device))

    def _log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        return -math.log(math.pi) - log(self.scale) - log1p(z * z)

    def _cdf(self, value: Tensor) -> Tensor:
        return atan((value - self.loc) / self.scale) / math.pi + 0.5

    def _icdf(self, value: Tensor) -> Tensor:
        return tan((value - 0.5) * math.pi) * self.scale + self.loc

    def _entropy(self) -> Tensor:
        return log(self.scale) + math.log(4 * math.pi)
