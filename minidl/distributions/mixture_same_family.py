"""Mixtures of distributions of one family."""

from __future__ import annotations

from typing import Any

from minidl.distributions import constraints
from minidl.distributions.categorical import Categorical
from minidl.distributions.distribution import Distribution
from minidl.errors import DTypeError, ShapeError
from minidl.ops.reduce import logsumexp, sum
from minidl.ops.softmax import log_softmax
from minidl.ops.views import broadcast_shapes
from minidl.tensor import Tensor

__all__ = ["MixtureSameFamily"]


class MixtureSameFamily(Distribution):
    """A mixture: `mixture_distribution`, a Categorical, chooses along the last batch axis of
    `component_distribution`.
    """

    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(mixture_distribution, Categorical):
            raise DTypeError("mixture_distribution must be a Categorical",
                             operator="MixtureSameFamily",
                             got=type(mixture_distribution).__name__)  # fmt: skip
        count = mixture_distribution.param_shape[-1]
        batch = component_distribution.batch_shape
        if not batch or batch[-1] != count:
            raise ShapeError(f"the last batch axis of the components must have size {count}",
                             operator="MixtureSameFamily", got=str(batch))  # fmt: skip
        own = broadcast_shapes(mixture_distribution.batch_shape, batch[:-1])
        if own != batch[:-1]:
            raise ShapeError("the mixture must broadcast to the batch of the components",
                             operator="MixtureSameFamily",
                             got=f"{mixture_distribution.batch_shape}, {batch}")  # fmt: skip
        self._mixture_distribution = mixture_distribution
        self._component_distribution = component_distribution
        super().__init__(batch[:-1], component_distribution.event_shape, validate_args)

    @property
    def mixture_distribution(self) -> Categorical:
        """The distribution of the component's number."""
        return self._mixture_distribution

    @property
    def component_distribution(self) -> Distribution:
        """The components, along the last batch axis."""
        return self._component_distribution

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the components."""
        return self._component_distribution.support

    def _expanded(self, shape: tuple[int, ...]) -> Any:
        new = super()._expanded(shape)
        new._mixture_distribution = self._mixture_distribution.expand(shape)
        size = self._component_distribution.batch_shape[-1]
        new._component_distribution = self._component_distribution.expand((*shape, size))
        return new

    def _axis(self) -> int:
        """The axis of the components in values."""
        return -1 - len(self._event_shape)

    def _weights(self) -> Tensor:
        probs = self._mixture_distribution.probs
        return probs.reshape(*probs.shape, *(1 for _ in self._event_shape))

    def _mean(self) -> Tensor:
        return sum(self._weights() * self._component_distribution.mean, self._axis())

    def _variance(self) -> Tensor:
        weights, parts = self._weights(), self._component_distribution
        within = sum(weights * parts.variance, self._axis())
        gap = parts.mean - self.mean.unsqueeze(self._axis())
        return within + sum(weights * gap * gap, self._axis())

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        events = len(self._event_shape)
        cut = len(shape) - events
        batch, event = shape[:cut], shape[cut:]
        size = self._component_distribution.batch_shape[-1]
        mixture = self._mixture_distribution.expand(self._batch_shape)
        chosen = mixture._draw(batch).reshape(*batch, 1, *(1 for _ in event))
        parts = self._component_distribution._draw((*batch, size, *event))
        return parts.gather(self._axis(), chosen.expand(*batch, 1, *event)).squeeze(self._axis())

    def _log_prob(self, value: Tensor) -> Tensor:
        parts = self._component_distribution._log_prob(value.unsqueeze(self._axis()))
        return logsumexp(parts + log_softmax(self._mixture_distribution.logits, -1), -1)

    def _cdf(self, value: Tensor) -> Tensor:
        parts = self._component_distribution._cdf(value.unsqueeze(self._axis()))
        return sum(parts * self._mixture_distribution.probs, -1)

    def __repr__(self) -> str:
        mixture, parts = self._mixture_distribution, self._component_distribution
        return f"MixtureSameFamily(\n  {mixture!r},\n  {parts!r})"
