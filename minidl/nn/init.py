"""Initialisers: fill a tensor in place, without recording, and return it.

Sources: Glorot and Bengio 2010 (xavier), He et al. arXiv:1502.01852 (kaiming), Saxe et al.
arXiv:1312.6120 (orthogonal).
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import numpy as np

import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.dtypes import float64
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.tensor import Tensor

_GAINS = {"tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
_LINEAR = ("linear", "conv1d", "conv2d", "conv3d", "sigmoid")


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor that keeps the variance through `nonlinearity`.

    `param` is the slope of "leaky_relu".
    """
    if nonlinearity in _LINEAR:
        return 1.0
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if not isinstance(slope, Real):
            raise ArgumentError(
                "the slope must be a number", operator="calculate_gain", got=repr(slope)
            )
        return math.sqrt(2 / (1 + slope**2))
    if nonlinearity in _GAINS:
        return _GAINS[nonlinearity]
    known = ", ".join([*_LINEAR, "leaky_relu", *_GAINS])
    raise ArgumentError(
        f"nonlinearity must be one of {known}", operator="calculate_gain", got=repr(nonlinearity)
    )


def _check(name: str, tensor: Any, axes: int = 0, floating: bool = False) -> None:
    """Refuse what is not a tensor, such as a whole layer, or lacks axes or fractions."""
    if not isinstance(tensor, Tensor):
        raise DTypeError(
            "a Tensor is needed, such as layer.weight", operator=name, got=type(tensor).__name__
        )
    if tensor.dim() < axes:
        raise ShapeError(
            f"at least {axes} axes are needed", operator=name, got=str(tuple(tensor.shape))
        )
    if floating and not tensor.is_floating_point():
        raise DTypeError("needs a floating point dtype", operator=name, got=repr(tensor.dtype))


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with uniform numbers in [a, b)."""
    _check("uniform_", tensor)
    with no_grad():
        return tensor.uniform_(a, b, generator=generator)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Any = None) -> Tensor:
    """Fill with normal numbers."""
    _check("normal_", tensor)
    with no_grad():
        return tensor.normal_(mean, std, generator=generator)


def constant_(tensor: Tensor, val: float) -> Tensor:
    """Fill with one value."""
    _check("constant_", tensor)
    with no_grad():
        return tensor.fill_(val)


def ones_(tensor: Tensor) -> Tensor:
    """Fill with ones."""
    return constant_(tensor, 1.0)


def zeros_(tensor: Tensor) -> Tensor:
    """Fill with zeros."""
    return constant_(tensor, 0.0)


def eye_(tensor: Tensor) -> Tensor:
    """Fill a matrix with ones on the diagonal and zeros elsewhere."""
    _check("eye_", tensor)
    if tensor.dim() != 2:
        raise ShapeError("a matrix is needed", operator="eye_", got=str(tuple(tensor.shape)))
    with no_grad():
        return tensor.copy_(ops.eye(*tensor.shape, dtype=tensor.dtype, device=tensor.device))


def dirac_(tensor: Tensor, groups: int = 1) -> Tensor:
    """Fill a convolution's weight so that it passes on its input: ones at the kernel's centre.

    tensor: (out, in, *kernel) with 1 to 3 kernel axes; each of the `groups` equal parts of the
    outputs passes on as many channels as it has outputs and inputs.
    """
    _check("dirac_", tensor, axes=3)
    if tensor.dim() > 5:
        raise ShapeError("3 to 5 axes are needed", operator="dirac_", got=str(tensor.shape))
    if tensor.shape[0] % groups:
        raise ArgumentError(
            "groups must divide the number of outputs",
            operator="dirac_",
            got=f"{groups}, {tensor.shape[0]}",
        )
    outputs = tensor.shape[0] // groups
    centre = tuple(size // 2 for size in tensor.shape[2:])
    with no_grad():
        tensor.zero_()
        for channel in range(min(outputs, tensor.shape[1])):
            for group in range(groups):
                tensor[(group * outputs + channel, channel, *centre)] = 1
    return tensor


def sparse_(tensor: Tensor, sparsity: float, std: float = 0.01, generator: Any = None) -> Tensor:
    """Fill a matrix with normal numbers, and set the share `sparsity` of each column to zero.

    Source: Martens 2010, Deep learning via Hessian-free optimization.
    """
    _check("sparse_", tensor)
    if tensor.dim() != 2:
        raise ShapeError("a matrix is needed", operator="sparse_", got=str(tuple(tensor.shape)))
    rows, columns = tensor.shape
    zeros = math.ceil(sparsity * rows)
    with no_grad():
        tensor.normal_(0, std, generator=generator)
        for column in range(columns):
            tensor[ops.randperm(rows, generator=generator)[:zeros], column] = 0
    return tensor


def trunc_normal_(
    tensor: Tensor,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    generator: Any = None,
) -> Tensor:
    """Fill with normal numbers from [a, b] only, by the inverse of the distribution function.

    Drawn in float64: near the ends of a narrower dtype the inverse is infinite, which would put
    a weight at `a` or `b`, many deviations out. An interval that lies beyond 4 deviations, where
    float64 does not do either, is filled by rejection (Robert 1995, arXiv:0907.4010).
    """
    _check("trunc_normal_", tensor, floating=True)
    if not std > 0:
        raise ArgumentError("std must be positive", operator="trunc_normal_", got=str(std))
    if not a < b:
        raise ArgumentError("a must be less than b", operator="trunc_normal_", got=f"a={a}, b={b}")
    start, end = ((edge - mean) / std for edge in (a, b))
    if start > 4 or end < -4:
        sign = 1 if start > 4 else -1
        near, far = (start, end) if sign > 0 else (-end, -start)
        tail = _normal_tail(tensor, near, far, generator)
        with no_grad():
            return tensor.copy_(tail.mul_(sign * std).add_(mean).clamp_(min=a, max=b))
    low, high = _normal_cdf(start), _normal_cdf(end)
    with no_grad():
        drawn = ops.empty(tensor.shape, dtype=float64, device=tensor.device)
        drawn.uniform_(2 * low - 1, 2 * high - 1, generator=generator)
        drawn.erfinv_().mul_(std * math.sqrt(2)).add_(mean)
        return tensor.copy_(drawn.clamp_(min=a, max=b))


def _normal_tail(like: Tensor, near: float, far: float, generator: Any) -> Tensor:
    """Normal numbers from [near, far], near > 0: exponential ones, accepted by their ratio."""

    def uniform() -> Tensor:
        drawn = ops.empty(like.shape, dtype=float64, device=like.device)
        return drawn.uniform_(0, 1, generator=generator)

    reach = -math.expm1(-near * (far - near))
    with no_grad():
        result = ops.zeros(like.shape, dtype=float64, device=like.device)
        pending = result == 0
        while bool(pending.any()):
            beyond = (uniform() * -reach).log1p() / -near
            accepted = uniform() < (beyond.square() / -2).exp()
            result = ops.where(pending & accepted, beyond + near, result)
            pending = pending & ~accepted
    return result


def _normal_cdf(x: float) -> float:
    return (1 + math.erf(x / math.sqrt(2))) / 2


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fill uniformly with variance gain**2 * 2 / (fan_in + fan_out)."""
    bound = math.sqrt(3) * _xavier_std(tensor, gain)
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Any = None) -> Tensor:
    """Fill normally with variance gain**2 * 2 / (fan_in + fan_out)."""
    return normal_(tensor, 0.0, _xavier_std(tensor, gain), generator)


