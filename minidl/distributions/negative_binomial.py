"""The negative binomial distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.bernoulli import Binary
from minidl.ops.activation import logsigmoid
from minidl.ops.sampling import poisson, standard_gamma
from minidl.ops.special import lgamma
from minidl.ops.transcendental import exp, floor
from minidl.tensor import Tensor

__all__ = ["NegativeBinomial"]


class NegativeBinomial(Binary):
    """Successes of probability `probs`, or `logits`, before `total_count` failures.

    total_count may be any positive number: a draw is a Poisson variable of gamma mean.
    """

    arg_constraints: ClassVar[Any] = {
        "total_count": constraints.greater_than_eq(0),
        "probs": constraints.half_open_interval(0.0, 1.0),
        "logits": constraints.real,
    }
    support = constraints.nonnegative_integer

    def __init__(
        self,
        total_count: Any,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        given, self.total_count = self._set(probs, logits, total_count)
        super().__init__(given.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.total_count * exp(self.logits)

    def _mode(self) -> Tensor:
        return floor((self.total_count - 1) * exp(self.logits)).clamp(min=0)

    def _variance(self) -> Tensor:
        return self.mean / (1 - self.probs)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        mean = standard_gamma(self.total_count.expand(*shape)) * exp(self.logits)
        return poisson(mean)

    def _log_prob(self, value: Tensor) -> Tensor:
        n = self.total_count
        ways = lgamma(n + value) - lgamma(value + 1) - lgamma(n)
        return n * logsigmoid(-self.logits) + value * logsigmoid(self.logits) + ways
