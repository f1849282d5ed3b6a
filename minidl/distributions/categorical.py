"""Distributions over categories."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.bernoulli import one_of
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import (
    broadcast_all,
    lazy_property,
    logits_to_probs,
    probs_to_logits,
)
from minidl.dtypes import finfo
from minidl.errors import ShapeError
from minidl.ops.convert import cast
from minidl.ops.creation import arange, full
from minidl.ops.random import multinomial
from minidl.ops.reduce import argmax, logsumexp, sum
from minidl.ops.views import broadcast_tensors
from minidl.tensor import Tensor

__all__ = ["Categorical"]


class Categorical(Distribution):
    """The numbers 0 .. K - 1 with probabilities `probs` (..., K), or `logits` (..., K).

    probs need not add up to 1, nor logits be normalised: both are divided by their sum.
    """

    arg_constraints: ClassVar = {
        "probs": constraints.simplex,
        "logits": constraints.real_vector,
    }
    has_enumerate_support = True

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        one_of(type(self).__name__, probs, logits)
        (given,) = broadcast_all(logits if probs is None else probs)
        if not given.ndim:
            name = "logits" if probs is None else "probs"
            raise ShapeError(f"{name} needs one axis or more", operator=type(self).__name__,
                             got="()")  # fmt: skip
        if probs is None:
            self.__dict__["logits"] = given - logsumexp(given, -1, True)
        else:
            self.__dict__["probs"] = given / sum(given, -1, True)
        self._num_events = given.shape[-1]
        super().__init__(given.shape[:-1], validate_args=validate_args)

    @constraints.dependent_property(is_discrete=True, event_dim=0)
    def support(self) -> constraints.Constraint:
        """0, 1, ..., K - 1."""
        return constraints.integer_interval(0, self._num_events - 1)

    @lazy_property
    def logits(self) -> Tensor:
        """Logarithms of the probabilities."""
        return probs_to_logits(self.probs)

    @lazy_property
    def probs(self) -> Tensor:
        """Probabilities that add up to 1."""
        return logits_to_probs(self.logits)

    @property
    def param_shape(self) -> tuple[int, ...]:
        """The shape of the given parameter: (*batch_shape, K)."""
        return (*self._batch_shape, self._num_events)

    def _mean(self) -> Tensor:
        return full(
            self._extended_shape(), float("nan"), dtype=self.probs.dtype, device=self.probs.device
        )

    def _variance(self) -> Tensor:
        return self._mean()

    def _mode(self) -> Tensor:
        return argmax(self.probs, -1)

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        rows = self.probs.reshape(-1, self._num_events)
        count = 1
        for n in shape[: len(shape) - len(self._batch_shape)]:
            count *= n
        if not count or not rows.shape[0]:
            return full(shape, 0, dtype="int64", device=self.probs.device)
        return multinomial(rows, count, True).t().reshape(*shape)

    def _log_prob(self, value: Tensor) -> Tensor:
        value = cast(value, "int64").unsqueeze(-1)
        value, logits = broadcast_tensors(value, self.logits)
        return logits.gather(-1, value[..., :1]).squeeze(-1)

    def _entropy(self) -> Tensor:
        logits = self.logits.clamp(min=finfo(self.logits.dtype).min)
        return -sum(logits * self.probs, -1)

    def _enumerate(self, expand: bool) -> Tensor:
        return self._spread(arange(self._num_events, device=self.probs.device), expand)
