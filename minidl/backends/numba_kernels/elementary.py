"""Elementary functions of kernels, in arithmetic that LLVM turns into vector instructions.

Numba would call the C library once per element: its vector library (SVML) is not on PyPI. These
are plain Python functions, which kernels call by name; `install` tells Numba how to compile them.
The float32 versions are polynomials after a reduction of the range; NaN gives NaN, infinities
their limits. A polynomial may be contracted to multiply-adds, never reordered.
"""

import math
from typing import Any

import numpy as np

# (exp(r) - 1 - r) / r^2 on |r| <= log(2) / 2: our own weighted least-squares fit, which leaves
# exp(r) a relative error of 2^-28; for float64 Taylor's to r^13
_LOG2E = np.float32(1.4426950408889634)
_LN2_HIGH = np.float32(0.693359375)  # 10 bits: products with exponents are exact
_LN2_LOW = np.float32(-2.12194440e-4)
_ROUND = np.float32(12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
_E2, _E3, _E4, _E5, _E6 = (
    np.float32(c) for c in (0.49999994, 0.16666520, 0.041668393, 0.0083687557, 0.0013814517)
)
_LOWEST, _HIGHEST = np.float32(-104.0), np.float32(89.0)  # 0 below, infinite above
_NORMAL = np.float32(-87.33654)  # e^x is a normal number from here on
_ZERO, _ONE, _TWO = (np.float32(c) for c in (0.0, 1.0, 2.0))
_SHIFT = np.int32(1)

_LN2_HIGH64, _LN2_LOW64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_ROUND64 = 6755399441055744.0  # 1.5 * 2^52
(_F2, _F3, _F4, _F5, _F6, _F7, _F8, _F9, _F10, _F11, _F12, _F13) = (
    1 / math.factorial(n) for n in range(2, 14)
)

# erf(u) = tanh(u P(u^2)) within 4 ULP for |u| <= 4.05, where erf becomes 1: the fit of the
# specification (reference/activation.py)
_LAST = np.float32(4.05 * 4.05)
_T0, _T1, _T2, _T3, _T4, _T5, _T6, _T7 = (
    np.float32(c)
    for c in (1.12837925, 0.102769864, -1.95288142e-4, -6.14838253e-4, 8.45965839e-5,
              -4.79460424e-6, 2.7575906e-8, 5.42161184e-9)
)  # fmt: skip
_SQRT_HALF = math.sqrt(0.5)


def like(x: Any, c: float) -> Any:
    """The number c in the type of x: a plain constant would make a float32 expression float64."""
    return type(x)(c)


def widest() -> None:
    """Ask for the widest vectors in the kernel that calls this; LLVM alone stops at 256 bits."""


def maximum(x: Any, y: Any) -> Any:
    """The larger, or NaN if either is: unlike `max`, it reduces in vectors."""
    return x if x > y or x != x else y


def largest(row: Any) -> Any:
    """The largest element of a row; NaN if there is one."""
    top = row[0]
    for j in range(row.size):
        top = maximum(top, row[j])
    return top


def bits(x: Any) -> Any:
    """The bits of a float as an integer of its size."""
    return int(np.asarray(x).view(f"i{np.asarray(x).itemsize}"))


def from_bits(i: Any) -> Any:
    """The float of these bits."""
    return float(np.asarray(i).view(f"f{np.asarray(i).itemsize}"))


def exp(x: Any) -> Any:
    """e^x within 1.5 ULP (float32) or 1 ULP (float64), subnormal results included."""
    return math.exp(x)


def decay(x: Any) -> Any:
    """e^x for x up to 80 as `exp`, but 0 where that is below the smallest normal number."""
    return math.exp(x)


def phi(x: Any) -> Any:
    """The normal distribution function, within 4 eps."""
    return 0.5 * math.erfc(-x * _SQRT_HALF)


def _split32(x):
    """e^x = y 2^n: y and the bits of a float whose last ones are those of n."""
    shifted = x * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    y = _E6 * r + _E5
    y = y * r + _E4
    y = y * r + _E3
    y = y * r + _E2
    y = y * (r * r) + r
    return y + _ONE, bits(shifted)


def _exp32(x):
    x = _LOWEST if x < _LOWEST else x
    x = _HIGHEST if x > _HIGHEST else x
    y, i = _split32(x)
    # 2^n in two factors, of which each is a normal number; Numba's sums of int32 are int64
    i = np.int32(i - bits(_ROUND))
    low = np.int32(i >> _SHIFT)
    y = y * from_bits(np.int32((low + 127) << 23))
    return y * from_bits(np.int32((i - low + 127) << 23))


def _decay32(x):
    y, i = _split32(x)
    y = y * from_bits(np.int32((i + 127) << 23))  # the bits of _ROUND end in 23 zeros
    return _ZERO if x < _NORMAL else y


def _split64(x):
    shifted = x * 1.4426950408889634 + _ROUND64
    n = shifted - _ROUND64
    r = x - n * _LN2_HIGH64
    r = r - n * _LN2_LOW64
    y = _F13 * r + _F12
    y = y * r + _F11
    y = y * r + _F10
    y = y * r + _F9
    y = y * r + _F8
    y = y * r + _F7
    y = y * r + _F6
    y = y * r + _F5
    y = y * r + _F4
    y = y * r + _F3
    y = y * r + _F2
    y = y * (r * r) + r
    return y + 1.0, bits(shifted)


def _exp64(x):
    x = -746.0 if x < -746.0 else x
    x = 710.0 if x > 710.0 else x
    y, i = _split64(x)
    i = i - bits(_ROUND64)
    low = i >> 1
    y = y * from_bits((low + 1023) << 52)
    return y * from_bits((i - low + 1023) << 52)


def _decay64(x):
    y, i = _split64(x)
    y = y * from_bits((i + 1023) << 52)  # the bits of _ROUND64 end in 51 zeros
    return 0.0 if x < -708.396418 else y


def _phi32(x):
    # (1 + tanh(y)) / 2 = 1 / (1 + exp(-2 y)); beyond 4.05 the last slope of y goes on
    u = x * np.float32(_SQRT_HALF)
    s = u * u
    s = _LAST if s > _LAST else s
    p = _T7 * s + _T6
    p = p * s + _T5
    p = p * s + _T4
    p = p * s + _T3
    p = p * s + _T2
    p = p * s + _T1
    p = p * s + _T0
    return _ONE / (_ONE + exp(-_TWO * u * p))


def _phi64(x):
    return 0.5 * math.erfc(-x * _SQRT_HALF)


_installed: list[bool] = []


def install() -> None:
    """Register the functions with Numba, once."""
    if _installed:
        return
    from llvmlite import ir
    from numba import types
    from numba.extending import lower_builtin, overload, register_jitable, type_callable

    same_size = {
        types.float32: types.int32,
        types.float64: types.int64,
        types.int32: types.float32,
        types.int64: types.float64,
    }

    for function in (bits, from_bits):
        type_callable(function)(lambda context: same_size.get)

        @lower_builtin(function, types.Number)
        def _bitcast(context, builder, sig, args):
            return builder.bitcast(args[0], context.get_value_type(sig.return_type))

    type_callable(like)(lambda context: lambda x, c: x)

    @lower_builtin(like, types.Number, types.Number)
    def _like(context, builder, sig, args):
        return context.cast(builder, args[1], sig.args[1], sig.return_type)

    type_callable(widest)(lambda context: lambda: types.none)

    @lower_builtin(widest)
    def _widest(context, builder, sig, args):
        # llvmlite's own `add` knows attributes without a value only
        set.add(builder.function.attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    type_callable(maximum)(lambda context: lambda x, y: x if x == y else None)

    @lower_builtin(maximum, types.Float, types.Float)
    def _maximum(context, builder, sig, args):
        kind = context.get_value_type(sig.return_type)
        name = f"llvm.maximum.f{sig.return_type.bitwidth}"
        function = builder.module.declare_intrinsic(name, [], ir.FunctionType(kind, [kind, kind]))
        return builder.call(function, args)

    def by_type(single, double):
        return lambda x: single if x == types.float32 else double

    options: Any = {"fastmath": {"contract"}, "error_model": "numpy", "forceinline": True}
    for function in (_split32, _split64):
        register_jitable(**options)(function)
    overload(exp, jit_options=options)(by_type(_exp32, _exp64))
    overload(decay, jit_options=options)(by_type(_decay32, _decay64))
    overload(phi, jit_options=options)(by_type(_phi32, _phi64))
    _installed.append(True)
