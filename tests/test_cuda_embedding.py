"""Look-ups and their gradients on the emulator: sizes, hot rows, misaligned tables, 16-bit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated

import minidl
from minidl.autograd import grad
from minidl.backends import reference
from minidl.backends.native_cuda import embedding
from minidl.backends.table import Kernels
from minidl.errors import OutOfRangeError
from minidl.nn import functional as F  # noqa: N812

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Whichever tests ran before in this process."""
    RNG.bit_generator.state = START


@pytest.fixture(scope="module", params=[0, 1, 7], ids=["in order", "backwards", "shuffled"])
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[Kernels, Emulator]]:
    with emulated(request.param) as found:
        yield found


def numbers(*shape: int, dtype: np.dtype | type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("width", [1, 7, 8, 31, 32, 33, 129, 1023, 1024, 1025, 4100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, BFLOAT16, np.int8])
def test_take(gpu: tuple[Kernels, Emulator], width: int, dtype: np.dtype):
    k, machine = gpu
    table = (9 * numbers(5, width)).astype(dtype)
    index = np.array([[4, 0, 0], [-1, 2, -5]])
    before = machine.started.total()
    found = k.take(k.asarray(table), k.asarray(index), axis=0)
    assert machine.started.total() == before + 1
    assert np.array_equal(k.host(found), table[index])


def test_take_of_a_misaligned_table(gpu: tuple[Kernels, Emulator]):
    k, machine = gpu
    whole = numbers(5 * 16 + 1)
    table = k.asarray(whole)[1:].reshape(5, 16)
    before = machine.started["take_4"]
    found = k.take(table, k.asarray(np.array([3, 1])), axis=0)
    assert np.array_equal(k.host(found), whole[1:].reshape(5, 16)[[3, 1]])
    assert machine.started["take_4"] == before + 1


def test_take_hands_on_what_it_does_not_serve(gpu: tuple[Kernels, Emulator]):
    k, machine = gpu
    x, index = numbers(4, 5), np.array([1, 3])
    before = machine.started.total()
    for axis in (1, None):
        found = k.take(k.asarray(x), k.asarray(index), axis=axis)
        assert np.array_equal(k.host(found), np.take(x, index, axis))
    assert np.array_equal(k.host(k.take(k.asarray(x).T, k.asarray(index), axis=0)), x.T[index])
    assert np.array_equal(k.host(k.take(k.asarray(x), 2, axis=0)), x[2])
    assert machine.started.total() == before


def summed(k: Kernels, g: np.ndarray, index: np.ndarray, rows: int, padding: int | None) -> None:
    """The entry against the specification, for sums that are exact in any order."""
    found = k.host(k.embedding_backward(k.asarray(g), k.asarray(index), rows, padding))
    wide = g.astype(np.float64)
    assert found.dtype == g.dtype
    want = reference.embedding_backward(wide, index, rows, padding)
    np.testing.assert_array_equal(found.astype(np.float64), want)


@pytest.mark.parametrize("width", [1, 7, 8, 31, 33, 1025])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16])
def test_sums(gpu: tuple[Kernels, Emulator], width: int, dtype: np.dtype):
    g = RNG.integers(-3, 4, (65, width)).astype(dtype)
    summed(gpu[0], g, RNG.integers(0, 9, 65), 11, None)
    summed(gpu[0], g, RNG.integers(0, 9, 65), 11, 3)


@pytest.mark.parametrize("rows", [1, 2, 255, 1025, 1 << 20, (1 << 20) + 1])
def test_tables_of_many_rows(gpu: tuple[Kernels, Emulator], rows: int):
    """Sorted by one, two and three digits; by the ends of the table, too."""
    k = gpu[0]
    index = np.concatenate([RNG.integers(0, rows, 300), [0, rows - 1, rows - 1]])
    order = k.host(embedding._sorted(k.asarray(index), rows))
    want = np.argsort(index, kind="stable")
    np.testing.assert_array_equal(order & 0xFFFFFFFF, want)
    np.testing.assert_array_equal(order >> 32, index[want])


def test_sorts_of_many_blocks(gpu: tuple[Kernels, Emulator], monkeypatch: pytest.MonkeyPatch):
    k = gpu[0]
    index = RNG.integers(0, 700, 4000)
    index[1000:2500] = 5
    for tiles in (128, 2):
        monkeypatch.setattr(embedding, "_TILES", tiles)
        order = k.host(embedding._sorted(k.asarray(index), 700))
        np.testing.assert_array_equal(order & 0xFFFFFFFF, np.argsort(index, kind="stable"))


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
@pytest.mark.parametrize("start", [0, 1, 31, 32])
def test_a_row_with_nearly_all_tokens(gpu: tuple[Kernels, Emulator], dtype: np.dtype, start: int):
    """Its tokens fill whole parts, and parts of parts before and after them."""
    index = np.full(1300, 2)
    index[:start] = 0
    index[-7:] = 4
    g = RNG.integers(0, 2, (1300, 9)).astype(dtype)
    g[:, 0] = 0
    if dtype == BFLOAT16:
        g[200:] = 0  # up to 256 sums are exact
    summed(gpu[0], g, index, 6, None)
    summed(gpu[0], g, index, 6, 2)


def test_sums_of_16_bits_are_rounded_once(gpu: tuple[Kernels, Emulator]):
    k = gpu[0]
    g = np.full((300, 8), 1, BFLOAT16)  # in bfloat16, 256 + 1 is 256
    found = k.host(k.embedding_backward(k.asarray(g), k.asarray(np.zeros(300, int)), 1, None))
    assert found.astype(float).tolist() == [[300.0] * 8]


def test_the_order_is_that_of_the_tokens(gpu: tuple[Kernels, Emulator]):
    k = gpu[0]
    g = np.array([1e8, 1, -1e8, 1], np.float32)[:, None]
    found = k.embedding_backward(k.asarray(g), k.asarray(np.zeros(4, np.uint8)), 2, None)
    assert k.host(found).tolist() == [[1.0], [0.0]]


def test_nothing_to_add(gpu: tuple[Kernels, Emulator]):
    k = gpu[0]
    for shape, rows in (((0, 3), 4), ((2, 0), 4)):
        index = k.asarray(np.zeros(shape[0], int))
        found = k.host(k.embedding_backward(k.zeros(shape, np.float32), index, rows, None))
        assert found.shape == (rows, shape[1])
        assert not found.any()


def test_the_operator(gpu: tuple[Kernels, Emulator]):
    """In bfloat16 as it is: no pass to float32 and back."""
    k, machine = gpu
    weight = minidl.tensor(numbers(7, 8).tolist(), dtype=minidl.bfloat16, device="cuda")
    index = minidl.tensor([[1, 5], [5, 0]], device="cuda")
    weight.requires_grad_()
    before = machine.started["embedding_sums_bfloat16"]
    (found,) = grad(F.embedding(index, weight, padding_idx=0).sum(), [weight])
    assert found.dtype is minidl.bfloat16
    counts = k.host(found.array).astype(float)[:, 0]
    assert counts.tolist() == [0, 1, 0, 0, 0, 2, 0]
    assert machine.started["embedding_sums_bfloat16"] == before + 1


def test_indices_of_an_empty_table_are_refused_when_read():
    with emulated():
        table = minidl.zeros(0, 5, device="cuda")
        index = minidl.tensor(np.zeros((2, 2), np.int64), device="cuda")
        out = minidl.nn.functional.embedding(index, table)
        assert out.shape == (2, 2, 5)
        with pytest.raises(OutOfRangeError, match=r"indices must lie in \[0, 0\)"):
            out.cpu()
