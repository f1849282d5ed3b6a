"""The kernels of copies and conversions on the emulator, beyond the rows of their entries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated

from minidl.backends.native_cuda import movement
from minidl.backends.table import Kernels
from minidl.testing.targets import Target, on, placed

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BFLOAT16]
BY_SIZE = [np.dtype(np.uint8), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64)]
SIDES = [1, 2, 7, 8, 9, 31, 32, 33, 64, 65, 130]


@pytest.fixture(scope="module", params=[0, 7], ids=["in order", "shuffled"])
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[Kernels, Emulator]]:
    with emulated(request.param) as found, on(Target("cuda")):
        yield found


def numbered(shape: Any, dtype: Any) -> np.ndarray:
    """Elements that tell their places apart, as far as the dtype does."""
    return (np.arange(np.prod(shape, dtype=int)) % 251).reshape(shape).astype(dtype)


def check_copy(gpu: tuple[Kernels, Emulator], view: Any, want: np.ndarray, kernel: str) -> None:
    """Both entries give what NumPy gives, in C order, by that kernel."""
    kernels, machine = gpu
    before = machine.started.copy()
    got = kernels.copy(view)
    started = machine.started - before
    assert len(started) == 1
    assert next(iter(started)).startswith(kernel), started
    assert got.flags.c_contiguous
    assert got.dtype == want.dtype
    assert got.get().tobytes() == want.tobytes()
    if not view.flags.c_contiguous:
        got = kernels.ascontiguousarray(view)
        assert got.flags.c_contiguous
        assert got.get().tobytes() == want.tobytes()


@pytest.mark.parametrize("dtype", BY_SIZE, ids=str)
def test_transposes(gpu, dtype: np.dtype):
    for rows in SIDES:
        for columns in (1, 8, 33, 64):
            x = numbered((rows, columns), dtype)
            small = min(rows, columns) < 8
            kernel = "copy_bytes" if 1 in x.shape else "gather" if small else "transpose"
            check_copy(gpu, placed(x).transpose(1, 0), x.T, kernel)


@pytest.mark.parametrize("dtype", BY_SIZE, ids=str)
def test_transposes_of_views(gpu, dtype: np.dtype):
    whole = numbered((3, 2, 40, 48), dtype)
    x = placed(whole)
    for axes in (
        (0, 1, 3, 2),
        (3, 2, 1, 0),
        (3, 0, 1, 2),
        (1, 0, 3, 2),
        (1, 3, 0, 2),
        (2, 3, 0, 1),
    ):
        check_copy(gpu, x.transpose(axes), whole.transpose(axes), "")
    for part in (
        (slice(None), slice(None), slice(1, None), slice(3, None)),
        (slice(None, None, -1), 1, slice(None, None, 2)),
        (slice(None), slice(None), slice(None, None, -1), slice(0, 32)),
    ):
        check_copy(gpu, x[part].swapaxes(-1, -2), whole[part].swapaxes(-1, -2), "transpose")


@pytest.mark.parametrize("dtype", BY_SIZE, ids=str)
def test_gathers(gpu, dtype: np.dtype):
    kernels, _ = gpu
    whole = numbered((4, 6, 5, 32), dtype)
    x = placed(whole)
    for axes in ((1, 0, 2, 3), (2, 1, 0, 3)):  # rows stay whole: elements of 16 bytes
        check_copy(gpu, x.transpose(axes), whole.transpose(axes), "gather_16")
    for key in (
        (slice(None), slice(None, None, 2)),
        (..., slice(1, 8)),
        (..., slice(None, None, 3)),
        (slice(None, None, -1), slice(None, None, -2), ..., slice(None, None, -1)),
        (slice(0, 0),),
    ):
        if x[key].size:
            check_copy(gpu, x[key], whole[key], "gather")
        assert kernels.copy(x[key]).get().tobytes() == whole[key].tobytes()
    wide = kernels.broadcast_to(x[:, :1, :, :1], (4, 6, 5, 32))
    check_copy(gpu, wide, np.broadcast_to(whole[:, :1, :, :1], (4, 6, 5, 32)), "gather")


@pytest.mark.parametrize("dtype", BY_SIZE, ids=str)
@pytest.mark.parametrize("size", [1, 7, 8, 31, 32, 33, 1023, 1024, 1025, 20000])
def test_memory_in_order(gpu, size: int, dtype: np.dtype):
    whole = numbered(size + 16, dtype)
    x = placed(whole)
    for start in (0, 1, 3, 8, 16):
        check_copy(gpu, x[start : start + size], whole[start : start + size], "")
    check_copy(gpu, x[:1].reshape(()), whole[:1].reshape(()), "copy_bytes")


def test_many_axes(gpu):
    whole = numbered((2,) * 11, np.int16)
    x = placed(whole)
    got = gpu[0].copy(x.transpose())  # eleven axes, none of which merge: CuPy's
    assert np.array_equal(got.get(), whole.transpose())
    eight = whole.reshape((2,) * 7 + (16,))
    check_copy(gpu, placed(eight).transpose(), eight.transpose(), "gather")


def test_elements_of_16_bytes_are_left_to_cupy(gpu):
    x = np.arange(6).reshape(2, 3) * (1 + 2j)
    assert np.array_equal(gpu[0].copy(placed(x).transpose()).get(), x.T)


# ---------------------------------------------------------------- conversions


def served(gpu: tuple[Kernels, Emulator], x: Any, dtype: Any) -> Any:
    kernels, machine = gpu
    before = machine.started.total()
    got = kernels.cast(x, dtype)
    assert machine.started.total() > before
    assert got.dtype == dtype
    return got


def same(got: np.ndarray, want: np.ndarray) -> bool:
    """To the bit, all NaN alike."""
    with np.errstate(all="ignore"):
        missing = np.isnan(want.astype(np.float64))
        alike = np.array_equal(np.isnan(got.astype(np.float64)), missing)
    return alike and got[~missing].tobytes() == want[~missing].tobytes()


def extremes(dtype: np.dtype) -> np.ndarray:
    """Every 16-bit pattern, or numbers of all sizes with ties of the narrow dtypes and around."""
    if dtype.itemsize == 2:
        return np.arange(65536, dtype=np.uint16).view(dtype)
    rng = np.random.default_rng(0)
    with np.errstate(all="ignore"):
        halves = [np.arange(65536, dtype=np.uint16).view(d) for d in (np.float16, BFLOAT16)]
        exact = np.concatenate([h.astype(np.float64) for h in halves])[::7]
        ties = exact * (1 + 2.0**-11), exact * (1 + 2.0**-8), exact * (1 + 2.0**-9)
        x = np.concatenate(
            [exact, *ties, rng.normal(size=500) * 10.0 ** rng.integers(-46, 40, 500)]
        )
        x = np.concatenate([x, np.nextafter(x[::3], np.inf), np.nextafter(x[::3], -np.inf)])
        x = np.concatenate([x, [0.0, -0.0, 65504, 65519.99, 65520, 3.4e38, 3.5e38, 1e300, 5e-324]])
        return x.astype(dtype)


def once(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """x rounded once; from double to bfloat16 ml_dtypes goes by way of float."""
    with np.errstate(all="ignore"):
        if x.dtype != np.float64 or dtype.itemsize != 2:
            return x.astype(dtype)
        digits, least = (11, -24) if dtype == np.float16 else (8, -133)
        quantum = np.ldexp(1.0, np.maximum(np.frexp(x)[1] - digits, least))
        return np.where(np.isfinite(x), np.rint(x / quantum) * quantum, x).astype(dtype)


@pytest.mark.parametrize("target", FLOATS, ids=str)
@pytest.mark.parametrize("source", FLOATS, ids=str)
def test_conversions_round_once(gpu, source: np.dtype, target: np.dtype):
    x = extremes(source)
    assert same(served(gpu, placed(x), target).get(), once(x, target))


def test_double_is_not_rounded_by_way_of_float(gpu):
    for dtype, bits in ((np.dtype(np.float16), 11), (BFLOAT16, 8)):
        tie, little = 1 + 2.0**-bits, 2.0**-40
        x = np.array([tie, tie + little, -tie - little, 1 + 3 * 2.0**-bits - little])
        want = np.array([1, 1 + 2.0 ** (1 - bits), -1 - 2.0 ** (1 - bits), 1 + 2.0 ** (1 - bits)])
        assert np.array_equal(served(gpu, placed(x), dtype).get().astype(np.float64), want)


@pytest.mark.parametrize("target", FLOATS, ids=str)
def test_whole_numbers_and_truth(gpu, target: np.dtype):
    large = [0, 1, -1, 255, 2**11 + 1, 2**24 + 1, -(2**31), 2**31 - 1]
    with np.errstate(all="ignore"):
        for x in (
            np.array([True, False, True] * 9),
            np.arange(256).astype(np.uint8),
            np.array(large, np.int32),
            np.array([*large, 2**53 + 1, 2**62 + 2**36 + 1, -(2**63)], np.int64),
        ):
            assert same(served(gpu, placed(x), target).get(), x.astype(target))


@pytest.mark.parametrize("size", [0, 1, 7, 8, 31, 33, 1025, 9000])
def test_conversions_of_any_size_and_place(gpu, size: int):
    whole = numbered(size + 9, np.float32)
    x = placed(whole)
    for start in (0, 1, 4, 8):
        for target in (np.dtype(np.float16), np.dtype(np.float64)):
            got = gpu[0].cast(x[start : start + size], target).get()
            assert np.array_equal(got, whole[start : start + size].astype(target))


def test_conversions_keep_the_order_of_dense_arrays(gpu):
    whole = numbered((3, 20, 33), np.float32)
    x = placed(whole)
    for axes in ((2, 0, 1), (1, 2, 0), (0, 2, 1)):
        got = served(gpu, x.transpose(axes), BFLOAT16)
        assert got.strides == whole.astype(np.float16).transpose(axes).strides
        assert same(got.get(), whole.transpose(axes).astype(BFLOAT16))
    got = served(gpu, x[:, ::2].transpose(2, 1, 0), np.dtype(np.float64))
    assert np.array_equal(got.get(), whole[:, ::2].transpose(2, 1, 0))


def test_other_conversions_are_left_to_cupy(gpu):
    x = np.array([0.0, 1.5, -2.7], np.float32)
    for dtype in (np.int64, np.bool_, np.int8):
        assert np.array_equal(gpu[0].cast(placed(x), dtype).get(), x.astype(dtype))
    assert np.array_equal(gpu[0].cast(placed(x.astype(np.int8)), np.float32).get(), [0, 1, -2])


def test_merging():
    x = np.zeros((2, 1, 3, 4, 5))
    assert movement._merged(x) == [(120, 1)]
    assert movement._merged(x.transpose(3, 4, 0, 1, 2)) == [(20, 1), (6, 20)]
    assert movement._merged(x[..., :4]) == [(24, 5), (4, 1)]
    assert movement._merged(np.broadcast_to(x[:1], (7, 1, 3, 4, 5))) == [(7, 0), (60, 1)]
