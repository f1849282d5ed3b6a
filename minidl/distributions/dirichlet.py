"""The Dirichlet distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.dtypes import finfo
from minidl.errors import ShapeError
from minidl.ops.compare import lt
from minidl.ops.embedding import one_hot
from minidl.ops.reduce import all, argmax, sum
from minidl.ops.sampling import standard_dirichlet
from minidl.ops.select import where
from minidl.ops.special import digamma, lgamma, xlogy
from minidl.tensor import Tensor

__all__ = ["Dirichlet"]


class Dirichlet(Distribution):
    """The Dirichlet distribution over the simplex of the last axis of `concentration`.

    Draws are gamma variables over their sum, whose implicit gradients they have: unbiased, as
    PyTorch's, though not equal to them draw by draw (Figurnov, Mohamed, Mnih 2018, section 3).
    """

    arg_constraints: ClassVar = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True

    def __init__(self, concentration: Any, validate_args: bool | None = None) -> None:
        (self.concentration,) = broadcast_all(concentration)
        if not self.concentration.ndim:
            raise ShapeError("concentration needs one axis or more", operator="Dirichlet", got="()")
        shape = self.concentration.shape
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def _mean(self) -> Tensor:
        return self.concentration / sum(self.concentration, -1, True)

    def _mode(self) -> Tensor:
        above = (self.concentration - 1).clamp(min=0)
        low = all(lt(self.concentration, 1), -1, True)  # all mass in the corners
        corner = one_hot(argmax(self.concentration, -1), self.concentration.shape[-1])
        return where(low, corner.to(above.dtype), above / sum(above, -1, True))

    def _variance(self) -> Tensor:
        total = sum(self.concentration, -1, True)
        return self.concentration * (total - self.concentration) / (total * total * (total + 1))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        drawn = standard_dirichlet(self.concentration.expand(*shape))
        limits = finfo(drawn.dtype)  # 0 and 1 would have an infinite density
        inside = drawn.detach().clamp(limits.tiny, 1 - limits.eps / 2)
        return drawn + (inside - drawn.detach())  # the gradient passes

    def _log_prob(self, value: Tensor) -> Tensor:
        a = self.concentration
        return sum(xlogy(a - 1, value), -1) + lgamma(sum(a, -1)) - sum(lgamma(a), -1)

    def _entropy(self) -> Tensor:
        a, k = self.concentration, self.concentration.shape[-1]
        total = sum(a, -1)
        return (
            sum(lgamma(a), -1)
            - lgamma(total)
            - (k - total) * digamma(total)
            - sum((a - 1) * digamma(a), -1)
        )
