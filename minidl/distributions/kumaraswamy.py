"""Kumaraswamy's distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import EULER, broadcast_all
from minidl.ops.compare import logical_and
from minidl.ops.random import rand
from minidl.ops.select import where
from minidl.ops.special import digamma, lgamma, xlogy
from minidl.ops.transcendental import exp, expm1, log, log1p
from minidl.tensor import Tensor

__all__ = ["Kumaraswamy"]


class Kumaraswamy(Distribution):
    """Numbers in [0, 1] with the distribution function 1 - (1 - x ** a) ** b.

    a: `concentration1`, b: `concentration0`; both broadcast. Source: Kumaraswamy, "A generalized
    probability density function for double-bounded random processes", 1980.
    """

    arg_constraints: ClassVar = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        self.concentration1, self.concentration0 = broadcast_all(concentration1, concentration0)
        super().__init__(self.concentration1.shape, validate_args=validate_args)

    def _moment(self, order: int) -> Tensor:
        a, b = 1 + order / self.concentration1, self.concentration0
        return b * exp(lgamma(a) + lgamma(b) - lgamma(a + b))

    def _mean(self) -> Tensor:
        return self._moment(1)

    def _mode(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        inside = logical_and(logical_and(a >= 1, b >= 1), a * b > 1)  # else at an end, or all over
        return where(inside, (where(inside, (a - 1) / (a * b - 1), 0.5)) ** (1 / a), math.nan)

    def _variance(self) -> Tensor:
        first = self._moment(1)
        return self._moment(2) - first * first

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self._icdf(
            rand(shape, dtype=self.concentration1.dtype, device=self.concentration1.device)
        )

    def _log_prob(self, value: Tensor) -> Tensor:
        a, b = self.concentration1, self.concentration0
        return log(a) + log(b) + xlogy(a - 1, value) + xlogy(b - 1, 1 - value**a)

    def _cdf(self, value: Tensor) -> Tensor:
        return -expm1(self.concentration0 * log1p(-(value**self.concentration1)))

    def _icdf(self, value: Tensor) -> Tensor:
        return (-expm1(log1p(-value) / self.concentration0)) ** (1 / self.concentration1)

    def _entropy(self) -> Tensor:
        a, b = self.concentration1, self.concentration0
        return (1 - 1 / b) + (1 - 1 / a) * (digamma(b + 1) + EULER) - log(a) - log(b)
