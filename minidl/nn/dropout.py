"""Dropout."""

from __future__ import annotations

from numbers import Real

import minidl.ops as ops
from minidl.errors import ArgumentError
from minidl.nn.module import Module
from minidl.tensor import Tensor


class Dropout(Module):
    """Zeroes elements with probability `p` while training and scales the others by 1/(1-p).

    Source: Srivastava et al., "Dropout", JMLR 15 (2014).
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not isinstance(p, Real) or not 0 <= p <= 1:
            raise ArgumentError("p must lie in [0, 1]", operator="Dropout", got=repr(p))
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}, inplace={self.inplace}"
