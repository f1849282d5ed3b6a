"""The kernels of sums: every axis and layout, long sums, against float64."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from minidl.backends import local

SHAPES = [(), (0,), (5,), (0, 3), (3, 700, 2), (70_000,), (2, 9000), (5000, 3), (4, 33, 130)]
pytestmark = pytest.mark.usefixtures("each_table")


def run(x, **options):
    got = local.state.run(local.state.cpu.sum, x, **options)
    assert type(got) is np.ndarray and got.dtype == x.dtype
    return got


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.data())
def test_sum(dtype, data):
    shape = data.draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = rng.standard_normal(shape).astype(dtype)
    x = x if data.draw(st.booleans()) else np.asfortranarray(x)
    axes = tuple(a for a in range(x.ndim) if data.draw(st.booleans()))
    options = {
        "axis": axes if data.draw(st.booleans()) else None,
        "keepdims": data.draw(st.booleans()),
    }
    want = np.sum(x.astype(np.float64), **options)
    got = run(x, **options)
    assert got.shape == np.shape(want)
    floor = 64 * np.finfo(dtype).eps * np.sum(np.abs(x), **options, dtype=np.float64)
    assert np.all(np.abs(got - want) <= floor)


@pytest.mark.parametrize(
    "shape, axis", [((3_000_000,), None), ((3_000_000, 1), (0,)), ((400_000, 5), (0,))]
)
def test_long_sums_of_equal_elements_lose_no_digits(shape, axis):
    x = np.full(shape, 0.1, np.float32)
    want = np.float64(np.float32(0.1)) * shape[0]
    np.testing.assert_allclose(run(x, axis=axis), want, rtol=3e-5)


def test_infinities_and_nan():
    assert np.isnan(run(np.array([1, np.nan, np.inf], np.float32), axis=None))
    assert run(np.array([1, -np.inf], np.float32), axis=None) == -np.inf
