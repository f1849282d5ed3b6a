"""Normalisation of each sample: LayerNorm, RMSNorm, GroupNorm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError, MinidlError
from minidl.nn import init
from minidl.nn.module import FORWARDS, Module, is_watched
from minidl.ops.creation import sizes
from minidl.ops.norm import add_layer_norm
from minidl.tensor import Parameter, Tensor


class LayerNorm(Module):
    """Subtracts the mean and divides by the deviation over the last axes, then scales and shifts.

    x: (*, *normalized_shape) -> same. Source: Ba et al., arXiv:1607.06450.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = sizes((normalized_shape,), "LayerNorm")
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        if elementwise_affine:
            self.weight = Parameter(ops.empty(self.normalized_shape, device=device, dtype=dtype))
        else:
            self.register_parameter("weight", None)
        if elementwise_affine and bias:
            self.bias = Parameter(ops.empty(self.normalized_shape, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to one and the shift to zero."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Show shape, eps and whether there are weights."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


FORWARDS[LayerNorm] = LayerNorm.forward


def norm_of_sum(norm: Module, input: Tensor, other: Tensor) -> Tensor:
    """`norm(input + other)`; of a LayerNorm in one kernel, where no hook could tell.

    norm: any module, since those of a Transformer's block may be replaced.
    """
    if type(norm) is not LayerNorm or is_watched(norm):
        return norm(input + other)
    if input.shape != other.shape or input.dtype != other.dtype:
        return norm(input + other)
    shape = norm.normalized_shape
    try:
        return add_layer_norm(input, other, shape, norm.weight, norm.bias, norm.eps)
    except MinidlError as error:
        norm._locate(error)
        raise


class RMSNorm(Module):
    """Divides by the root mean square over the last axes, then scales.

    x: (*, *normalized_shape) -> same; `eps=None` is the machine epsilon of the dtype.
    Source: Zhang and Sennrich, arXiv:1910.07467.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float | None = None,
        elementwise_affine: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.normalized_shape = sizes((normalized_shape,), "RMSNorm")
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        if elementwise_affine:
            self.weight = Parameter(ops.empty(self.normalized_shape, device=device, dtype=dtype))
        else:
            self.register_parameter("weight", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the scale to one."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.rms_norm(input, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        """Show shape, eps and whether there is a weight."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class GroupNorm(Module):
    """LayerNorm of the channels in groups, over all positions; a scale and a shift per channel.

    x: (N, C, *) -> same. Source: Wu and He, arXiv:1803.08494.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: Any = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise ArgumentError(
                "num_channels must be a multiple of num_groups",
                operator="GroupNorm",
                got=f"{num_channels}, {num_groups}",
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            empty = ops.empty((num_channels,), device=device, dtype=dtype)
            self.register_parameter(name, Parameter(empty) if wanted else None)
        self.reset_parameters()

    weight: Tensor | None
    bias: Tensor | None

    def reset_parameters(self) -> None:
        """Set the scale to one and the shift to zero."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Show groups, channels, eps and whether there are weights."""
        return (
            f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}, "
            f"bias={self.bias is not None}"
        )
