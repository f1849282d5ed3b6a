"""The exponential distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.ops.random import rand
from minidl.ops.transcendental import expm1, log, log1p
from minidl.tensor import Tensor

__all__ = ["Exponential"]


class Exponential(Distribution):
    """The exponential distribution of the given rate, whose mean is 1 / rate."""

    arg_constraints: ClassVar = {"rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return 1 / self.rate

    def _mode(self) -> Tensor:
        return self.rate.detach() * 0

    def _variance(self) -> Tensor:
        return self.rate**-2

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return -log1p(-rand(shape, dtype=self.rate.dtype, device=self.rate.device)) / self.rate

    def _log_prob(self, value: Tensor) -> Tensor:
        return log(self.rate) - self.rate * value

    def _cdf(self, value: Tensor) -> Tensor:
        return -expm1(-self.rate * value)

    def _icdf(self, value: Tensor) -> Tensor:
        return -log1p(-value) / self.rate

    def _entropy(self) -> Tensor:
        return 1 - log(self.rate)
