"""Products inside graphs on the emulator: edges, strides, batches, parts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulation import Emulator, emulated

from minidl.backends.cupy_gpu import capture
from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda import gemm
from minidl.errors import UnsupportedError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")


@pytest.fixture(scope="module", params=[0, 1], ids=["in order", "backwards"])
def machine(request: pytest.FixtureRequest) -> Iterator[Emulator]:
    with emulated(request.param) as (_, found):
        yield found


def repeated(x: np.ndarray) -> Any:
    """x on the GPU, every second element of its last axis."""
    return cp.asarray(np.repeat(x, 2, -1))[..., ::2]


def turned(x: np.ndarray) -> Any:
    """x on the GPU with its last two axes in the other order in memory."""
    return cp.asarray(np.ascontiguousarray(x.swapaxes(-1, -2))).swapaxes(-1, -2)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((1, 1), (1, 1)),
        ((65, 17), (17, 63)),
        ((3, 50), (50, 5)),
        ((2, 1030), (1030, 3)),  # in parts of the inner axis
        ((7,), (7, 66)),
        ((66, 7), (7,)),
        ((19,), (19,)),
        ((3, 70, 9), (9, 5)),
        ((2, 1, 3, 5), (2, 5, 6)),
        ((2, 1, 2, 1, 3, 5), (2, 1, 3, 5, 4)),
        ((3, 2, 600), (600, 2)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
    ],
)
def test_products(x: tuple, y: tuple, dtype: str, machine: Emulator):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype(dtype) for shape in (x, y))
    given = [(cp.asarray(a), cp.asarray(b))]
    if len(x) > 1 and len(y) > 1:
        given += [(turned(a), repeated(b)), (repeated(a), turned(b))]
    for left, right in given:
        check_product(left, right, a, b)


def check_product(left: Any, right: Any, a: np.ndarray, b: np.ndarray) -> None:
    wanted = np.matmul(a.astype("f8"), b.astype("f8"))
    found = gemm.matmul(left, right)
    assert found.shape == wanted.shape and found.dtype == a.dtype
    room = 8 * max(1, a.shape[-1]) * np.finfo(a.dtype).eps
    np.testing.assert_allclose(found.get(), wanted, 0, room)
    wide = cp.zeros((*wanted.shape, 2), a.dtype)
    assert gemm.matmul(left, right, wide[..., 1]) is not None
    np.testing.assert_array_equal(wide.get()[..., 1], found.get())
    assert not wide.get()[..., 0].any()


def test_large_tiles(machine: Emulator, monkeypatch: pytest.MonkeyPatch):
    """Results of many tiles go to the kernel with tiles of 128 x 128; here two are many."""
    monkeypatch.setattr(gemm, "_BUSY", 4)
    machine.started.clear()
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(shape).astype("f4") for shape in ((130, 40), (40, 129)))
    check_product(cp.asarray(a), turned(b), a, b)
    assert set(machine.started) == {"multiply_float32_large"}


def test_products_fit(machine: Emulator):
    square = cp.zeros((2, 3), np.float64)
    with pytest.raises(ValueError, match="do not fit"):
        gemm.matmul(square, square)
    with pytest.raises(ValueError, match="out does not fit"):
        gemm.matmul(square, cp.zeros((3, 2), np.float64), cp.zeros((3, 2), np.float64))
    with pytest.raises(ValueError, match="one axis"):
        gemm.matmul(cp.zeros((), np.float64), square)


def test_what_a_graph_has_no_product_for(machine: Emulator, monkeypatch: pytest.MonkeyPatch):
    half = cp.zeros((2, 2), np.float16)
    assert gemm.matmul(half, half).dtype == np.float16
    monkeypatch.setattr(capture._thread, "recording", capture.Recording())
    with pytest.raises(UnsupportedError, match="product of float16"):
        gemm.matmul(half, half)
