"""The kernels of reductions on the emulator, beyond the rows of their entries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated

from minidl.backends.native_cuda import reduce
from minidl.backends.table import Kernels
from minidl.testing.cases import reduce as cases
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, on, placed

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16]
WIDTHS = [1, 7, 8, 31, 32, 33, 1023, 1024, 1025]


@pytest.fixture(scope="module", params=[0, 7], ids=["in order", "shuffled"])
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[Kernels, Emulator]]:
    with emulated(request.param) as found, on(Target("cuda")):
        yield found


def draw(shape: Any, dtype: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-3, 3, shape).astype(dtype)


def served(gpu: tuple[Kernels, Emulator], entry: str, x: np.ndarray, **options: Any) -> np.ndarray:
    """What the entry gives, and that kernels gave it."""
    kernels, machine = gpu
    before = machine.started.total()
    out = getattr(kernels, entry)(placed(x), **options)
    assert machine.started.total() > before
    assert out.flags.c_contiguous
    return out.get()


def check_sum(got: np.ndarray, x: np.ndarray, **options: Any) -> None:
    """Within 256 eps sum|x|, with 16-bit floats summed in float32 and rounded once."""
    wide = x.astype(np.float64)
    want, size = np.sum(wide, **options), np.sum(np.abs(wide), **options)
    eps = np.finfo(np.float64 if x.dtype == np.float64 else np.float32).eps
    allowed = 256 * eps * size
    if x.dtype.itemsize == 2:
        allowed = allowed + ml_dtypes.finfo(x.dtype).eps / 2 * np.abs(want)
    assert got.dtype == x.dtype
    assert got.shape == want.shape
    assert np.all(np.abs(got.astype(np.float64) - want) <= allowed)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_rows_and_columns_of_any_width(gpu, width: int, dtype: np.dtype):
    x = draw((3, width, 5), dtype)
    for axis in (0, 1, 2, (0, 1), (1, 2), (0, 2), (0, 1, 2)):
        check_sum(served(gpu, "sum", x, axis=axis), x, axis=axis)
    rows = np.ascontiguousarray(x[:, :, 0])
    check_sum(served(gpu, "sum", rows, axis=1, keepdims=True), rows, axis=1, keepdims=True)
    assert np.array_equal(served(gpu, "amax", x, axis=1), x.max(1))
    assert np.array_equal(served(gpu, "amin", rows, axis=1), rows.min(1))
    assert np.array_equal(served(gpu, "argmax", x, axis=1), x.argmax(1))
    assert np.array_equal(served(gpu, "argmin", rows, axis=1), rows.argmin(1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("shape", [(140000,), (1, 9000, 8), (2, 3000, 3), (5000, 1, 16)])
def test_long_axes_are_cut_into_parts(gpu, shape: tuple[int, ...], dtype: np.dtype, monkeypatch):
    monkeypatch.setattr(reduce, "BUSY", 6)
    x = draw(shape, dtype)
    axis = int(np.argmax(shape))
    machine = gpu[1]
    before = machine.started.total()
    check_sum(served(gpu, "sum", x, axis=axis), x, axis=axis)
    assert machine.started.total() >= before + 2
    assert np.array_equal(served(gpu, "amax", x, axis=axis), x.max(axis))
    assert np.array_equal(served(gpu, "argmin", x, axis=axis), x.argmin(axis))
    x[x == x.max(axis, keepdims=True)] = np.nan
    assert np.array_equal(served(gpu, "argmax", x, axis=axis), np.isnan(x).argmax(axis))
    assert np.isnan(served(gpu, "amin", x, axis=axis)).all()


@pytest.mark.parametrize("dtype", [*FLOATS, np.dtype(np.int64)], ids=str)
def test_parts_of_parts(gpu, dtype: np.dtype, monkeypatch):
    monkeypatch.setattr(reduce, "_LONGEST", 2)
    for shape in ((140000,), (4000, 3)):
        x = draw(shape, dtype)
        if dtype != np.int64:
            check_sum(served(gpu, "sum", x, axis=0), x, axis=0)
        assert np.array_equal(served(gpu, "argmax", x, axis=0), x.argmax(0))
        assert np.array_equal(served(gpu, "argmin", x, axis=0), x.argmin(0))


def test_equal_terms_do_not_pile_up_roundings(gpu):
    # 0.1 is not a float32: one chain of a million terms is off by a percent
    x = np.full((1, 300000), 0.1, np.float32)
    check_sum(served(gpu, "sum", x, axis=1), x, axis=1)
    columns = np.full((30000, 4), 0.1, np.float32)
    check_sum(served(gpu, "sum", columns, axis=0), columns, axis=0)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_layouts(gpu, dtype: np.dtype):
    kernels, _ = gpu
    x = placed(draw((6, 5, 70), dtype))
    whole = x.get()
    views = [
        (x.transpose(2, 0, 1), whole.transpose(2, 0, 1)),
        (x[:, :, 1:], whole[:, :, 1:]),
        (x[::2, ::-1], whole[::2, ::-1]),
        (x[3:].reshape(-1)[1:], whole[3:].reshape(-1)[1:]),
    ]
    for view, host in views:
        for axis in (None, *range(host.ndim), *([(0, 2)] if host.ndim == 3 else [])):
            got = kernels.sum(view, axis=axis, keepdims=True)
            assert got.flags.c_contiguous
            check_sum(got.get(), host, axis=axis, keepdims=True)
            if not isinstance(axis, tuple):
                assert np.array_equal(kernels.argmax(view, axis=axis).get(), host.argmax(axis))


def test_misaligned_rows(gpu):
    for dtype in (*FLOATS, np.dtype(bool)):
        size = 16 // dtype.itemsize
        for start in range(1, size, max(1, size // 4)):
            flat = placed(np.ones(4 * 1033 + start, dtype))
            rows = flat[start:].reshape(4, 1033)
            got = gpu[0].sum(rows, axis=1).get()
            assert (got.astype(np.float64) == np.asarray(1033).astype(got.dtype)).all()


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_nan_and_infinity(gpu, dtype: np.dtype):
    x = draw((4, 40), dtype)
    x[0, 3], x[1, 5], x[2, 39], x[3] = np.nan, np.inf, -np.inf, -np.inf
    x[0, 7] = np.nan
    with np.errstate(all="ignore"):
        for axis in (0, 1):
            for entry in ("amax", "amin", "argmax", "argmin"):
                want = getattr(np, entry)(x, axis=axis)
                got = served(gpu, entry, x, axis=axis)
                assert np.array_equal(got.astype(np.float64), want.astype(np.float64), True), entry
        total = served(gpu, "sum", x, axis=1).astype(np.float64)
    assert np.isnan(total[0])
    assert list(total[1:]) == [np.inf, -np.inf, -np.inf]


def test_integers_and_truth(gpu):
    for dtype in (np.bool_, np.int32, np.int64):
        for shape in ((3, 50), (50, 3), (2000,), (2, 100, 16)):
            x = draw(shape, np.float64).astype(dtype)
            if dtype is np.int64:
                x += 2**53 + 1
            for axis in (None, 0, -1):
                want = np.sum(x, axis=axis)
                assert np.array_equal(served(gpu, "sum", x, axis=axis), want)
                assert np.array_equal(served(gpu, "sum", x, axis=axis, dtype=np.int64), want)
    big = np.array([[2**62 + 1, -(2**63)], [2**62, -(2**63) + 1]])
    assert list(served(gpu, "amax", big, axis=0)) == [2**62 + 1, -(2**63) + 1]
    assert list(served(gpu, "argmin", big, axis=0)) == [1, 0]
    for x in (np.zeros((3, 300), bool), np.ones((3, 300), bool), draw((3, 300), np.float64) > 2.9):
        for axis in (None, 0, 1, ()):
            assert np.array_equal(served(gpu, "any", x, axis=axis), x.any(axis))
            assert np.array_equal(served(gpu, "all", x, axis=axis), x.all(axis))
        assert np.array_equal(served(gpu, "count_nonzero", x, axis=1), np.count_nonzero(x, axis=1))


def test_products_are_in_double(gpu):
    x = draw((9, 33), np.float32)
    got = served(gpu, "prod", x, axis=1, dtype=np.float64)
    assert np.allclose(got, x.astype(np.float64).prod(1), rtol=1e-14, atol=0)


def test_arrays_without_elements(gpu):
    kernels, _ = gpu
    for shape, axis in (((0, 3), 0), ((3, 0), 0), ((0,), None)):
        x = np.zeros(shape, np.float32)
        assert np.array_equal(kernels.sum(placed(x), axis=axis).get(), x.sum(axis))
        assert np.array_equal(kernels.any(placed(x != 0), axis=axis).get(), x.any(axis))


def test_a_sum_has_the_same_bits_whatever_the_order_of_blocks():
    x, found = draw((3000, 5), np.float32), []
    for order in (0, 1, 5):
        with emulated(order) as (kernels, _), on(Target("cuda")):
            found.append(
                [kernels.sum(placed(x), axis=axis).get().tobytes() for axis in (0, 1, None)]
            )
    assert found[0] == found[1] == found[2]


OPERATORS = ("sum", "amax", "amin", "argmax", "argmin", "max", "prod", "any", "all", "mean", "var")


@pytest.mark.parametrize(
    "case", [case for case in cases.CASES if case.name in OPERATORS], ids=lambda case: case.name
)
def test_operators(case: Any, gpu):
    for job in jobs([case]):
        run(*job)
