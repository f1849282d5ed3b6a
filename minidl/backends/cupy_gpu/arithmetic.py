"""Entries of the array module where CuPy's function gives something else than NumPy's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp


def _is_float(x: Any, y: Any) -> bool:
    """Of operands of one dtype, one of which may be a number."""
    return (x if isinstance(x, cp.ndarray) else y).dtype.kind == "f"


def _rest(x: Any, y: Any) -> tuple[Any, Any]:
    """What the division towards zero leaves, exact, and where its sign is not that of y."""
    rest = cp.fmod(x, y)
    return rest, cp.logical_and(rest != 0, cp.logical_xor(rest < 0, cp.less(y, 0)))


def floor_divide(x: Any, y: Any) -> Any:
    """x / y rounded down, once; of floats CuPy rounds down what the division has rounded up."""
    if not _is_float(x, y):
        return cp.floor_divide(x, y)
    rest, turned = _rest(x, y)
    ratio = cp.true_divide(x, y)
    whole = cp.rint(cp.true_divide(x - rest, y)) - turned
    whole = cp.where(whole == 0, cp.copysign(whole, ratio), whole)
    return cp.where(cp.equal(y, 0), ratio, whole)


def remainder(x: Any, y: Any) -> Any:
    """x - y * (x // y), exact, with the sign of y."""
    if not _is_float(x, y):
        return cp.remainder(x, y)
    rest, turned = _rest(x, y)
    return cp.where(rest == 0, cp.copysign(rest, y), cp.where(turned, rest + y, rest))


def clip(x: Any, low: Any = None, high: Any = None, out: Any = None) -> Any:
    """x within bounds, and NaN where a bound is; CuPy's passes over such bounds."""
    numbers = [bound for bound in (low, high) if isinstance(bound, int | float)]
    if len(numbers) == 2 and all(bound == bound for bound in numbers):
        return cp.clip(x, low, high, out=out)
    if low is not None:
        x = cp.maximum(x, low, out=out)
    return x if high is None else cp.minimum(x, high, out=out)


def _as_bits(function: Callable[..., Any], x: Any, *args: Any) -> Any:
    """`function` of the bits where CuPy's has no loop for bfloat16."""
    if x.dtype.kind != "V":
        return function(x, *args)
    bits = [a.view(np.uint16) if isinstance(a, cp.ndarray) else a for a in (x, *args)]
    return function(*bits).view(x.dtype)


def where(condition: Any, x: Any, y: Any) -> Any:
    """x where the condition holds, else y."""
    if all(isinstance(a, cp.ndarray) and a.dtype.kind == "V" for a in (x, y)):
        return _as_bits(lambda x, y: cp.where(condition, x, y), x, y)
    return cp.where(condition, x, y)


def tril(x: Any, k: int = 0) -> Any:
    """The part on and below diagonal k."""
    return _as_bits(cp.tril, x, k)


def triu(x: Any, k: int = 0) -> Any:
    """The part on and above diagonal k."""
    return _as_bits(cp.triu, x, k)


ENTRIES: dict[str, Callable[..., Any]] = {
    function.__name__: function for function in (floor_divide, remainder, clip, where, tril, triu)
}
