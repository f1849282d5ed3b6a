"""The multinomial distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.binomial import Binomial
from minidl.distributions.categorical import Categorical
from minidl.distributions.distribution import Distribution
from minidl.errors import ArgumentError
from minidl.ops.compare import eq
from minidl.ops.creation import ones_like, zeros
from minidl.ops.reduce import sum
from minidl.ops.select import where
from minidl.ops.special import lgamma
from minidl.tensor import Tensor

__all__ = ["Multinomial"]


class Multinomial(Distribution):
    """Counts of K categories in `total_count` draws with `probs` (..., K), or `logits` (..., K)."""

    arg_constraints: ClassVar = {
        "probs": constraints.simplex,
        "logits": constraints.real_vector,
    }

    def __init__(
        self,
        total_count: int = 1,
        probs: Any = None,
        logits: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        if isinstance(total_count, bool) or not isinstance(total_count, int) or total_count < 0:
            raise ArgumentError("total_count must be an integer >= 0, one for the whole batch",
                                operator="Multinomial", got=repr(total_count))  # fmt: skip
        self.total_count = total_count
        self._categorical = Categorical(probs, logits, validate_args)
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=False)
        self._validate_args = self._categorical._validate_args

    @constraints.dependent_property(is_discrete=True, event_dim=1)
    def support(self) -> constraints.Constraint:
        """Counts that add up to at most total_count."""
        return constraints.multinomial(self.total_count)

    @property
    def probs(self) -> Tensor:
        """Probabilities that add up to 1."""
        return self._categorical.probs

    @property
    def logits(self) -> Tensor:
        """Logarithms of the probabilities."""
        return self._categorical.logits

    @property
    def param_shape(self) -> tuple[int, ...]:
        """The shape of the given parameter: (*batch_shape, K)."""
        return self._categorical.param_shape

    def _expanded(self, shape: tuple[int, ...]) -> Any:
        new = super()._expanded(shape)
        new._categorical = self._categorical.expand(shape)
        return new

    def _mean(self) -> Tensor:
        return self.probs * self.total_count

    def _variance(self) -> Tensor:
        return self.probs * (1 - self.probs) * self.total_count

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        drawn = self._categorical._draw((self.total_count, *shape[:-1]))
        counts = zeros(shape, dtype=self.probs.dtype, device=self.probs.device)
        if not self.total_count:
            return counts
        drawn = drawn.movedim(0, -1)
        return counts.scatter_add(-1, drawn, ones_like(drawn, dtype=counts.dtype))

    def _log_prob(self, value: Tensor) -> Tensor:
        # 0 * -inf is 0 here: a category that cannot be drawn, and was not
        impossible = eq(value, 0).logical_and(eq(self.logits, float("-inf")))
        terms = where(impossible, 0.0, self.logits * value)
        ways = lgamma(sum(value, -1) + 1) - sum(lgamma(value + 1), -1)
        return ways + sum(terms, -1)

    def _entropy(self) -> Tensor:
        n = float(self.total_count)
        one = Binomial(self.total_count, self.probs, validate_args=False)
        counts = one._enumerate(False)[1:]
        weight = sum(one._log_prob(counts).exp() * lgamma(counts + 1), (0, -1))
        return n * self._categorical.entropy() - lgamma(self.probs.new_tensor(n + 1)) + weight

    def __repr__(self) -> str:
        return repr(self._categorical).replace("Categorical", "Multinomial", 1)
