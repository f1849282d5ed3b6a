"""Activations and dropouts that draw: of channels, of SELU networks, of leaks and of categories."""

from __future__ import annotations

import math

from minidl.autograd.op import in_place
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.activation import leaky_relu
from minidl.ops.along import scatter
from minidl.ops.compare import gt
from minidl.ops.creation import full, zeros_like
from minidl.ops.method import check_tensor
from minidl.ops.random import bernoulli, dropout, rand_like
from minidl.ops.reduce import argmax, axis
from minidl.ops.select import where
from minidl.ops.softmax import softmax
from minidl.ops.transcendental import log
from minidl.ops.views import unsqueeze
from minidl.tensor import Tensor

__all__ = [
    "alpha_dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
    "gumbel_softmax",
    "rrelu",
    "rrelu_",
]

# -alpha * scale of selu: what a dropped element of a self-normalising network becomes
_FLOOR = -1.7580993408473766


def _check(name: str, input: Tensor, p: float = 0.0) -> None:
    check_tensor(name, "input", input)
    if not 0 <= p <= 1:
        raise ArgumentError("p must be a probability", operator=name, got=repr(p))
    if input.dtype.kind != FLOAT:
        raise DTypeError("input must be floating point", operator=name, got=repr(input.dtype))


def _kept(input: Tensor, p: float, shape: tuple[int, ...]) -> Tensor:
    """Ones with probability 1 - p, zeros elsewhere, in the dtype of `input`."""
    return bernoulli(full(shape, 1 - p, dtype=input.dtype, device=input.device))


def _channels(name: str, input: Tensor, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape (N, C, 1, ...) of one draw per channel; without N for the shorter of the forms."""
    if input.ndim not in axes:
        ranks = " or ".join(map(str, axes))
        raise ShapeError(f"input needs {ranks} axes", operator=name, got=str(input.shape))
    whole = 1 if input.ndim == axes[0] and len(axes) > 1 else 2
    return input.shape[:whole] + (1,) * (input.ndim - whole)


def _dropout_of_channels(
    name: str, input: Tensor, p: float, training: bool, inplace: bool, axes: tuple[int, ...]
) -> Tensor:
    _check(name, input, p)
    shape = _channels(name, input, axes)
    if not training or not p:
        return input
    mask = dropout(full(shape, 1.0, dtype=input.dtype, device=input.device), p)
    return input.mul_(mask) if inplace else input * mask  # type: ignore[attr-defined]


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of (N, C, L) or (C, L) with probability `p`, scale the others.

    Source: Tompson et al., arXiv:1411.4280.
    """
    return _dropout_of_channels("dropout1d", input, p, training, inplace, (2, 3))


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of (N, C, H, W), or (N, C, L), with probability `p`, scale the others.

    Source: Tompson et al., arXiv:1411.4280.
    """
    axes = (3,) if input.ndim == 3 else (4,)  # 3 axes are (N, C, L), as PyTorch takes them
    return _dropout_of_channels("dropout2d", input, p, training, inplace, axes)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of (N, C, D, H, W) or (C, D, H, W) with probability `p`, scale others."""
    return _dropout_of_channels("dropout3d", input, p, training, inplace, (4, 5))


def _alpha_dropout(input: Tensor, p: float, shape: tuple[int, ...], inplace: bool) -> Tensor:
    """Dropped elements become SELU's lower limit; mean and variance stay what they were."""
    kept = _kept(input, p, shape)
    scale = 1 / math.sqrt((_FLOOR**2 * p + 1) * (1 - p)) if p < 1 else 0.0
    factor, shift = kept * scale, ((1 - kept) - p) * (_FLOOR * scale)
    return input.mul_(factor).add_(shift) if inplace else input * factor + shift  # type: ignore[attr-defined]


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps mean 0 and variance 1, for networks of SELU.

    Source: Klambauer et al., arXiv:1706.02515.
    """
    _check("alpha_dropout", input, p)
    return _alpha_dropout(input, p, input.shape, inplace) if training and p else input


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels: input (N, C, ...)."""
    _check("feature_alpha_dropout", input, p)
    if input.ndim < 2:
        raise ShapeError("input needs 2 axes or more", operator="feature_alpha_dropout",
                         got=str(input.shape))  # fmt: skip
    if not training or not p:
        return input
    return _alpha_dropout(input, p, input.shape[:2] + (1,) * (input.ndim - 2), inplace)


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """`leaky_relu` whose slope is drawn per element from [lower, upper] in training, else its mean.

    Source: Xu et al., arXiv:1505.00853.
    """
    _check("rrelu", input)
    if not lower <= upper:
        raise ArgumentError("lower must not exceed upper", operator="rrelu",
                            got=f"{lower}, {upper}")  # fmt: skip
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    slope = where(gt(input.detach(), 0), 1.0, rand_like(input) * (upper - lower) + lower)
    slope = slope.to(input.dtype)  # type: ignore[attr-defined]
    return input.mul_(slope) if inplace else input * slope  # type: ignore[attr-defined]


rrelu_ = in_place("rrelu_", rrelu)


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A draw from the categories along `dim`, relaxed by temperature `tau`.

    hard: one category at 1, with the gradient of the relaxed draw. Sources: Jang et al.,
    arXiv:1611.01144; Maddison et al., arXiv:1611.00712.
    """
    _check("gumbel_softmax", logits)
    noise = -log(-log(rand_like(logits).clamp_(min=1e-20)))  # type: ignore[attr-defined]
    soft = softmax((logits + noise) / tau, dim)
    if not hard:
        return soft
    i = axis(logits.ndim, dim, "gumbel_softmax")
    chosen = unsqueeze(argmax(soft.detach(), i), i)
    return scatter(zeros_like(logits.detach()), i, chosen, 1.0) - soft.detach() + soft
