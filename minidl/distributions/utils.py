"""What several distributions need: broadcasting of parameters, probabilities and log-odds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.autograd.modes import enable_grad
from minidl.dtypes import FLOAT, finfo, get_default_dtype
from minidl.errors import DTypeError
from minidl.ops.activation import sigmoid, softplus
from minidl.ops.convert import cast
from minidl.ops.creation import tensor
from minidl.ops.select import clamp
from minidl.ops.softmax import softmax
from minidl.ops.transcendental import log, log1p
from minidl.ops.views import broadcast_tensors
from minidl.tensor import Tensor

__all__ = [
    "broadcast_all",
    "clamp_probs",
    "lazy_property",
    "logits_to_probs",
    "probs_to_logits",
]

EULER = 0.5772156649015329
HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)


def broadcast_all(*values: Any) -> tuple[Tensor, ...]:
    """Tensors and numbers as tensors of one shape; numbers get dtype and device of the tensors.

    Integers become floating point: parameters are.
    """
    like = next((v for v in values if type(v) is Tensor), None)
    dtype = get_default_dtype() if like is None else like.dtype
    device = None if like is None else like.device
    if dtype.kind != FLOAT:
        dtype = get_default_dtype()
    found = []
    for value in values:
        if type(value) is not Tensor:
            if not isinstance(value, int | float | np.generic):
                raise DTypeError("parameters must be Tensors or numbers", got=repr(value))
            value = tensor(float(value), dtype=dtype, device=device)
        found.append(value if value.dtype.kind == FLOAT else cast(value, dtype))
    return tuple(broadcast_tensors(*found))


def clamp_probs(probs: Tensor) -> Tensor:
    """Probabilities limited to [eps, 1 - eps] of their dtype."""
    eps = finfo(probs.dtype).eps
    return clamp(probs, eps, 1 - eps)


def probs_to_logits(probs: Tensor, is_binary: bool = False) -> Tensor:
    """Log-odds if `is_binary`, else logarithms."""
    limited = clamp_probs(probs)
    return log(limited) - log1p(-limited) if is_binary else log(limited)


def logits_to_probs(logits: Tensor, is_binary: bool = False) -> Tensor:
    """The sigmoid if `is_binary`, else the softmax over the last axis."""
    return sigmoid(logits) if is_binary else softmax(logits, -1)


def binary_entropy(logits: Tensor, probs: Tensor) -> Tensor:
    """-p log p - (1 - p) log(1 - p) from the log-odds."""
    return softplus(logits) - logits * probs


class lazy_property:  # noqa: N801 - PyTorch's name
    """An attribute computed when it is first read, with gradients recorded."""

    def __init__(self, wrapped: Callable[[Any], Any]) -> None:
        self.wrapped = wrapped
        self.__doc__ = wrapped.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        instance.__dict__[self.wrapped.__name__] = value
        return value
