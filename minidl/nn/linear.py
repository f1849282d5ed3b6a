"""Linear, Bilinear, and the layers that only pass on or reshape: Identity, Flatten, Unflatten."""

from __future__ import annotations

import math
from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError, MinidlError, UnsupportedError
from minidl.nn import init
from minidl.nn.activation import GELU, ReLU, Sigmoid, SiLU, Tanh
from minidl.nn.module import FORWARDS, Module, is_watched
from minidl.ops.creation import sizes
from minidl.ops.linear import linear_activation
from minidl.tensor import Parameter, Tensor


class Linear(Module):
    """Affine map of the last axis, `x @ weight.T + bias`.

    x: (*, in_features) -> (*, out_features); weight: (out_features, in_features). Both start
    uniform in +-1/sqrt(in_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        in_features, out_features = sizes((in_features, out_features), "Linear")
        if in_features < 0 or out_features < 0:
            raise ArgumentError(
                "sizes must not be negative",
                operator="Linear",
                got=f"in_features={in_features}, out_features={out_features}",
            )
        self.in_features = in_features
        self.out_features = out_features
        self.weight = Parameter(ops.empty((out_features, in_features), device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(ops.empty((out_features,), device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        # kaiming_uniform with a = sqrt(5) is the uniform distribution in +-1/sqrt(fan_in)
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features > 0 else 0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Map (*, in_features) to (*, out_features)."""
        return ops.linear(input, self.weight, self.bias)

    def activated(self, input: Tensor, activation: str) -> Tensor:
        """Map, and take the activation `activation_after` found, in one kernel."""
        try:
            return linear_activation(input, self.weight, self.bias, activation)
        except MinidlError as error:
            self._locate(error)
            raise

    def extra_repr(self) -> str:
        """Show the sizes."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


_FUNCTIONS = ((ops.relu, "relu"), (ops.gelu, "gelu"), (ops.silu, "silu"), (ops.tanh, "tanh"))
_MODULES = {ReLU: "relu", SiLU: "silu", Tanh: "tanh", Sigmoid: "sigmoid"}
FORWARDS.update({kind: kind.forward for kind in (Linear, GELU, *_MODULES)})


def activation_after(layer: Module, activation: Any) -> str | None:
    """What `layer.activated` calls `activation`, or None where it must be called by itself.

    layer: any module; activation: a module or a function. Only a Linear takes an activation into
    its kernel, and only where no hook wants to see what is between the two.
    """
    if type(layer) is not Linear or is_watched(layer):
        return None
    if not isinstance(activation, Module):
        return next((name for function, name in _FUNCTIONS if function is activation), None)
    if is_watched(activation):
        return None
    if type(activation) is GELU:
        return {"none": "gelu", "tanh": "gelu_tanh"}.get(activation.approximate)
    return _MODULES.get(type(activation))


class Identity(Module):
    """Returns its input; takes and ignores any constructor arguments."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()

    def forward(self, input: Any) -> Any:
        """Return `input` itself."""
        return input


class Flatten(Module):
    """Joins the axes `start_dim` to `end_dim` into one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        """Reshape (N, *) to (N, prod(*)) with the default axes."""
        return ops.flatten(input, self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        """Show the axes."""
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Splits axis `dim` into axes of the sizes `unflattened_size`, of which one may be -1."""

    def __init__(self, dim: int, unflattened_size: Any) -> None:
        super().__init__()
        if not isinstance(dim, int):
            raise UnsupportedError(
                "named axes are not supported; pass the number of the axis",
                operator="Unflatten",
                got=repr(dim),
            )
        self.dim = dim
        self.unflattened_size = sizes((unflattened_size,), "Unflatten")

    def forward(self, input: Tensor) -> Tensor:
        """(..., prod(sizes), ...) -> (..., *sizes, ...)."""
        return ops.unflatten(input, self.dim, self.unflattened_size)

    def extra_repr(self) -> str:
        """Show axis and sizes."""
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Bilinear(Module):
    """y[k] = x1 @ weight[k] @ x2 + bias[k].

    x1: (*, in1_features), x2: (*, in2_features) -> (*, out_features); weight: (out, in1, in2).
    Weights start uniform in +-1/sqrt(in1_features).
    """

    def __init__(
        self,
        in1_features: int,
        in2_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if in1_features <= 0:
            raise ArgumentError(
                "in1_features must be positive", operator="Bilinear", got=str(in1_features)
            )
        self.in1_features = in1_features
        self.in2_features = in2_features
        self.out_features = out_features
        size = (out_features, in1_features, in2_features)
        self.weight = Parameter(ops.empty(size, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(ops.empty((out_features,), device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw weight and bias anew."""
        bound = 1 / math.sqrt(self.in1_features)
        init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            init.uniform_(self.bias, -bound, bound)

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        """Map (*, in1_features) and (*, in2_features) to (*, out_features)."""
        return ops.bilinear(input1, input2, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Show the sizes."""
        return (
            f"in1_features={self.in1_features}, in2_features={self.in2_features}, "
            f"out_features={self.out_features}, bias={self.bias is not None}"
        )
