"""The uniform distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.errors import ArgumentError
from minidl.ops.compare import ge, gt
from minidl.ops.convert import cast
from minidl.ops.random import rand
from minidl.ops.transcendental import log
from minidl.tensor import Tensor

__all__ = ["Uniform"]


class Uniform(Distribution):
    """The uniform distribution on [low, high); both broadcast."""

    arg_constraints: ClassVar = {
        "low": constraints.dependent,
        "high": constraints.dependent,
    }
    has_rsample = True

    def __init__(self, low: Any, high: Any, validate_args: bool | None = None) -> None:
        self.low, self.high = broadcast_all(low, high)
        super().__init__(self.low.shape, validate_args=validate_args)
        if self._validate_args and not bool(gt(self.high, self.low).all()):
            raise ArgumentError("parameter low must be less than high", operator="Uniform",
                                got=f"{self.low.detach()}, {self.high.detach()}")  # fmt: skip

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """[low, high]: the upper end counts as a value of density 0."""
        return constraints.interval(self.low, self.high)

    def _mean(self) -> Tensor:
        return (self.low + self.high) * 0.5

    def _mode(self) -> Tensor:
        return self.low * float("nan")

    def _variance(self) -> Tensor:
        width = self.high - self.low
        return width * width / 12

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self.low + rand(shape, dtype=self.low.dtype, device=self.low.device) * (
            self.high - self.low
        )

    def _log_prob(self, value: Tensor) -> Tensor:
        inside = ge(value, self.low).logical_and(gt(self.high, value))
        return log(cast(inside, self.low.dtype)) - log(self.high - self.low)

    def _cdf(self, value: Tensor) -> Tensor:
        return ((value - self.low) / (self.high - self.low)).clamp(0, 1)

    def _icdf(self, value: Tensor) -> Tensor:
        return value * (self.high - self.low) + self.low

    def _entropy(self) -> Tensor:
        return log(self.high - self.low)
