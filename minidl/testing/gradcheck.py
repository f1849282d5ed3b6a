"""Analytic against numerical derivatives: `gradcheck`, `gradgradcheck`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.autograd import enable_grad, grad, no_grad
from minidl.autograd.op import constant
from minidl.backends import host, is_writable, moved
from minidl.dtypes import FLOAT
from minidl.errors import DTypeError, GradientError
from minidl.tensor import Tensor


class GradcheckError(GradientError, AssertionError):
    """An analytic derivative differs from the numerical one."""


def _checked_inputs(inputs: Any, name: str) -> tuple[Any, ...]:
    given = (inputs,) if type(inputs) is Tensor else tuple(inputs)
    wanted = [x for x in given if type(x) is Tensor and x.requires_grad]
    if not wanted:
        raise GradientError("at least one input must require gradients", operator=name)
    for x in wanted:
        if x.array.dtype != np.float64:
            raise DTypeError(
                "inputs must be float64: a difference quotient in "
                f"{x.dtype.name} has errors as large as the tolerance; use x.double()",
                operator=name,
            )
        if not is_writable(x.array) and 0 not in x.array.strides:
            raise GradientError("a read-only input cannot be perturbed; .clone() it", operator=name)
        if 0 in x.array.strides and x.array.size > 1:
            raise GradientError("an expanded input cannot be perturbed; .clone() it", operator=name)
    return given


def _outputs(function: Callable, inputs: Sequence[Any]) -> list[Tensor]:
    result = function(*inputs)
    flat = list(result) if isinstance(result, tuple | list) else [result]
    return [y for y in flat if type(y) is Tensor and y.dtype.kind == FLOAT]


def _beside(y: Tensor, array: np.ndarray) -> Tensor:
    """A tensor on the device of `y`."""
    return constant(moved(np.asarray(array), y.device))


def _difference(
    function: Callable, inputs: Sequence[Any], x: Tensor, step: Any, weights: Sequence[np.ndarray]
) -> float:
    """Central difference of sum(weights * outputs) for `x` moved by +-`step`."""
    before = host(x.array).copy()
    values = []
    try:
        for sign in (1, -1):
            x.array[...] = moved(np.asarray(before + sign * step), x.device)
            with no_grad():
                ys = _outputs(function, inputs)
            pairs = zip(weights, ys, strict=True)
            values.append([float(np.sum(w * host(y.array))) for w, y in pairs])
    finally:
        x.array[...] = moved(before, x.device)
    return float(np.subtract(*np.asarray(values)).sum()) / 2


def _name(function: Callable) -> str:
    return getattr(function, "__name__", type(function).__name__)


def gradcheck(
    func: Callable,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    fast_mode: bool = False,
    seed: int = 0,
) -> bool:
    """Compare `func`'s gradients with central differences, every element or one direction.

    func: Tensors -> Tensor or tuple of them; inputs: float64 Tensors (float32 is refused with the
    reason), those that require gradients are checked. fast_mode compares one random direction per
    input instead of every element. A difference raises GradcheckError with the function, the
    input, the index of the element and both values (or returns False).
    """
    given = _checked_inputs(inputs, "gradcheck")
    rng = np.random.default_rng(seed)
    outputs = _outputs(func, given)
    if not any(y.requires_grad for y in outputs):
        raise GradientError(f"{_name(func)}: no output depends on an input", operator="gradcheck")
    weight_sets = [
        [rng.standard_normal(y.shape) if i == j else np.zeros(y.shape)
         for j, y in enumerate(outputs)]
        for i in range(len(outputs)) if outputs[i].requires_grad
    ]  # fmt: skip
    positions = [i for i, x in enumerate(given) if type(x) is Tensor and x.requires_grad]
    try:
        for weights in weight_sets:
            for i in positions:
                _check_input(func, given, i, weights, eps, atol, rtol, fast_mode, rng)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def _check_input(
    func: Callable,
    inputs: Sequence[Any],
    position: int,
    weights: Sequence[np.ndarray],
    eps: float,
    atol: float,
    rtol: float,
    fast_mode: bool,
    rng: np.random.Generator,
) -> None:
    x = inputs[position]
    with enable_grad():
        ys = _outputs(func, inputs)
        pairs = [(y, _beside(y, w)) for y, w in zip(ys, weights, strict=True) if y.requires_grad]
        (found,) = grad([y for y, _ in pairs], [x], [w for _, w in pairs], allow_unused=True)
    if found is not None and found.shape != x.shape:
        raise GradcheckError(f"{_name(func)}: gradient of input {position} has shape {found.shape}")
    analytic = np.zeros(x.shape) if found is None else host(found.array)
    if fast_mode:
        direction = rng.standard_normal(x.shape)
        direction /= max(float(np.linalg.norm(direction)), 1e-30)
        pairs_of = [("a random direction", direction, float(np.sum(analytic * direction)))]
    else:
        pairs_of = []
        for index in np.ndindex(x.shape):
            unit = np.zeros(x.shape)
            unit[index] = 1
            pairs_of.append((f"element {index}", unit, float(analytic[index])))
    for where, direction, value in pairs_of:
        numerical = _difference(func, inputs, x, eps * direction, weights) / eps
        if not abs(value - numerical) <= atol + rtol * abs(numerical):
            raise GradcheckError(
                f"{_name(func)}: input {position}, {where}: analytic derivative {value:.9g},"
                f" numerical {numerical:.9g}"
            )


def gradgradcheck(
    func: Callable,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    fast_mode: bool = False,
    seed: int = 0,
) -> bool:
    """`gradcheck` of the gradients of `func` with respect to its inputs and grad_outputs."""
    given = _checked_inputs(inputs, "gradgradcheck")
    rng = np.random.default_rng(seed)
    outputs = [y for y in _outputs(func, given) if y.requires_grad]
    if grad_outputs is None:
        drawn = [np.asarray(rng.standard_normal(y.shape)) for y in outputs]
        weights = [_beside(y, w).requires_grad_() for y, w in zip(outputs, drawn, strict=True)]
    else:
        weights = [grad_outputs] if type(grad_outputs) is Tensor else list(grad_outputs)
    positions = [i for i, x in enumerate(given) if type(x) is Tensor and x.requires_grad]

    def first(*args: Any) -> tuple[Any, ...]:
        xs, ws = args[: len(given)], args[len(given) :]
        with enable_grad():
            ys = [y for y in _outputs(func, xs) if y.requires_grad]
            wanted = [xs[i] for i in positions]
            found = grad(ys, wanted, list(ws), create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    first.__name__ = f"gradient of {_name(func)}"
    if not any(y.requires_grad for y in first(*given, *weights)):
        return True
    return gradcheck(
        first,
        (*given, *weights),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        fast_mode=fast_mode,
        seed=seed,
    )
