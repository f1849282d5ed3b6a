"""The Laplace distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.dtypes import finfo
from minidl.ops.arithmetic import abs, sign
from minidl.ops.random import rand
from minidl.ops.transcendental import expm1, log, log1p
from minidl.tensor import Tensor

__all__ = ["Laplace"]


class Laplace(Distribution):
    """The Laplace distribution of mean `loc` and mean deviation `scale`; both broadcast."""

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
        return self.scale * self.scale * 2

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        # in (-1, 1): the logarithm of 0 is not drawn
        u = rand(shape, dtype=self.loc.dtype, device=self.loc.device) * 2 - 1
        u = u.clamp(finfo(u.dtype).eps - 1, 1 - finfo(u.dtype).eps)
        return self.loc - self.scale * sign(u) * log1p(-abs(u))

    def _log_prob(self, value: Tensor) -> Tensor:
        return -log(self.scale * 2) - abs(value - self.loc) / self.scale

    def _cdf(self, value: Tensor) -> Tensor:
        z = value - self.loc
        return 0.5 - sign(z) * expm1(-abs(z) / self.scale) * 0.5

    def _icdf(self, value: Tensor) -> Tensor:
        term = value - 0.5
        return self.loc - self.scale * sign(term) * log1p(abs(term) * -2)

    def _entropy(self) -> Tensor:
        return log(self.scale) + (1 + math.log(2))
