"""The Poisson distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.ops.sampling import poisson
from minidl.ops.special import lgamma, xlogy
from minidl.ops.transcendental import floor
from minidl.tensor import Tensor

__all__ = ["Poisson"]


class Poisson(Distribution):
    """The Poisson distribution of mean `rate`."""

    arg_constraints: ClassVar = {"rate": constraints.nonnegative}
    support = constraints.nonnegative_integer

    def __init__(self, rate: Any, validate_args: bool | None = None) -> None:
        (self.rate,) = broadcast_all(rate)
        super().__init__(self.rate.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.rate

    def _mode(self) -> Tensor:
        return floor(self.rate)

    def _variance(self) -> Tensor:
        return self.rate

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return poisson(self.rate.expand(*shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        return xlogy(value, self.rate) - self.rate - lgamma(value + 1)
