"""Draws whose distribution depends on tensors by rejection: gamma, Dirichlet, Poisson, binomial."""

from __future__ import annotations

from typing import Any

from minidl.autograd.op import Array, op
from minidl.dtypes import FLOAT
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.method import check_tensor
from minidl.ops.random import Generator, drawn
from minidl.ops.softmax import softmax
from minidl.ops.special import log_gamma_slope
from minidl.tensor import Tensor

__all__ = ["binomial", "poisson"]


def _parameter(operator: str, name: str, value: Tensor) -> None:
    check_tensor(operator, name, value)
    if value.dtype.kind != FLOAT:
        rule = f"{name} must be floating point"
        raise DTypeError(rule, operator=operator, got=repr(value.dtype))


@op
def _log_standard_gamma(k: Any, concentration: Array, seed: int, offset: int) -> Any:
    error = ArgumentError("concentration must not be negative", operator="standard_gamma")
    k.refuse(k.lt(concentration, 0), error)
    return k.log_standard_gamma(concentration, seed, offset)


@_log_standard_gamma.gradient
def _(g: Tensor, concentration: Tensor, out: Tensor) -> Any:
    return g * log_gamma_slope(concentration, out)


@op(residuals=("log",))
def _standard_gamma(k: Any, concentration: Array, seed: int, offset: int) -> Any:
    k.refuse(k.lt(concentration, 0), ArgumentError("concentration must not be negative"))
    log = k.log_standard_gamma(concentration, seed, offset)
    return k.exp(log), log


@_standard_gamma.gradient
def _(g: Tensor, concentration: Tensor, out: Tensor, log: Tensor) -> Any:
    return g * out * log_gamma_slope(concentration, log)


def standard_gamma(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """Gamma variables of shape `concentration` >= 0 and scale 1, in its shape and dtype.

    The gradient is that of implicit reparameterisation, of first order. Sources: Marsaglia and
    Tsang 2000; Figurnov, Mohamed and Mnih 2018.
    """
    _parameter("standard_gamma", "concentration", concentration)
    return _standard_gamma(concentration, *drawn(generator, 4 * concentration.numel()))


def log_standard_gamma(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """The logarithm of `standard_gamma`, which does not underflow for small concentrations."""
    _parameter("standard_gamma", "concentration", concentration)
    return _log_standard_gamma(concentration, *drawn(generator, 4 * concentration.numel()))


def standard_dirichlet(concentration: Tensor, generator: Generator | None = None) -> Tensor:
    """Points of the simplex, one per row of `concentration` (..., K), by K gamma variables."""
    _parameter("standard_dirichlet", "concentration", concentration)
    if not concentration.ndim:
        raise ShapeError("needs one axis", operator="standard_dirichlet", got="()")
    return softmax(log_standard_gamma(concentration, generator), -1)


@op(nondiff=True)
def _poisson(k: Any, input: Array, seed: int, offset: int) -> Any:
    k.refuse(k.lt(input, 0), ArgumentError("rates must not be negative"))
    return k.poisson(input, seed, offset)


def poisson(input: Tensor, generator: Generator | None = None) -> Tensor:
    """Poisson variables whose means are the elements of `input`, in its shape and dtype.

    Source: Hoermann 1993 (PTRS).
    """
    _parameter("poisson", "input", input)
    return _poisson(input, *drawn(generator, 4 * input.numel()))


@op(nondiff=True)
def _binomial(k: Any, count: Array, prob: Array, generator: Any) -> Any:
    if count.dtype.kind != "f":
        raise DTypeError("count and prob must be floating point")
    broken = k.logical_or(k.lt(count, 0), k.ne(count, k.floor(count)))
    k.refuse(broken, ArgumentError("count must be whole numbers, not negative"))
    outside = k.logical_or(k.lt(prob, 0), k.gt(prob, 1))
    k.refuse(outside, ArgumentError("prob must lie in [0, 1]"))
    total = k.add(count, k.mul(prob, 0))
    seed, offset = drawn(generator, 4 * total.size)
    return k.binomial(k.broadcast_to(count, total.shape), k.broadcast_to(prob, total.shape),
                      seed, offset)  # fmt: skip


def binomial(count: Tensor, prob: Tensor, generator: Generator | None = None) -> Tensor:
    """Successes in `count` trials of probability `prob`; both broadcast, floating point.

    Source: Hoermann 1993 (BTRS).
    """
    _parameter("binomial", "count", count)
    _parameter("binomial", "prob", prob)
    return _binomial(count, prob, generator)
