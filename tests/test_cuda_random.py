"""Random numbers on the emulator: the CPU's bits at every edge, in every dtype."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated

from minidl.backends import reference
from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.table import Kernels

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

SIZES = [0, 1, 2, 3, 4, 5, 7, 8, 9, 1023, 2049]
WHERE = [(0, 0), (2**64 - 1, 2**64 - 3), (123456789012345, 2**32 - 2)]
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


@pytest.fixture(scope="module", params=[0, 1], ids=["in order", "backwards"])
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[Kernels, Emulator]]:
    with emulated(request.param) as found:
        yield found


@pytest.fixture(scope="module")
def k(gpu: tuple[Kernels, Emulator]) -> Any:
    return gpu[0]


def same(found: Any, wanted: np.ndarray) -> None:
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found.get(), wanted)


@pytest.mark.parametrize("at", WHERE)
@pytest.mark.parametrize("size", SIZES)
def test_draws(size: int, at: tuple[int, int], k: Any):
    same(k.philox_bits(size, *at), reference.philox_bits(size, *at))
    for dtype in (np.float32, np.float64):
        same(k.uniform((size,), dtype, *at), reference.uniform((size,), dtype, *at))
        found, wanted = k.normal((size,), dtype, *at), reference.normal((size,), dtype, *at)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_max_ulp(found.get(), wanted, 2)
    for p in (0.0, 0.25, 1.0):
        same(k.bernoulli((size,), p, *at), reference.bernoulli((size,), p, *at))
    for low, high in ((0, 10), (-5, 1), (-(2**63), 2**63 - 1)):
        wanted = reference.randint(low, high, (size,), *at)
        same(k.randint(low, high, (size,), *at), wanted)
    same(k.permutation(size, *at), reference.permutation(size, *at))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, BFLOAT16], ids=str)
@pytest.mark.parametrize("size", SIZES)
def test_dropout_and_probabilities(size: int, dtype: Any, k: Any):
    at = WHERE[2]
    rng = np.random.default_rng(0)
    whole = rng.standard_normal(size + 1).astype(dtype)
    with np.errstate(all="ignore"):
        for x in (whole[:-1], whole[1:]):  # the second is misaligned
            given = cp.asarray(whole)[:-1] if x is whole[:-1] else cp.asarray(whole)[1:]
            given = cp.asarray(whole)[len(whole) - 1 - len(x) :][: len(x)] if not size else given
            for p in (0.0, 0.3, 1.0):
                wide = reference.dropout(given.get().astype(_wide(dtype)), p, *at)
                same(k.dropout(given, p, *at), wide.astype(dtype))
    chances = np.linspace(0, 1, size + 1).astype(dtype)
    for shape, given in (((size,), chances[1:]), ((2, size), chances[1:]), ((size,), chances[:1])):
        wanted = reference.bernoulli(shape, given, *at)
        same(k.bernoulli(shape, cp.asarray(given), *at), wanted)
    one = np.array(0.5, dtype)
    same(k.bernoulli((size,), cp.asarray(one), *at), reference.bernoulli((size,), one, *at))


def _wide(dtype: Any) -> Any:
    return np.float64 if dtype == np.float64 else np.float32


def test_dropout_of_other_layouts_and_numbers(k: Any):
    x = np.arange(12.0).reshape(3, 4).T
    same(k.dropout(cp.asarray(x), 0.5, 1, 2), reference.dropout(x, 0.5, 1, 2))
    y = np.array([np.inf, -np.inf, np.nan, -0.0] * 4, np.float32)
    with np.errstate(invalid="ignore"):
        same(k.dropout(cp.asarray(y), 0.5, 1, 2), reference.dropout(y, 0.5, 1, 2))


def test_what_is_no_probability(k: Any):
    p = np.array([-1.0, np.nan, 2.0, np.inf])
    assert k.bernoulli((4,), cp.asarray(p), 1, 2).get().tolist() == [False, False, True, True]


def test_one_kernel_a_draw(gpu: tuple[Kernels, Emulator]):
    k, machine = gpu
    machine.started.clear()
    k.bernoulli((100,), cp.asarray(np.full(100, 0.5)), 1, 2)
    k.randint(0, 5, (9,), 1, 2)
    k.multinomial(cp.asarray(np.ones((3, 5))), 2, True, 1, 2)
    assert dict(machine.started) == {"bernoulli_of_float64": 1, "randint": 1, "philox_bits": 1}
