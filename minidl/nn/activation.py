"""Activations as modules."""

from __future__ import annotations

from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError, ShapeError, UnsupportedError
from minidl.nn.init import constant_
from minidl.nn.module import Module
from minidl.tensor import Parameter, Tensor


class _Activation(Module):
    """Shared by activations that may write into their input."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def extra_repr(self) -> str:
        """Show `inplace` where it is set."""
        return "inplace=True" if self.inplace else ""


class ReLU(_Activation):
    """max(x, 0)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.relu(input, self.inplace)


class SiLU(_Activation):
    """x * sigmoid(x). Source: Elfwing et al., arXiv:1702.03118."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.silu(input, self.inplace)


class SELU(_Activation):
    """ELU, scaled to keep mean 0 and variance 1. Source: Klambauer et al., arXiv:1706.02515."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.selu(input, self.inplace)


class Mish(_Activation):
    """x * tanh(softplus(x)). Source: Misra, arXiv:1908.08681."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.mish(input, self.inplace)


class Hardswish(_Activation):
    """x * relu6(x + 3) / 6. Source: Howard et al., arXiv:1905.02244."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.hardswish(input, self.inplace)


class Hardsigmoid(_Activation):
    """relu6(x + 3) / 6. Source: Howard et al., arXiv:1905.02244."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.hardsigmoid(input, self.inplace)


class ReLU6(_Activation):
    """x limited to [0, 6]."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.relu6(input, self.inplace)


class Hardtanh(_Activation):
    """x limited to [`min_val`, `max_val`]."""

    def __init__(
        self,
        min_val: float = -1.0,
        max_val: float = 1.0,
        inplace: bool = False,
        min_value: None = None,
        max_value: None = None,
    ) -> None:
        super().__init__(inplace)
        if min_value is not None or max_value is not None:
            raise UnsupportedError(
                "min_value and max_value are gone; use min_val and max_val", operator="Hardtanh"
            )
        if not min_val < max_val:
            raise ArgumentError(
                "min_val must be below max_val", operator="Hardtanh", got=f"{min_val}, {max_val}"
            )
        self.min_val = min_val
        self.max_val = max_val

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.hardtanh(input, self.min_val, self.max_val, self.inplace)

    def extra_repr(self) -> str:
        """Show the limits."""
        text = f"min_val={self.min_val}, max_val={self.max_val}"
        return text + (", inplace=True" if self.inplace else "")


class LeakyReLU(_Activation):
    """x where positive, `negative_slope` * x elsewhere."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.negative_slope = negative_slope

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.leaky_relu(input, self.negative_slope, self.inplace)

    def extra_repr(self) -> str:
        """Show the slope."""
        return f"negative_slope={self.negative_slope}" + (", inplace=True" if self.inplace else "")


class ELU(_Activation):
    """x where positive, `alpha` * (exp(x) - 1) elsewhere. Source: arXiv:1511.07289."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.elu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """Show alpha."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class CELU(_Activation):
    """x where positive, `alpha` * (exp(x / alpha) - 1) elsewhere. Source: arXiv:1704.07483."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.alpha = alpha

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.celu(input, self.alpha, self.inplace)

    def extra_repr(self) -> str:
        """Show alpha."""
        return f"alpha={self.alpha}" + (", inplace=True" if self.inplace else "")


class GELU(Module):
    """x * Phi(x), with Phi the normal distribution function or its tanh approximation.

    Source: Hendrycks and Gimpel, arXiv:1606.08415.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Show the approximation."""
        return f"approximate={self.approximate!r}"


class Sigmoid(Module):
    """1 / (1 + exp(-x))."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.sigmoid(input)


class Tanh(Module):
    """Hyperbolic tangent."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.tanh(input)


class LogSigmoid(Module):
    """log(sigmoid(x)), without overflow."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.logsigmoid(input)