def _xavier_std(tensor: Tensor, gain: float) -> float:
    fan_in, fan_out = _calculate_fan_in_and_fan_out(tensor)
    return gain * math.sqrt(2 / max(1, fan_in + fan_out))  # without elements both may be 0


def kaiming_uniform_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Fill uniformly with variance gain**2 / fan; `a` is the slope of a leaky rectifier."""
    _check("kaiming_uniform_", tensor)
    if tensor.numel() == 0:
        return tensor
    bound = math.sqrt(3) * _kaiming_std(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor,
    a: float = 0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    generator: Any = None,
) -> Tensor:
    """Fill normally with variance gain**2 / fan; `a` is the slope of a leaky rectifier."""
    _check("kaiming_normal_", tensor)
    if tensor.numel() == 0:
        return tensor
    return normal_(tensor, 0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator)


def _kaiming_std(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fans = dict(zip(("fan_in", "fan_out"), _calculate_fan_in_and_fan_out(tensor), strict=True))
    if mode not in fans:
        raise ArgumentError(
            "mode must be 'fan_in' or 'fan_out'", operator="kaiming", got=repr(mode)
        )
    return calculate_gain(nonlinearity, a) / math.sqrt(fans[mode])


def _calculate_fan_in_and_fan_out(tensor: Tensor) -> tuple[int, int]:
    """Return how many inputs and outputs one unit has: weights are (out, in, *kernel)."""
    _check("init", tensor, axes=2)
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def orthogonal_(tensor: Tensor, gain: float = 1, generator: Any = None) -> Tensor:
    """Fill with a (semi-)orthogonal matrix of the first axis against all others, times `gain`."""
    _check("orthogonal_", tensor, axes=2, floating=True)
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    # float64, whatever the default dtype: orthogonal to the last digit of the tensor's own
    drawn = ops.randn((rows, columns), generator=generator, dtype=float64).numpy()
    q, r = np.linalg.qr(drawn.T if rows < columns else drawn)
    # The signs of R's diagonal make the distribution uniform over the orthogonal group.
    q = q * np.sign(np.diagonal(r))
    q = np.array((q.T if rows < columns else q) * gain)
    with no_grad():
        return tensor.copy_(ops.from_numpy(q).reshape(tensor.shape))
