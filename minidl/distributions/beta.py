"""The beta distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from minidl.distributions import constraints
from minidl.distributions.dirichlet import Dirichlet
from minidl.distributions.distribution import Distribution
from minidl.distributions.utils import broadcast_all
from minidl.ops.arrange import stack
from minidl.tensor import Tensor

__all__ = ["Beta"]


class Beta(Distribution):
    """The beta distribution of the two concentrations, which broadcast.

    It is the first component of a Dirichlet distribution, whose draws and gradients it has.
    """

    arg_constraints: ClassVar = {
        "concentration1": constraints.positive,
        "concentration0": constraints.positive,
    }
    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self, concentration1: Any, concentration0: Any, validate_args: bool | None = None
    ) -> None:
        one, zero = broadcast_all(concentration1, concentration0)
        self.concentration1, self.concentration0 = one, zero
        super().__init__(one.shape, validate_args=validate_args)

    def _pair(self) -> Dirichlet:
        return Dirichlet(stack([self.concentration1, self.concentration0], -1), validate_args=False)

    def _mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    def _mode(self) -> Tensor:
        return self._pair().mode[..., 0]

    def _variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total * total * (total + 1))

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        return self._pair()._draw((*shape, 2))[..., 0]

    def _log_prob(self, value: Tensor) -> Tensor:
        return self._pair()._log_prob(stack([value, 1 - value], -1))

    def _entropy(self) -> Tensor:
        return self._pair().entropy()
