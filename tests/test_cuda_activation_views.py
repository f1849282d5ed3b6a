"""Activations and the bias of linear maps on the emulator: views, infinities, shapes, order."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated
from hypothesis import given, settings, strategies as st

from minidl.backends import reference
from minidl.backends.table import Kernels

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

Table = tuple[Kernels, Emulator]
RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16)
EPS = {dtype: float(ml_dtypes.finfo(dtype).eps) for dtype in FLOATS}
# name -> the further arguments, and whether there is a gradient before x
ENTRIES: dict[str, tuple[tuple[Any, ...], bool]] = {
    "relu": ((), False),
    "sigmoid": ((), False),
    "silu": ((), False),
    "log_sigmoid": ((), False),
    "gelu": (("none",), False),
    "gelu tanh": (("tanh",), False),
    "softplus": ((2.5, 4.0), False),
    "relu_backward": ((), True),
    "sigmoid_backward": ((), True),
    "tanh_backward": ((), True),
    "silu_backward": ((), True),
    "gelu_backward": (("none",), True),
    "gelu_backward tanh": (("tanh",), True),
}
NEEDS = (True, True, True), (False, False, True), (True, False, False), (False, True, True)
ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid")


@pytest.fixture(scope="module", params=[0, 1, 7], ids=["in order", "backwards", "shuffled"])
def gpu(request: pytest.FixtureRequest) -> Iterator[Table]:
    with emulated(request.param) as found:
        yield found


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Whichever tests ran before in this process."""
    RNG.bit_generator.state = START


def numbers(*shape: int, dtype: Any = np.float32, scale: float = 2) -> np.ndarray:
    return (scale * RNG.standard_normal(shape)).astype(dtype)


def close(found: np.ndarray, want: np.ndarray, dtype: np.dtype, size: float = 1) -> None:
    """`want`: in float64, from the same numbers; 16-bit floats are float32, rounded once."""
    assert found.dtype == dtype
    assert found.flags.c_contiguous
    eps = EPS[dtype]
    rtol, working = (0.51 * eps, EPS[FLOATS[0]]) if dtype.itemsize == 2 else (8 * eps, eps)
    np.testing.assert_allclose(found.astype(np.float64), want, rtol=rtol, atol=4 * working * size)


def check(gpu: Table, name: str, *arrays: Any) -> None:
    """One entry on arrays of the stand-in, in one kernel."""
    k, machine = gpu
    given, _ = ENTRIES[name]
    entry = name.split()[0]
    wide = [k.host(x).astype(np.float64) for x in arrays]
    before = machine.started.total()
    found = getattr(k, entry)(*arrays, *given)
    assert machine.started.total() == before + bool(wide[0].size)
    size = np.prod([1 + np.abs(x).max(initial=0) for x in wide])
    close(k.host(found), getattr(reference, entry)(*wide, *given), arrays[0].dtype, float(size))


@given(st.data())
@settings(max_examples=30, deadline=None)
@pytest.mark.parametrize("name", ENTRIES)
def test_views(gpu: Table, name: str, data: st.DataObject):
    dtype = data.draw(st.sampled_from(FLOATS))
    shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=3)))
    arrays = []
    for _ in range(1 + ENTRIES[name][1]):
        start = data.draw(st.integers(0, 9))
        size = int(np.prod(shape))
        whole = gpu[0].asarray(numbers(start + 2 * size, dtype=dtype))
        kind = data.draw(st.sampled_from(("shifted", "strided", "transposed", "broadcast")))
        if kind == "strided":
            view = whole[start : start + 2 * size : 2].reshape(shape)
        elif kind == "transposed":
            view = whole[start : start + size].reshape(shape[::-1]).transpose()
        elif kind == "broadcast" and size:
            view = gpu[0].broadcast_to(whole[:1].reshape((1,) * len(shape)), shape)
        else:
            view = whole[start : start + size].reshape(shape)
        arrays.append(view)
    check(gpu, name, *arrays)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ENTRIES)
def test_infinities_and_nan(gpu: Table, name: str, dtype: np.dtype):
    k = gpu[0]
    given, backward = ENTRIES[name]
    entry = name.split()[0]
    x = np.array([-np.inf, np.inf, np.nan, 0.0, -0.0, -300.0, 300.0, 1.0], dtype)
    if entry in ("relu_backward", "sigmoid_backward", "tanh_backward"):
        x = np.array([0, 1, np.nan, 0.5, -0.0, 0.0, 1.0, 0.25], dtype)
    g = np.array([1, 2, 3, np.inf, np.inf, -4, 0.5, np.nan], dtype)
    arrays = (g, x) if backward else (x,)
    with np.errstate(all="ignore"):
        want = getattr(reference, entry)(*(a.astype(np.float64) for a in arrays), *given)
    found = k.host(getattr(k, entry)(*map(k.asarray, arrays), *given))
    close(found, want, dtype)


def test_slopes_of_gelu_far_away(gpu: Table):
    """No infinity times 0: the limits are 0 and 1."""
    k = gpu[0]
    x = np.array([-np.inf, -3e38, -50, 50, 3e38, np.inf], np.float32)
    for approximate in ("none", "tanh"):
        found = k.host(k.gelu_backward(k.asarray(np.ones_like(x)), k.asarray(x), approximate))
        assert found.tolist() == [0, 0, 0, 1, 1, 1]


