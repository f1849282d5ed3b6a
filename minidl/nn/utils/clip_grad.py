"""Bounds on the gradients of a model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import minidl.ops as ops
from minidl.autograd import no_grad
from minidl.backends import kernels_for
from minidl.errors import DTypeError, GradientError
from minidl.ops import training
from minidl.tensor import Tensor


def get_total_norm(
    tensors: Tensor | Iterable[Tensor],
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Return the norm of all elements of `tensors` together, a 0-d tensor.

    `foreach` is accepted: one kernel call serves all tensors either way. Raises GradientError
    (a RuntimeError) for an infinite or NaN norm if `error_if_nonfinite`.
    """
    tensors = _tensors(tensors)
    if not tensors:
        return ops.tensor(0.0)
    return _as_tensor(_norm(tensors, norm_type, error_if_nonfinite), tensors[0])


def _norm(tensors: list[Tensor], norm_type: float, error_if_nonfinite: bool) -> Any:
    """A float, or a 0-d array of the gradients' GPU, which is not waited for."""
    total = training.grad_norm(tensors, float(norm_type))
    if error_if_nonfinite and not isinstance(total, float):
        total = float(kernels_for(total).host(total))
    if error_if_nonfinite and not math.isfinite(total):
        raise GradientError(
            f"the gradients' norm of order {norm_type} must be finite",
            operator="clip_grad_norm_",
            got=str(total),
        )
    return total


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    total_norm: Tensor,
    foreach: bool | None = None,
) -> None:
    """Scale all gradients in place by `max_norm / (total_norm + 1e-6)` where that is below 1."""
    if grads := _gradients(parameters):
        total = total_norm.detach() if isinstance(total_norm, Tensor) else total_norm
        on_gpu = isinstance(total, Tensor) and total.device.type != "cpu"
        _scale(grads, float(max_norm), total.array if on_gpu else float(total))


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients in place so that their joint norm is at most `max_norm`.

    Returns the norm before scaling, a 0-d tensor; parameters without gradient are skipped.
    `foreach` and `error_if_nonfinite` are those of get_total_norm.
    """
    grads = _gradients(parameters)
    if not grads:
        return ops.tensor(0.0)
    total = _norm(grads, norm_type, error_if_nonfinite)
    _scale(grads, float(max_norm), total)
    return _as_tensor(total, grads[0])


def _as_tensor(total: Any, like: Tensor) -> Tensor:
    """A norm in the dtype and on the device of a gradient."""
    if isinstance(total, float):
        return ops.tensor(total, dtype=like.dtype, device=like.device)
    return Tensor(total.astype(like.array.dtype))


def _scale(grads: list[Tensor], max_norm: float, total: Any) -> None:
    factor = max_norm / (total + 1e-6)
    if not isinstance(total, float):  # a norm on a GPU; a NaN factor stays one
        k = kernels_for(total)
        training.grad_scale(grads, k.minimum(factor, 1.0))
        return
    if not factor >= 1.0:  # a NaN factor is applied too, so that it shows in every gradient
        training.grad_scale(grads, factor)


def clip_grad_value_(
    parameters: Tensor | Iterable[Tensor], clip_value: float, foreach: bool | None = None
) -> None:
    """Clamp every gradient element to [-clip_value, clip_value] in place."""
    with no_grad():
        for grad in _gradients(parameters):
            grad.clamp_(min=-float(clip_value), max=float(clip_value))


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """The gradients that there are."""
    return [param.grad for param in _tensors(parameters) if param.grad is not None]


def _tensors(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    """What is given, as a list; DTypeError for what is not a tensor, such as a module."""
    params = [parameters] if isinstance(parameters, Tensor) else parameters
    spent = isinstance(params, Iterator)
    found: list[Tensor] = list(params) if isinstance(params, Iterable) else [params]
    if spent and not found:
        warnings.warn(
            "[clip_grad] the iterator over parameters is empty or used up, so nothing is clipped",
            stacklevel=4,
        )
    for param in found:
        if not isinstance(param, Tensor):
            raise DTypeError(
                "parameters must be tensors, as model.parameters() gives them",
                operator="clip_grad",
                got=type(param).__name__,
            )
    return found
