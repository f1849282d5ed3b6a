"""bfloat16 and arithmetic of the native table: every value, every form, rounded once."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conftest import ISAS, on_table
from hypothesis import given, strategies as st

import minidl
from minidl.backends import local, native

pytestmark = pytest.mark.skipif(not ISAS, reason=f"no native kernels: {native.layer().missing}")
rng = np.random.default_rng(0)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
EVERY = np.arange(65536, dtype=np.uint16).view(BFLOAT16)
UNARY = [
    *(
        (name, ())
        for name in ["neg", "abs", "sqrt", "rsqrt", "relu", "exp", "log", "tanh", "sigmoid", "silu"]
    ),
    *(("pow_scalar", (exponent,)) for exponent in (2, 3.0, 0.5, -0.5, -1, 2.5)),
    ("clip", (-1, 0.3)),
    ("clip", (None, 1e-39)),
    ("gelu", ("none",)),
    ("gelu", ("tanh",)),
]
BINARY = ("add", "sub", "mul", "div", "maximum")


@pytest.fixture(params=ISAS, autouse=True)
def _isa(request: pytest.FixtureRequest) -> Any:
    with on_table(request.param):
        yield


def run(name: str, *args: Any, **options: Any) -> Any:
    return local.state.run(getattr(local.state.cpu, name), *args, **options)


def same(got: np.ndarray, want: np.ndarray) -> None:
    """Equal bit by bit, but for the bits of a NaN."""
    assert got.dtype == want.dtype and got.shape == want.shape
    ours, theirs = got.astype(np.float32), want.astype(np.float32)
    np.testing.assert_array_equal(ours, theirs)
    finite = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(ours)[finite], np.signbit(theirs)[finite])


@pytest.mark.parametrize("name, attributes", UNARY, ids=str)
def test_every_bfloat16_is_rounded_once(name: str, attributes: tuple) -> None:
    wide = run(name, EVERY.astype(np.float32), *attributes)
    same(run(name, EVERY, *attributes), local.state.run(wide.astype, BFLOAT16))


SLOPES = [(name, ()) for name in ("relu", "tanh", "sigmoid", "silu")] + [("gelu", ("none",))]


@pytest.mark.parametrize("name, attributes", SLOPES, ids=str)
@pytest.mark.parametrize("shared", [False, True])
def test_gradients_of_every_bfloat16(name: str, attributes: tuple, shared: bool) -> None:
    one = np.asarray(0.7, BFLOAT16)
    g = np.broadcast_to(one, EVERY.shape) if shared else rng.permutation(EVERY)
    wide = run(f"{name}_backward", g.astype(np.float32), EVERY.astype(np.float32), *attributes)
    same(run(f"{name}_backward", g, EVERY, *attributes), local.state.run(wide.astype, BFLOAT16))


def rounded(x: Any, dtype: Any) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(dtype)


def values(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    x = rng.standard_normal(shape)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, 3e38])
    x = np.where(rng.random(shape) < 0.1, rng.choice(special, shape), x)
    return rounded(x, dtype)


FORMS = st.sampled_from(
    [
        ((7, 33), (7, 33)),
        ((7, 33), (33,)),
        ((2, 7, 33), (1, 7, 33)),
        ((7, 33), ()),
        ((7, 33), (1, 1)),
        ((7, 33), (7, 1)),
        ((33,), (7, 33)),
        ((3, 1), (4,)),
        ((0, 3), (3,)),
        ((), ()),
        ((40_000, 2), (2,)),
        ((70_000,), (70_000,)),
    ]
)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16, np.float16], ids=str)
@given(form=FORMS, fortran=st.booleans())
def test_arithmetic_of_two_arrays(name: str, dtype: Any, form: tuple, fortran: bool) -> None:
    a, b = (values(shape, dtype) for shape in form)
    a = np.asfortranarray(a) if fortran else a
    with np.errstate(all="ignore"):
        function = {"sub": "subtract", "mul": "multiply", "div": "divide"}.get(name, name)
        wide = getattr(np, function)(a.astype(np.float32), b.astype(np.float32))
    want = rounded(wide, dtype)
    for x, y in (a, b), (np.array(a, order="C"), b):
        got = np.asarray(run(name, x, y))
        if name == "maximum":  # of 0 and -0 either
            got, want = got + np.zeros_like(got), want + np.zeros_like(want)
        same(got, want)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
@pytest.mark.parametrize("number", [2, 0.1, -3, 0.0, 1 << 40, float("inf")])
def test_arithmetic_with_a_number(name: str, dtype: Any, number: float) -> None:
    a = values((5, 77), dtype)
    function = {"sub": np.subtract, "mul": np.multiply, "div": np.divide}.get(name)
    function = function or getattr(np, name)
    with np.errstate(all="ignore"):
        wide, single = a.astype(np.float32), np.float32(number)
        pairs = [
            (run(name, a, number), function(wide, single).astype(dtype)),
            (run(name, number, a), function(single, wide).astype(dtype)),
        ]
    for got, want in pairs:
        if name == "maximum":  # of 0 and -0 either
            got, want = got + np.zeros_like(got), want + np.zeros_like(want)
        same(got, want)


@pytest.mark.parametrize("number", [0.3, 1e-3, 1e-30, -1.7, 3e38, float("nan")])
def test_products_of_every_bfloat16(number: float) -> None:
    x = EVERY[:: 1 if number == 0.3 else -1]  # subnormal results beside others and among themselves
    with np.errstate(all="ignore"):
        want = rounded(x.astype(np.float32) * np.float32(number), BFLOAT16)
    same(run("mul", x, number), want)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16, np.float16], ids=str)
@given(form=FORMS, turned=st.booleans())
def test_choices(dtype: Any, form: tuple, turned: bool) -> None:
    a, b = (values(shape, dtype) for shape in form)
    shape = np.broadcast_shapes(*form)
    mask = rng.random(shape) < 0.5
    for x, y in (a, b), (a, 0.5), (np.broadcast_to(a, shape).copy(), 3):
        x, y = (y, x) if turned else (x, y)
        wide = [
            v.astype(np.float32) if isinstance(v, np.ndarray) else np.float32(v) for v in (x, y)
        ]
        same(np.asarray(run("where", mask, x, y)), np.where(mask, *wide).astype(dtype))


ORDERS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal,
          "gt": np.greater, "ge": np.greater_equal}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16, np.float16], ids=str)
@given(form=FORMS)
def test_comparisons(name: str, dtype: Any, form: tuple) -> None:
    a, b = (values(shape, dtype) for shape in form)
    b = np.where(rng.random(b.shape) < 0.2, np.asarray(0.5, dtype), b)
    for x, y in (a, b), (b, 0.5), (0.5, b), (a, a.copy()), (a, 1):
        x32, y32 = (np.asarray(v).astype(np.float32) for v in (x, y))
        got = np.asarray(run(name, x, y))
        assert got.dtype == bool
        np.testing.assert_array_equal(got, ORDERS[name](x32, y32))


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
@pytest.mark.parametrize("shape", [(3, 8), (5, 77), (2, 3, 700), (40, 2000), (0, 9), (3, 0)])
def test_arithmetic_with_a_column(name: str, dtype: Any, shape: tuple) -> None:
    a, column = values(shape, dtype), values((*shape[:-1], 1), dtype)
    function = {"sub": "subtract", "mul": "multiply", "div": "divide"}.get(name, name)
    for x, y in (a, column), (column, a):
        with np.errstate(all="ignore"):
            wide = getattr(np, function)(x.astype(np.float32), y.astype(np.float32))
        got, want = np.asarray(run(name, x, y)), rounded(wide, dtype)
        same(got + np.zeros_like(got), want + np.zeros_like(want))


@pytest.mark.parametrize("name", ["amax", "amin"])
@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16, np.float16], ids=str)
@pytest.mark.parametrize(
    "shape", [(), (5,), (9, 16), (3, 700, 2), (70_001,), (300, 130), (2, 9000), (2100, 1001)]
)
def test_extrema(name: str, dtype: Any, shape: tuple[int, ...]) -> None:
    x = rng.standard_normal(shape).astype(dtype)
    function = np.max if name == "amax" else np.min
    for nans in (False, True):
        if nans:
            x = x.copy()
            x.reshape(-1)[rng.integers(0, x.size, 3)] = np.nan
        for axis in (None, tuple(range(len(shape))), *((a,) for a in range(len(shape)))):
            got = np.asarray(run(name, x, axis=axis, keepdims=len(shape) > 2))
            wide = function(x.astype(np.float32), axis=axis, keepdims=len(shape) > 2)
            same(got, np.asarray(wide).astype(dtype))


def test_conversions() -> None:
    wide = np.arange(0, 1 << 32, 40_009, dtype=np.uint32).view(np.float32)  # and all sorts of NaN
    same(run("cast", wide, BFLOAT16), rounded(wide, BFLOAT16))
    same(run("cast", EVERY, np.dtype(np.float32)), EVERY.astype(np.float32))
    same(run("cast", EVERY[::2], np.dtype(np.float16)), rounded(EVERY[::2], np.float16))
    large = rng.standard_normal((2100, 2100)).astype(BFLOAT16)
    same(run("cast", large, np.dtype(np.float32)), large.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16, np.int64], ids=str)
@pytest.mark.parametrize("shape", [(16, 16), (33, 70), (3, 40, 17), (2, 3, 20, 300), (2100, 2100)])
def test_copies_of_transposes(dtype: Any, shape: tuple[int, ...]) -> None:
    x = (rng.standard_normal(shape) * 100).astype(dtype)
    turned = np.swapaxes(x, -1, -2)
    for given_ in (turned, turned[..., 1:, :], turned[::-1], np.swapaxes(turned, 0, 1)):
        got = run("copy", given_)
        assert got.flags.c_contiguous and got.dtype == dtype
        np.testing.assert_array_equal(got, given_)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16, np.int64, np.bool_], ids=str)
def test_joins(dtype: Any) -> None:
    for shape in ((7,), (3, 5), (2, 3, 4)):
        for axis in range(len(shape)):
            sizes = [shape[:axis] + (n,) + shape[axis + 1 :] for n in (1, 0, 6)]
            parts = [(rng.standard_normal(size) * 9).astype(dtype) for size in sizes]
            for given_ in (parts, [np.asfortranarray(p) for p in parts]):
                got = run("cat", given_, axis=axis)
                assert got.dtype == dtype
                np.testing.assert_array_equal(got, np.concatenate(parts, axis=axis))
    with pytest.raises(ValueError, match="dimension"):
        run("cat", [np.ones((2, 3)), np.ones((3, 3))], axis=1)


@pytest.mark.parametrize("shape", [(), (5,), (3, 700, 2), (70_000,), (300, 130), (2, 9000)])
def test_sums_of_bfloat16_are_those_of_float32(shape: tuple[int, ...]) -> None:
    x = rng.standard_normal(shape).astype(BFLOAT16)
    for axis in (None, *((a,) for a in range(len(shape)))):
        got, wide = run("sum", x, axis=axis), np.sum(x.astype(np.float64), axis=axis)
        assert got.dtype == BFLOAT16 and got.shape == np.shape(wide)
        near = np.abs(wide) * 2.0**-8 + np.sum(np.abs(x.astype(np.float64)), axis=axis) * 1e-6
        assert np.all(np.abs(got.astype(np.float64) - wide) <= near)
    same(np.asarray(run("sum", np.ones(4096, BFLOAT16), axis=None)), np.asarray(4096, BFLOAT16))


def test_a_scaled_sum_is_rounded_once() -> None:
    x, y = (minidl.randn(1000).bfloat16() for _ in range(2))
    want = (x.float() + 0.3 * y.float()).bfloat16()
    assert minidl.equal(minidl.add(x, y, alpha=0.3), want)
    want = (x.float() - 0.3 * y.float()).bfloat16()
    assert minidl.equal(minidl.sub(x, y, alpha=0.3), want)


# ---------------------------------------------------------------- errors in units of the last place

RANGES = {
    "exp": (1.0, -104.0, 89.0, np.exp),
    "log": (1.0, 1e-45, 3.4e38, np.log),
    "tanh": (2.0, -10.0, 10.0, np.tanh),
    "erf": (2.0, -5.0, 5.0, lambda x: np.fromiter(map(math.erf, x.tolist()), float, x.size)),
}
# where earlier versions of exp were furthest off
HARD = np.array([59.306038, -27.344315, 4.506332], np.float32)


@pytest.mark.parametrize("name", RANGES)
def test_dense_samples_are_within_their_units(name: str) -> None:
    most, low, high, exact = RANGES[name]
    dense = np.linspace(low, high, 400_001).astype(np.float32)
    # as many of every binade: neighbours of powers of two, where errors are largest
    steps = np.arange(0, 1 << 31, 5003, dtype=np.uint32).view(np.float32)
    x = np.concatenate([dense, steps, -steps, HARD])
    x = x[np.isfinite(x) & (x >= low) & (x <= high)]
    wide = exact(x.astype(np.float64))
    nearest = rounded(wide, np.float32)
    finite = np.isfinite(nearest)
    unit = np.spacing(np.abs(nearest[finite])).astype(np.float64)
    got = run(name, x)
    np.testing.assert_array_equal(got[~finite], nearest[~finite])
    error = np.abs(got[finite] - wide[finite]) / unit
    assert error.max() <= most, x[finite][error.argmax()]