def test_what_has_no_kernel_is_handed_on(gpu: Table):
    k, machine = gpu
    before = machine.started.total()
    x = np.array([-2, 0, 3])
    assert k.host(k.relu(k.asarray(x))).tolist() == [0, 0, 3]
    assert machine.started.total() == before


# ---------------------------------------------------------------- linear


SHAPES = [((5, 3), 1), ((7,), 33), ((2, 3, 4), 7), ((1, 2), 1025), ((700, 2), 3), ((130, 3), 136)]
SHAPES += [((0, 3), 4), ((4, 3), 0), ((4, 0), 5), ((3, 0, 2), 2)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "outer"), SHAPES)
def test_linear(gpu: Table, shape: tuple[int, ...], outer: int, dtype: Any):
    k = gpu[0]
    sizes = shape, (outer, shape[-1]), (outer,)
    x, weight, bias = (numbers(*size, dtype=dtype, scale=1) for size in sizes)
    for name in ACTIVATIONS:
        for keep in (True, False):
            for b in (bias, None):
                given = (x, weight, b)
                wide = [None if a is None else a.astype(np.float64) for a in given]
                want, kept = reference.linear(*wide, name, keep)
                on_gpu = [None if a is None else k.asarray(a) for a in given]
                found, pre = k.linear(*on_gpu, name, keep)
                close(k.host(found), want, np.dtype(dtype), 4)
                assert (pre is None) == (kept is None), (name, keep)
                if pre is not None:
                    close(k.host(pre), kept, np.dtype(dtype), 4)
                    assert not np.shares_memory(k.host(found), k.host(pre))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_linear_adds_and_activates_in_one_kernel(gpu: Table, name: str | None):
    k, machine = gpu
    x, weight, bias = (k.asarray(numbers(*s)) for s in ((6, 4), (5, 4), (5,)))
    expected = "_".join(filter(None, ("bias", name, "float32")))
    before = machine.started[expected]
    k.linear(x, weight, bias, name, True)
    assert machine.started[expected] == before + 1


def test_linear_refuses_shapes_that_do_not_fit(gpu: Table):
    k = gpu[0]
    x, weight = k.asarray(numbers(6, 4)), k.asarray(numbers(5, 4))
    for bias in (numbers(4), numbers(1), numbers(5, 1)):
        with pytest.raises(ValueError, match=r"."):
            k.linear(x, weight, k.asarray(bias), "relu", True)
    with pytest.raises(ValueError, match=r"."):
        k.linear(x, k.asarray(numbers(5, 3)), k.asarray(numbers(5)), None, True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("shape", "outer"), SHAPES)
def test_linear_backward(gpu: Table, shape: tuple[int, ...], outer: int, dtype: Any):
    k = gpu[0]
    sizes = shape, (outer, shape[-1]), (*shape[:-1], outer)
    x, weight, g = (numbers(*size, dtype=dtype, scale=1) for size in sizes)
    for name in ACTIVATIONS:
        pre, kept = reference.linear(x, weight, None, name, True)
        kept = None if name is None else pre if kept is None else kept
        for needs in NEEDS:
            given = (g, x if needs[1] else None, weight if needs[0] else None)
            wide = [None if a is None else a.astype(np.float64) for a in given]
            kept_wide = None if kept is None else kept.astype(np.float64)
            want = reference.linear_backward(*wide, needs, name, kept_wide)
            on_gpu = [None if a is None else k.asarray(a) for a in given]
            kept_there = None if kept is None else k.asarray(kept)
            found = k.linear_backward(*on_gpu, needs, name, kept_there)
            for one, other in zip(found, want, strict=True):
                assert (one is None) == (other is None), (name, needs)
                if one is not None:
                    assert one.shape == other.shape
                    close(k.host(one), other, np.dtype(dtype), 64)


@pytest.mark.parametrize("name", [None, "silu"])
def test_sums_of_a_bias_do_not_depend_on_the_order_of_threads(name: str | None):
    g, x, weight = numbers(3000, 37), numbers(3000, 2), numbers(37, 2)
    kept = numbers(3000, 37)
    found = []
    for order in (0, 1, 7, 8):
        with emulated(order) as (k, _):
            given = [k.asarray(a) for a in (g, x, weight)]
            last = k.asarray(kept) if name else None
            found.append(k.host(k.linear_backward(*given, (False, False, True), name, last)[2]))
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("width", [1, 2, 7, 8, 31, 33, 127, 128, 129, 1025])
def test_sums_of_a_bias(gpu: Table, width: int):
    """Of whole numbers, which are exact in any order; of views, too."""
    k = gpu[0]
    for rows in (1, 2, 65, 200, 5000 // width):
        whole = RNG.integers(-9, 9, rows * width + 1).astype(np.float32)
        g = whole[1:].reshape(rows, width)
        views = [(g, k.asarray(whole)[1:].reshape(rows, width))]
        views.append((np.broadcast_to(g[:1], g.shape), k.broadcast_to(k.asarray(g[:1]), g.shape)))
        views.append((g.T.reshape(rows, width), k.asarray(g.T).reshape(rows, width)))
        for want, view in views:
            found = k.linear_backward(view, None, None, (False, False, True), None, None)[2]
            assert np.array_equal(k.host(found), want.sum(0))
