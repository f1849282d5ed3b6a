"""The gamma distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.dtypes import finfo
from minidl.ops.sampling import standard_gamma
from minidl.ops.special import digamma, igamma, lgamma, xlogy
from minidl.ops.transcendental import log
from minidl.tensor import Tensor

__all__ = ["Gamma"]


class Gamma(Distribution):
    """The gamma distribution of shape `concentration` and the given rate; both broadcast.

    Draws have gradients by implicit reparameterisation (Figurnov, Mohamed, Mnih 2018).
    """

    arg_constraints: ClassVar[Any] = {
        "concentration": constraints.positive,
        "rate": constraints.positive,
    }
    support = constraints.nonnegative
    has_rsample = True

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.concentration / self.rate

    def _mode(self) -> Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    def _variance(self) -> Tensor:
        return self.concentration / (self.rate * self.rate)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        drawn = standard_gamma(self.concentration.expand(*shape)) / self.rate
        least = finfo(drawn.dtype).tiny
        lifted = drawn.detach().clamp(min=least) - drawn.detach()  # the gradient passes
        return drawn + lifted

    def _log_prob(self, value: Tensor) -> Tensor:
        return (
            xlogy(self.concentration, self.rate)
            + xlogy(self.concentration - 1, value)
            - self.rate * value
            - lgamma(self.concentration)
        )

    def _cdf(self, value: Tensor) -> Tensor:
        return igamma(self.concentration, self.rate * value)

    def _entropy(self) -> Tensor:
        a = self.concentration
        return a - log(self.rate) + lgamma(a) + (1 - a) * digamma(a)
