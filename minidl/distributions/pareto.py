"""The Pareto distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.ops.random import rand
from minidl.ops.transcendental import log
from minidl.tensor import Tensor

__all__ = ["Pareto"]


class Pareto(Distribution):
    """The Pareto distribution of least value `scale` and exponent `alpha`; both broadcast."""

    arg_constraints: ClassVar = {"alpha": constraints.positive, "scale": constraints.positive}
    has_rsample = True

    def __init__(self, scale: Any, alpha: Any, validate_args: bool | None = None) -> None:
        self.scale, self.alpha = broadcast_all(scale, alpha)
        super().__init__(self.scale.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False, event_dim=0)
    def support(self) -> constraints.Constraint:
        """From scale on."""
        return constraints.greater_than_eq(self.scale)

    def _mean(self) -> Tensor:
        a = self.alpha.clamp(min=1)  # infinite up to there
        return a * self.scale / (a - 1)

    def _mode(self) -> Tensor:
        return self.scale

    def _variance(self) -> Tensor:
        a = self.alpha.clamp(min=2)
        return self.scale * self.scale * a / ((a - 1) * (a - 1) * (a - 2))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self._icdf(rand(shape, dtype=self.scale.dtype, device=self.scale.device))

    def _log_prob(self, value: Tensor) -> Tensor:
        a = self.alpha
        return log(a) + a * log(self.scale) - (a + 1) * log(value)

    def _cdf(self, value: Tensor) -> Tensor:
        return 1 - (self.scale / value) ** self.alpha

    def _icdf(self, value: Tensor) -> Tensor:
        return self.scale * (1 - value) ** (-1 / self.alpha)

    def _entropy(self) -> Tensor:
        return log(self.scale / self.alpha) + 1 / self.alpha + 1
