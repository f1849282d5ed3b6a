"""The binomial distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.bernoulli import Binary
from minidl.errors import ArgumentError
from minidl.ops.activation import softplus
from minidl.ops.creation import arange
from minidl.ops.reduce import sum
from minidl.ops.sampling import binomial
from minidl.ops.special import lgamma
from minidl.ops.transcendental import exp, floor
from minidl.tensor import Tensor

__all__ = ["Binomial"]


class Binomial(Binary):
    """Successes in `total_count` trials of probability `probs`, or `logits`; all broadcast."""

    arg_constraints: ClassVar[Any] = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    has_enumerate_support = True

    def __init__(
        self,
        total_count: Any = 1,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        given, self.total_count = self._set(probs, logits, total_count)
        super().__init__(given.shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """0, 1, ..., total_count."""
        return constraints.integer_interval(0, self.total_count)

    def _mean(self) -> Tensor:
        return self.total_count * self.probs

    def _mode(self) -> Tensor:
        return floor((self.total_count + 1) * self.probs).clamp(max=self.total_count)

    def _variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return binomial(self.total_count.expand(*shape), self.probs.expand(*shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        n = self.total_count
        ways = lgamma(n + 1) - lgamma(value + 1) - lgamma(n - value + 1)
        return ways + value * self.logits - n * softplus(self.logits)

    def _entropy(self) -> Tensor:
        values = self.enumerate_support(False)
        log_prob = self._log_prob(values)
        return -sum(exp(log_prob) * log_prob, 0)

    def _enumerate(self, expand: bool) -> Tensor:
        total = int(self.total_count.max())
        if int(self.total_count.min()) != total:
            raise ArgumentError("enumerate_support needs one total_count for the whole batch",
                                operator="Binomial", got=str(self.total_count))  # fmt: skip
        return self._spread(
            arange(1 + total, dtype=self.probs.dtype, device=self.probs.device), expand
        )
