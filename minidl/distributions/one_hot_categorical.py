"""Categories as one-hot vectors."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.categorical import Categorical
from minidl.distributions.distribution import Distribution
from minidl.ops.creation import eye
from minidl.ops.embedding import one_hot
from minidl.ops.reduce import argmax
from minidl.tensor import Tensor

__all__ = ["OneHotCategorical", "OneHotCategoricalStraightThrough"]


class OneHotCategorical(Distribution):
    """One-hot vectors of K elements with probabilities `probs` (..., K), or `logits` (..., K)."""

    arg_constraints: ClassVar = {
        "probs": constraints.simplex,
        "logits": constraints.real_vector,
    }
    support = constraints.one_hot
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        self._categorical = Categorical(probs, logits, validate_args)
        shape = self._categorical.param_shape
        super().__init__(shape[:-1], shape[-1:], validate_args=False)
        self._validate_args = self._categorical._validate_args

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
        return self.probs

    def _mode(self) -> Tensor:
        return one_hot(argmax(self.probs, -1), self.probs.shape[-1]).to(self.probs.dtype)

    def _variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        drawn = self._categorical._draw(shape[:-1])
        return one_hot(drawn, self.probs.shape[-1]).to(self.probs.dtype)

    def _log_prob(self, value: Tensor) -> Tensor:
        return self._categorical._log_prob(argmax(value, -1))

    def _entropy(self) -> Tensor:
        return self._categorical.entropy()

    def _enumerate(self, expand: bool) -> Tensor:
        return self._spread(
            eye(self.probs.shape[-1], dtype=self.probs.dtype, device=self.probs.device), expand
        )

    def __repr__(self) -> str:
        return repr(self._categorical).replace("Categorical", type(self).__name__, 1)


class OneHotCategoricalStraightThrough(OneHotCategorical):
    """Draws pass their gradient on to the probabilities (Bengio, Leonard, Courville 2013)."""

    has_rsample = True

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return super()._draw(shape).detach() + (self.probs - self.probs.detach())
