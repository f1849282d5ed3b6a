"""Rows of elementwise entries, conversions and joins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends import reference
from minidl.dtypes import ALL, DType, bfloat16, bool_, float16, float32, int32, int64, uint8
from minidl.errors import OutOfRangeError
from minidl.testing.case import Sample, sample
from minidl.testing.draws import Inputs
from minidl.testing.entries.draws import array, shape
from minidl.testing.entry import WORKING, Entry, entry
from minidl.testing.targets import kernels, placed

NUMBERS = (*WORKING, int64, int32, uint8)


def one(low: float = -3, high: float = 3, extreme: bool = True, *more: Any) -> Inputs:
    """One array of any shape, and what else the entry takes."""
    return lambda d, dtype: sample(array(d, shape(d), dtype, low, high, extreme), *more)


def two(low: float = -3, high: float = 3, positive: bool = False) -> Inputs:
    """Two arrays that broadcast, of which one may be 0-d."""

    def inputs(d: Any, dtype: DType) -> Sample:
        first = shape(d)
        least = 1 if positive else low
        x = array(d, first, dtype, low, high, extreme=True)
        y = array(d, d.broadcastable(first), dtype, least, high, extreme=True)
        return sample(x, y) if d.boolean() or positive else sample(y, x)

    return inputs


def _clip(d: Any, dtype: DType) -> Sample:
    low, high = sorted((d.integer(-2, 2), d.integer(-2, 2)))
    ends = d.choice([(low, high), (low, None), (None, high)])
    return sample(array(d, shape(d), dtype, extreme=True), *ends)


def _where(d: Any, dtype: DType) -> Sample:
    full = shape(d)
    x = array(d, d.broadcastable(full, within=True), dtype, extreme=True)
    y = array(d, d.broadcastable(full, within=True), dtype, extreme=True)
    return sample(d.mask(full), x, y)


def _power(d: Any, dtype: DType) -> Sample:
    exponent = d.choice([2.0, 0.5, -1.0, 3.0, -0.5, 1.5, -2.0, 0.0, 1.0])
    return sample(array(d, shape(d), dtype, 0.25, 3, extreme=True), exponent)


def _softplus(d: Any, dtype: DType) -> Sample:
    # the threshold lies where no value comes near it: it decides between two formulas
    return sample(array(d, shape(d), dtype, -4, 4), d.choice([1.0, 2.5]), d.choice([20.0, 100.0]))


def _gelu(d: Any, dtype: DType) -> Sample:
    return sample(array(d, shape(d), dtype, extreme=True), d.choice(["none", "tanh"]))


def _slope(*attributes: Any) -> Inputs:
    """g and x of one shape, and one of the attributes."""

    def inputs(d: Any, dtype: DType) -> Sample:
        full = shape(d)
        more = (d.choice(attributes),) if attributes else ()
        g = array(d, full, dtype)
        return sample(g, array(d, full, dtype, extreme=not attributes), *more)

    return inputs


def _of_result(function: Callable[[np.ndarray], np.ndarray]) -> Inputs:
    """g, and what the function gives for some x."""

    def inputs(d: Any, dtype: DType) -> Sample:
        full = shape(d)
        result = function(np.asarray(d.rng.uniform(-3, 3, full))).astype(dtype.numpy)
        return sample(array(d, full, dtype, extreme=True), d.layout(np.asarray(result)))

    return inputs


def _cast(d: Any, dtype: DType) -> Sample:
    to = d.choice(ALL)
    low = -3 if dtype.is_signed and to.is_signed else 0
    # what float to integer gives out of range depends on the processor
    return sample(array(d, shape(d), dtype, low, 3, extreme=to.name[0] in "fb"), to.numpy)


def _windows(d: Any, dtype: DType) -> Sample:
    full = shape(d, least=1, empty=False)
    axis = d.axis(len(full))
    return sample(array(d, full, dtype, 0, 3), d.integer(1, full[axis]), axis)


def _copy(d: Any, dtype: DType) -> Sample:
    return sample(array(d, shape(d), dtype, 0, 3, extreme=True))


def _cat(d: Any, dtype: DType) -> Sample:
    full = list(shape(d, least=1))
    axis = d.integer(0, len(full) - 1)
    parts = []
    for _ in range(d.integer(1, 4)):
        sides = [*full[:axis], d.integer(0, 5), *full[axis + 1 :]]
        parts.append(array(d, sides, dtype, 0, 3, extreme=True))
    return Sample((parts,), {"axis": axis})


def _broadcast(d: Any, dtype: DType) -> Sample:
    full = shape(d)
    return sample(array(d, d.broadcastable(full, within=True), dtype), full)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _of_g(want: Any, g: np.ndarray, *_: Any) -> np.ndarray:
    return 2 * np.abs(g)


def _of_g_and_x(want: Any, g: np.ndarray, x: np.ndarray, *_: Any) -> np.ndarray:
    return 4 * np.abs(g) * (1 + np.abs(x))


def _on_device(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x: placed(function(x))


def _refused(d: Any, dtype: DType) -> Sample:
    bad = np.zeros(shape(d), bool)
    if bad.size and d.boolean():
        bad.flat[d.integer(0, bad.size - 1)] = True
    return sample(d.layout(bad))


def _raises(refuse: Callable[..., Any]) -> Callable[..., Any]:
    """Whether it raises, at once or at the next read."""

    def raises(bad: Any) -> Any:
        try:
            refuse(bad, OutOfRangeError("refused"))
            kernels().host(bad)
        except OutOfRangeError:
            return np.bool_(True)
        return np.bool_(False)

    return raises


ANY = (*NUMBERS, bool_)
EXACT = 0.0  # ULP: one rounding, of which there is one right result (and two zeros)
ROWS: tuple[Entry, ...] = (
    *(
        entry(n, two(), dtypes=NUMBERS, half="table", same=EXACT)
        for n in ("add", "mul", "maximum", "eq", "ne", "lt", "le", "gt", "ge")
    ),
    entry("sub", two(0, 3), dtypes=NUMBERS, half="table", same=EXACT),
    entry("div", two(0.5, 3, positive=True), half="table", same=EXACT),
    *(entry(n, one(), dtypes=(*WORKING, int64), half="table", same=EXACT) for n in ("neg", "abs")),
    entry("host", one(), dtypes=ANY, view=True, any_order=True, same="bits", through=_on_device),
    entry(
        "refuse",
        _refused,
        dtypes=(float32,),
        any_order=True,
        oracle=_raises(reference.refuse),
        through=_raises,
    ),
    entry("sqrt", one(0, 9), half="table", same=EXACT),
    entry("clip", _clip, dtypes=(*WORKING, int64), half="table", same=EXACT),
    entry("where", _where, dtypes=ANY, half="table", same=EXACT),
    entry("relu", one(), half="table", same=EXACT),
    entry("relu_backward", _of_result(lambda x: np.maximum(x, 0)), half="table", same=EXACT),
    # these keep the order of a transposed input, as NumPy's functions that they are made of do
    entry("rsqrt", one(0.1, 9), half="table"),
    entry("pow_scalar", _power, half="table"),
    # e^x of the largest and smallest numbers is a denormal number: its last digits are lost
    entry("exp", one(-20, 20), half="table", least=1),
    entry("log", one(0.01, 9), half="table"),
    entry("tanh", one(), half="table", least=1),
    entry("erf", one(), least=1),
    entry("erfc", one(-3, 9), least=1),
    entry("erfinv", one(-0.99, 0.99, False)),
    entry("sigmoid", one(-20, 20), half="table", least=1),
    entry("log_sigmoid", one(-20, 20), half="table", least=1),
    entry("softplus", _softplus, half="table", least=1),
    entry("gelu", _gelu, half="table", floor=lambda want, x, kind: 4 * np.abs(x)),
    entry("silu", one(-20, 20, False), half="table", least=20),
    entry("tanh_backward", _of_result(np.tanh), half="table", floor=_of_g),
    entry("sigmoid_backward", _of_result(_sigmoid), half="table", floor=_of_g),
    entry("gelu_backward", _slope("none", "tanh"), half="table", floor=_of_g_and_x),
    entry("silu_backward", _slope(), half="table", floor=_of_g_and_x),
    entry("lgamma", one(0.1, 9, False)),
    entry("digamma", one(0.1, 9, False)),
    entry("zeta", lambda d, dtype: _pair(d, dtype, (1.5, 9), (0.5, 9))),
    entry("gammainc", lambda d, dtype: _pair(d, dtype, (0.2, 9), (0.1, 9)), scale=4),
    entry("gammaincc", lambda d, dtype: _pair(d, dtype, (0.2, 9), (0.1, 9)), scale=4),
    entry("log_gamma_quantile_backward", lambda d, t: _pair(d, t, (0.3, 9), (-2, 2)), scale=4),
    entry("cast", _cast, dtypes=ALL, same="bits", any_order=True),
    entry("copy", _copy, dtypes=ALL, same="bits"),
    entry("ascontiguousarray", _copy, dtypes=ALL, same="bits", view=True),
    entry("windows", _windows, dtypes=ALL, same="bits", view=True),
    entry("cat", _cat, dtypes=(*ANY, float16, bfloat16), same="bits"),
    entry("broadcast_to", _broadcast, dtypes=(*ANY, float16, bfloat16), same="bits", view=True),
)


def _pair(d: Any, dtype: DType, first: tuple, second: tuple) -> Sample:
    full = shape(d)
    return sample(array(d, full, dtype, *first), array(d, full, dtype, *second))
