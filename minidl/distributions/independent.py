"""Batches of independent distributions as distributions of larger events."""

from __future__ import annotations

from typing import Any

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.transforms import sum_rightmost
from minidl.errors import ArgumentError
from minidl.tensor import Tensor

__all__ = ["Independent"]


class Independent(Distribution):
    """`base_distribution`, whose last `reinterpreted_batch_ndims` batch axes belong to the event.

    Its log_prob is the sum over these axes.
    """

    def __init__(
        self,
        base_distribution: Distribution,
        reinterpreted_batch_ndims: int,
        validate_args: bool | None = None,
    ) -> None:
        count, batch = reinterpreted_batch_ndims, base_distribution.batch_shape
        if not 0 <= count <= len(batch):
            raise ArgumentError(f"reinterpreted_batch_ndims must be 0 to {len(batch)}",
                                operator="Independent", got=repr(count))  # fmt: skip
        self.base_dist, self.reinterpreted_batch_ndims = base_distribution, count
        cut = len(batch) - count
        event = (*batch[cut:], *base_distribution.event_shape)
        super().__init__(batch[:cut], event, validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base distribution's draws have gradients."""
        return self.base_dist.has_rsample

    @constraints.dependent_property
    def support(self) -> Any:
        """The base distribution's, over the larger event."""
        support, count = self.base_dist.support, self.reinterpreted_batch_ndims
        if constraints.is_dependent(support):
            return support
        return constraints.independent(support, count) if count else support

    def _expanded(self, shape: tuple[int, ...]) -> Any:
        new = super()._expanded(shape)
        own = self._event_shape[: self.reinterpreted_batch_ndims]
        new.base_dist = self.base_dist.expand((*shape, *own))
        return new

    def _mean(self) -> Tensor:
        return self.base_dist.mean

    def _mode(self) -> Tensor:
        return self.base_dist.mode

    def _variance(self) -> Tensor:
        return self.base_dist.variance

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self.base_dist._draw(shape)

    def _log_prob(self, value: Tensor) -> Tensor:
        return sum_rightmost(self.base_dist._log_prob(value), self.reinterpreted_batch_ndims)

    def _entropy(self) -> Tensor:
        return sum_rightmost(self.base_dist.entropy(), self.reinterpreted_batch_ndims)

    @property
    def has_enumerate_support(self) -> bool:  # type: ignore[override]
        """Only where no axis was reinterpreted."""
        return self.base_dist.has_enumerate_support and not self.reinterpreted_batch_ndims

    def _enumerate(self, expand: bool) -> Tensor:
        return self.base_dist.enumerate_support(expand)

    def __repr__(self) -> str:
        return f"Independent({self.base_dist!r}, {self.reinterpreted_batch_ndims})"
