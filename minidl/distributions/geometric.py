"""The geometric distribution."""

from __future__ import annotations

from typing import Any

from minidl.distributions import constraints
from minidl.distributions.bernoulli import Binary
from minidl.distributions.utils import binary_entropy
from minidl.dtypes import finfo
from minidl.errors import ArgumentError
from minidl.ops.random import rand
from minidl.ops.special import xlog1py
from minidl.ops.transcendental import floor, log, log1p
from minidl.tensor import Tensor

__all__ = ["Geometric"]


class Geometric(Binary):
    """The number of failures before the first success of probability `probs`, or `logits`."""

    support = constraints.nonnegative_integer

    def __init__(
        self, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        (given,) = self._set(probs, logits)
        super().__init__(given.shape, validate_args=validate_args)
        if self._validate_args and probs is not None and not bool((given > 0).all()):
            raise ArgumentError("parameter probs must be positive", operator="Geometric",
                                got=str(given.detach()))  # fmt: skip

    def _mean(self) -> Tensor:
        return 1 / self.probs - 1

    def _mode(self) -> Tensor:
        return self.probs.detach() * 0

    def _variance(self) -> Tensor:
        return (1 / self.probs - 1) / self.probs

    def _draw(self, shape: tuple[int, ...]) -> Tensor:
        u = rand(shape, dtype=self.probs.dtype, device=self.probs.device).clamp(
            min=finfo(self.probs.dtype).tiny
        )
        return floor(log(u) / log1p(-self.probs))

    def _log_prob(self, value: Tensor) -> Tensor:
        return xlog1py(value, -self.probs) + log(self.probs)

    def _entropy(self) -> Tensor:
        return binary_entropy(self.logits, self.probs) / self.probs