class Softsign(Module):
    """x / (1 + |x|)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.softsign(input)


class Tanhshrink(Module):
    """x - tanh(x)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.tanhshrink(input)


class GLU(Module):
    """a * sigmoid(b) for the halves a, b of the input along `dim`. Source: arXiv:1612.08083."""

    def __init__(self, dim: int = -1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of half the size along `dim`."""
        return ops.glu(input, self.dim)

    def extra_repr(self) -> str:
        """Show the axis."""
        return f"dim={self.dim}"


class Softplus(Module):
    """log(1 + exp(beta * x)) / beta, linear where beta * x passes `threshold`."""

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta = beta
        self.threshold = threshold

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.softplus(input, self.beta, self.threshold)

    def extra_repr(self) -> str:
        """Show beta and threshold."""
        return f"beta={self.beta}, threshold={self.threshold}"


class Softmax(Module):
    """exp(x) / sum(exp(x)) along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Show the axis."""
        return f"dim={self.dim}"


class LogSoftmax(Module):
    """log(softmax(x)) along `dim`, computed without forming the softmax."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.log_softmax(input, self.dim)

    def extra_repr(self) -> str:
        """Show the axis."""
        return f"dim={self.dim}"


class Softmin(Module):
    """softmax(-x) along `dim`."""

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.softmin(input, self.dim)

    def extra_repr(self) -> str:
        """Show the axis."""
        return f"dim={self.dim}"


class Softmax2d(Module):
    """softmax over the channels of (N, C, H, W) or (C, H, W)."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        if input.dim() not in (3, 4):
            raise ShapeError("needs (N, C, H, W) or (C, H, W)", operator="Softmax2d",
                             got=str(tuple(input.shape)))  # fmt: skip
        return ops.softmax(input, -3)


class PReLU(Module):
    """x where positive, `weight` * x elsewhere; the weight is learnt.

    One weight for all, or one per channel with `num_parameters`. Source: arXiv:1502.01852.
    """

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.init = init
        self.weight = Parameter(ops.empty((num_parameters,), device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weights to `init`."""
        constant_(self.weight, self.init)

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.prelu(input, self.weight)

    def extra_repr(self) -> str:
        """Show the number of weights."""
        return f"num_parameters={self.num_parameters}"


class Threshold(_Activation):
    """x where it exceeds `threshold`, `value` elsewhere."""

    def __init__(self, threshold: float, value: float, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.threshold = threshold
        self.value = value

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.threshold(input, self.threshold, self.value, self.inplace)

    def extra_repr(self) -> str:
        """Show threshold and value."""
        inplace = ", inplace=True" if self.inplace else ""
        return f"threshold={self.threshold}, value={self.value}{inplace}"


class RReLU(_Activation):
    """x where positive, a drawn share of x in [`lower`, `upper`] elsewhere; their mean in eval.

    Source: Xu et al., arXiv:1505.00853.
    """

    def __init__(self, lower: float = 1 / 8, upper: float = 1 / 3, inplace: bool = False) -> None:
        super().__init__(inplace)
        self.lower = lower
        self.upper = upper

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.rrelu(input, self.lower, self.upper, self.training, self.inplace)

    def extra_repr(self) -> str:
        """Show the limits."""
        text = f"lower={self.lower}, upper={self.upper}"
        return text + (", inplace=True" if self.inplace else "")


class _Shrink(Module):
    """Keeps `lambd`, how far from 0 the input must be."""

    def __init__(self, lambd: float = 0.5) -> None:
        super().__init__()
        self.lambd = lambd

    def extra_repr(self) -> str:
        """Show lambd."""
        return str(self.lambd)


class Hardshrink(_Shrink):
    """x where |x| exceeds `lambd`, 0 elsewhere."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.hardshrink(input, self.lambd)


class Softshrink(_Shrink):
    """x moved by `lambd` towards 0, where it stays."""

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the same shape."""
        return ops.softshrink(input, self.lambd)
