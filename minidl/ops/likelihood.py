"""Negative log likelihoods of counts and of measurements. All take reduction by name."""

from __future__ import annotations

import math
from typing import Any

from minidl.backends import kernels_for
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.compare import gt
from minidl.ops.creation import full_like
from minidl.ops.method import check_tensor
from minidl.ops.reduce import mean, sum
from minidl.ops.select import clamp_min, where
from minidl.ops.transcendental import exp, log
from minidl.ops.views import unsqueeze
from minidl.tensor import Tensor

__all__ = ["gaussian_nll_loss", "poisson_nll_loss"]


def _check(name: str, input: Any, target: Any, reduction: str) -> None:
    check_tensor(name, "input", input)
    check_tensor(name, "target", target)
    if input.dtype.kind != FLOAT:
        raise DTypeError("input must be floating point", operator=name, got=repr(input.dtype))
    allowed = ("mean", "sum", "none")
    if reduction not in allowed:
        raise ArgumentError(f"reduction is one of {allowed}", operator=name, got=repr(reduction))


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    if reduction == "none":
        return losses
    return mean(losses) if reduction == "mean" else sum(losses)


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    *,
    eps: float = 1e-8,
    reduction: str = "mean",
) -> Tensor:
    """`exp(input) - target * input`, or `input - target * log(input + eps)` without log_input.

    input: the logarithm of the expected count, or the count; full: adds Stirling's approximation of
    log(target!) for targets above 1.
    """
    _check("poisson_nll_loss", input, target, reduction)
    losses = exp(input) - target * input if log_input else input - target * log(input + eps)
    if full:
        above = gt(target, 1)
        count = where(above, target, 1.0)
        stirling = count * log(count) - count + 0.5 * log(2 * math.pi * count)
        losses = losses + where(above, stirling, 0.0)
    return _reduced(losses, reduction)


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Any,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """`(log(var) + (input - target) ** 2 / var) / 2`; full: adds log(2 pi) / 2.

    input, target: shapes that broadcast; var: a number, of input's shape, or with 1 or nothing for
    its last axis. Variances below `eps` count as `eps`, but keep their gradient. Raises
    ArgumentError for a negative one. Source: Nix and Weigend, ICNN 1994.
    """
    name = "gaussian_nll_loss"
    _check(name, input, target, reduction)
    if type(var) is not Tensor:
        var = full_like(input, float(var))
    k: Any = kernels_for(var.array)
    k.refuse(k.lt(var.array, 0), ArgumentError("var must not be negative", operator=name))
    if not eps > 0:
        raise ArgumentError("eps must be positive", operator=name, got=repr(eps))
    if var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = unsqueeze(var, -1)
        elif var.shape != (*input.shape[:-1], 1):
            raise ShapeError("var must have input's shape, or 1 for its last axis",
                             operator=name, got=f"{var.shape}, {input.shape}")  # fmt: skip
    fixed = var.detach()
    var = var + (clamp_min(fixed, eps) - fixed)
    losses = 0.5 * (log(var) + (input - target) * (input - target) / var)
    return _reduced(losses + 0.5 * math.log(2 * math.pi) if full else losses, reduction)
