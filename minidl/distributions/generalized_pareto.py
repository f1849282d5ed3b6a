"""The generalised Pareto distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.ops.compare import eq
from minidl.ops.random import rand
from minidl.ops.select import where
from minidl.ops.transcendental import expm1, log, log1p
from minidl.tensor import Tensor

__all__ = ["GeneralizedPareto"]


class GeneralizedPareto(Distribution):
    """Excesses over a threshold `loc`: exponential for a concentration of 0, Pareto above it.

    Below 0 values end at loc - scale / concentration. Source: Pickands, "Statistical inference
    using extreme order statistics", 1975.
    """

    arg_constraints: ClassVar = {
        "loc": constraints.real,
        "scale": constraints.positive,
        "concentration": constraints.real,
    }
    has_rsample = True

    def __init__(
        self, loc: Any, scale: Any, concentration: Any, validate_args: bool | None = None
    ) -> None:
        self.loc, self.scale, self.concentration = broadcast_all(loc, scale, concentration)
        super().__init__(self.loc.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """From loc to infinity, or to the end that a concentration below 0 sets."""
        return constraints.interval(self.loc, self._end())

    def _end(self) -> Tensor:
        below = self.concentration < 0
        end = self.loc - self.scale / where(below, self.concentration, -1.0)
        return where(below, end, math.inf)

    def _mean(self) -> Tensor:
        there = self.concentration < 1
        rest = where(there, 1 - self.concentration, 1.0)
        return where(there, self.loc + self.scale / rest, math.nan)

    def _mode(self) -> Tensor:
        return where(self.concentration < -1, self._end(), self.loc)

    def _variance(self) -> Tensor:
        there = self.concentration < 0.5
        c = where(there, self.concentration, 0.0)
        found = self.scale * self.scale / ((1 - c) * (1 - c) * (1 - 2 * c))
        return where(there, found, math.nan)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self._icdf(rand(shape, dtype=self.loc.dtype, device=self.loc.device))

    def _log_survival(self, value: Tensor) -> Tensor:
        z = (value - self.loc) / self.scale
        flat = eq(self.concentration, 0)
        c = where(flat, 1.0, self.concentration)
        return -where(flat, z, log1p(where(flat, 0.0, c * z)) / c)

    def _log_prob(self, value: Tensor) -> Tensor:
        return (1 + self.concentration) * self._log_survival(value) - log(self.scale)

    def _cdf(self, value: Tensor) -> Tensor:
        return -expm1(self._log_survival(value))

    def _icdf(self, value: Tensor) -> Tensor:
        rest = log1p(-value)
        flat = eq(self.concentration, 0)
        c = where(flat, 1.0, self.concentration)
        return self.loc + self.scale * where(flat, -rest, expm1(where(flat, 0.0, -c * rest)) / c)

    def _entropy(self) -> Tensor:
        return log(self.scale) + self.concentration + 1
