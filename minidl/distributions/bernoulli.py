"""The Bernoulli distribution."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import (
    binary_entropy,
    broadcast_all,
    lazy_property,
    logits_to_probs,
    probs_to_logits,
)
from minidl.errors import ArgumentError
from minidl.ops.activation import softplus
from minidl.ops.compare import eq, ge
from minidl.ops.creation import arange
from minidl.ops.random import bernoulli
from minidl.ops.select import where
from minidl.tensor import Tensor

__all__ = ["Bernoulli"]


def one_of(name: str, probs: Any, logits: Any) -> None:
    """Refuse both or neither of probs and logits."""
    if (probs is None) == (logits is None):
        raise ArgumentError("either probs or logits must be given, not both", operator=name)


class Binary(Distribution):
    """What distributions of one probability share: probs, or logits (log-odds), or both lazily."""

    arg_constraints: ClassVar[Any] = {
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }

    def _set(self, probs: Any, logits: Any, *others: Any) -> tuple[Tensor, ...]:
        """Broadcast the given parameter with the others, which are returned."""
        one_of(type(self).__name__, probs, logits)
        given, *rest = broadcast_all(logits if probs is None else probs, *others)
        self.__dict__["logits" if probs is None else "probs"] = given
        return (given, *rest)

    @lazy_property
    def logits(self) -> Tensor:
        """log(probs / (1 - probs))."""
        return probs_to_logits(self.probs, is_binary=True)

    @lazy_property
    def probs(self) -> Tensor:
        """sigmoid(logits)."""
        return logits_to_probs(self.logits, is_binary=True)

    @property
    def param_shape(self) -> tuple[int, ...]:
        """The shape of the given parameter."""
        return self._batch_shape


class Bernoulli(Binary):
    """1 with probability `probs`, or log-odds `logits`, else 0."""

    support = constraints.boolean
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        (given,) = self._set(probs, logits)
        super().__init__(given.shape, validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.probs

    def _mode(self) -> Tensor:
        whole = ge(self.probs, 0.5).to(self.probs.dtype)
        return where(eq(self.probs, 0.5), math.nan, whole)

    def _variance(self) -> Tensor:
        return self.probs * (1 - self.probs)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return bernoulli(self.probs.expand(*shape))

    def _log_prob(self, value: Tensor) -> Tensor:
        return value * self.logits - softplus(self.logits)

    def _entropy(self) -> Tensor:
        return binary_entropy(self.logits, self.probs)

    def _enumerate(self, expand: bool) -> Tensor:
        return self._spread(arange(2, dtype=self.probs.dtype, device=self.probs.device), expand)
