"""Dropout of elements and of whole channels."""

from __future__ import annotations

from numbers import Real

import minidl.ops as ops
from minidl.errors import ArgumentError
from minidl.nn.module import Module
from minidl.tensor import Tensor


class _Dropout(Module):
    """Keeps the probability of zeroing, and whether the input is written."""

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not isinstance(p, Real) or not 0 <= p <= 1:
            raise ArgumentError("p must lie in [0, 1]", operator=type(self).__name__, got=repr(p))
        self.p = p
        self.inplace = inplace

    def extra_repr(self) -> str:
        """Show the probability."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zeroes elements with probability `p` while training and scales the others by 1/(1-p).

    Source: Srivastava et al., "Dropout", JMLR 15 (2014).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_Dropout):
    """Zeroes whole channels of (N, C, L) or (C, L). Source: arXiv:1411.4280."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """Zeroes whole channels of (N, C, H, W) or (N, C, L). Source: arXiv:1411.4280."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """Zeroes whole channels of (N, C, D, H, W) or (C, D, H, W). Source: arXiv:1411.4280."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance of a SELU network. Source: arXiv:1706.02515."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.alpha_dropout(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(_Dropout):
    """AlphaDropout of whole channels (N, C, ...). Source: arXiv:1706.02515."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.feature_alpha_dropout(input, self.p, self.training, self.inplace)
