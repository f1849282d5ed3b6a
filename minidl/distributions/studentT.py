"""Student's t distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.chi2 import Chi2
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.ops.random import randn
from minidl.ops.select import where
from minidl.ops.special import digamma, lgamma
from minidl.ops.transcendental import log, log1p, rsqrt
from minidl.tensor import Tensor

__all__ = ["StudentT"]


class StudentT(Distribution):
    """Student's t distribution with `df` degrees of freedom, moved by `loc`, times `scale`."""

    arg_constraints: ClassVar = {
        "df": constraints.positive,
        "loc": constraints.real,
        "scale": constraints.positive,
    }
    support = constraints.real
    has_rsample = True

    def __init__(
        self, df: Any, loc: Any = 0.0, scale: Any = 1.0, validate_args: bool | None = None
    ) -> None:
        self.df, self.loc, self.scale = broadcast_all(df, loc, scale)
        super().__init__(self.df.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return where(self.df > 1, self.loc, math.nan)

    def _mode(self) -> Tensor:
        return self.loc

    def _variance(self) -> Tensor:
        finite = self.scale * self.scale * self.df / (self.df - 2)
        return where(self.df > 2, finite, where(self.df > 1, self.df * 0 + math.inf, math.nan))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        z = randn(shape, dtype=self.df.dtype, device=self.df.device)
        chi2 = Chi2(self.df, validate_args=False)._draw(shape)
        return self.loc + self.scale * (z * rsqrt(chi2 / self.df))

    def _log_prob(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        norm = (
            log(self.scale)
            + log(self.df) * 0.5
            + 0.5 * math.log(math.pi)
            + lgamma(self.df * 0.5)
            - lgamma((self.df + 1) * 0.5)
        )
        return (self.df + 1) * -0.5 * log1p(z * z / self.df) - norm

    def _entropy(self) -> Tensor:
        half, more = self.df * 0.5, (self.df + 1) * 0.5
        log_beta = lgamma(half) + math.lgamma(0.5) - lgamma(more)
        spread = more * (digamma(more) - digamma(half))
        return log(self.scale) + spread + log(self.df) * 0.5 + log_beta
