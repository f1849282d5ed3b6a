"""The Gumbel distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import EULER, broadcast_all
from minidl.dtypes import finfo
from minidl.ops.random import rand
from minidl.ops.transcendental import exp, log
from minidl.tensor import Tensor

__all__ = ["Gumbel"]


class Gumbel(Distribution):
    """The Gumbel distribution of mode `loc` and the given scale; both broadcast."""

    arg_constraints: ClassVar = {"loc": constraints.real, "scale": constraints.positive}
    support = constraints.real
    has_rsample = True

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        super().__init__(self.loc.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.loc + self.scale * EULER

    def _mode(self) -> Tensor:
        return self.loc

    def _variance(self) -> Tensor:
        return self.scale * self.scale * (math.pi**2 / 6)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        limits = finfo(self.loc.dtype)
        u = rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(
            limits.tiny, 1 - limits.eps
        )
        return self._icdf(u)

    def _log_prob(self, value: Tensor) -> Tensor:
        z = (self.loc - value) / self.scale
        return z - exp(z) - log(self.scale)

    def _cdf(self, value: Tensor) -> Tensor:
        return exp(-exp((self.loc - value) / self.scale))

    def _icdf(self, value: Tensor) -> Tensor:
        return self.loc - self.scale * log(-log(value))

    def _entropy(self) -> Tensor:
        return log(self.scale) + (1 + EULER)
