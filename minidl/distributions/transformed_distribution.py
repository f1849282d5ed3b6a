"""Distributions of transformed variables."""

from __future__ import annotations

from typing import Any

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.independent import Independent
from minidl.distributions.transforms import ComposeTransform, Transform, sum_rightmost
from minidl.errors import DTypeError, ShapeError, UnsupportedError
from minidl.tensor import Tensor

__all__ = ["TransformedDistribution"]


class TransformedDistribution(Distribution):
    """The distribution of transforms(x), x of `base_distribution`.

    transforms: one Transform or a list, the first of which is applied first. Its log_prob needs
    their inverse and log_abs_det_jacobian, its cdf their sign.
    """

    def __init__(
        self,
        base_distribution: Distribution,
        transforms: Transform | list[Transform],
        validate_args: bool | None = None,
    ) -> None:
        found = [transforms] if isinstance(transforms, Transform) else list(transforms)
        if not all(isinstance(t, Transform) for t in found):
            raise DTypeError("transforms must be a Transform or a list of them",
                             operator="TransformedDistribution", got=repr(transforms))  # fmt: skip
        self.transforms = found
        whole = ComposeTransform(found)
        shape = (*base_distribution.batch_shape, *base_distribution.event_shape)
        needed = whole.domain.event_dim
        if len(shape) < needed:
            raise ShapeError(f"the transforms need a base distribution of {needed} axes",
                             operator="TransformedDistribution", got=str(shape))  # fmt: skip
        forward = whole.forward_shape(shape)
        # the batch that the transforms' own parameters broadcast to
        expanded = whole.inverse_shape(forward)
        events = len(base_distribution.event_shape)
        if expanded != shape:
            base_distribution = base_distribution.expand(expanded[: len(expanded) - events])
        if needed > events:
            base_distribution = Independent(base_distribution, needed - events)
        self.base_dist = base_distribution
        dims = whole.codomain.event_dim
        dims += max(len(base_distribution.event_shape) - needed, 0)
        cut = len(forward) - dims
        super().__init__(forward[:cut], forward[cut:], validate_args)

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether the base distribution's draws have gradients."""
        return self.base_dist.has_rsample

    @constraints.dependent_property
    def support(self) -> Any:
        """The last transform's codomain, over the whole event."""
        if not self.transforms:
            return self.base_dist.support
        support = self.transforms[-1].codomain
        more = len(self._event_shape) - support.event_dim
        return constraints.independent(support, more) if more > 0 else support

    def _expanded(self, shape: tuple[int, ...]) -> Any:
        new = super()._expanded(shape)
        forward = (*shape, *self._event_shape)
        base = ComposeTransform(self.transforms).inverse_shape(forward)
        new.base_dist = self.base_dist.expand(base[: len(base) - len(self.base_dist.event_shape)])
        return new

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        x = self.base_dist._draw(ComposeTransform(self.transforms).inverse_shape(shape))
        for transform in self.transforms:
            x = transform(x)
        return x

    def _log_prob(self, value: Tensor) -> Tensor:
        dims, total = len(self._event_shape), None
        for transform in reversed(self.transforms):
            x = transform._inv_call(value)
            dims += transform.domain.event_dim - transform.codomain.event_dim
            slope = transform.log_abs_det_jacobian(x, value)
            slope = sum_rightmost(slope, dims - transform.domain.event_dim)
            total = -slope if total is None else total - slope
            value = x
        base = self.base_dist._log_prob(value)
        base = sum_rightmost(base, dims - len(self.base_dist.event_shape))
        return base if total is None else base + total

    def _cdf(self, value: Tensor) -> Tensor:
        sign: Any = 1
        for transform in reversed(self.transforms):
            self._monotone(transform)
            value = transform._inv_call(value)
            sign = sign * transform.sign
        return (self.base_dist._cdf(value) - 0.5) * sign + 0.5

    def _icdf(self, value: Tensor) -> Tensor:
        sign: Any = 1
        for transform in self.transforms:
            self._monotone(transform)
            sign = sign * transform.sign
        value = self.base_dist._icdf((value - 0.5) * sign + 0.5)
        for transform in self.transforms:
            value = transform(value)
        return value

    def _monotone(self, transform: Transform) -> None:
        if not transform.bijective or transform.domain.event_dim:
            raise UnsupportedError("cdf and icdf need monotone transforms of single numbers",
                                operator=type(self).__name__, got=repr(transform))  # fmt: skip

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.base_dist!r}, {self.transforms!r})"
