"""The F distribution of Fisher and Snedecor."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.gamma import Gamma
from minidl.distributions.utils import broadcast_all
from minidl.ops.select import where
from minidl.ops.special import lgamma, xlogy
from minidl.ops.transcendental import log, log1p
from minidl.tensor import Tensor

__all__ = ["FisherSnedecor"]


class FisherSnedecor(Distribution):
    """The ratio of two chi-squared variables, each over its degrees of freedom df1, df2."""

    arg_constraints: ClassVar = {"df1": constraints.positive, "df2": constraints.positive}
    support = constraints.positive
    has_rsample = True

    def __init__(self, df1: Any, df2: Any, validate_args: bool | None = None) -> None:
        self.df1, self.df2 = broadcast_all(df1, df2)
        super().__init__(self.df1.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        there = self.df2 > 2
        return where(there, self.df2 / where(there, self.df2 - 2, 1.0), math.nan)

    def _mode(self) -> Tensor:
        mode = (self.df1 - 2) / self.df1 * self.df2 / (self.df2 + 2)
        return where(self.df1 > 2, mode, math.nan)

    def _variance(self) -> Tensor:
        there = self.df2 > 4
        n, m = self.df1, where(there, self.df2, 5.0)
        mean = m / (m - 2)
        return where(there, 2 * mean * mean * (n + m - 2) / (n * (m - 4)), math.nan)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        above, below = (Gamma(df / 2, df / 2)._draw(shape) for df in (self.df1, self.df2))
        return above / below

    def _log_prob(self, value: Tensor) -> Tensor:
        a, b, ratio = self.df1 / 2, self.df2 / 2, self.df1 / self.df2
        scale = lgamma(a + b) - lgamma(a) - lgamma(b)
        return scale + a * log(ratio) + xlogy(a - 1, value) - (a + b) * log1p(ratio * value)
