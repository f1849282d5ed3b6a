"""The GPU's kernel table on the stand-in for CuPy, and the stand-in itself."""

from __future__ import annotations

import operator
import sys
import types
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from minidl.backends import cupy_gpu, reference
from minidl.backends.cupy_gpu import twins
from minidl.backends.cupy_gpu.host import refuse
from minidl.backends.table import TABLES, Kernels
from minidl.testing import standin
from minidl.testing.entries import ENTRIES
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, on

ROWS = {row.name: row for row in ENTRIES}


@pytest.fixture
def table() -> Iterator[Kernels]:
    with standin.installed() as kernels:
        yield kernels


@pytest.fixture
def cp(table: Kernels) -> Any:
    return cupy_gpu.module()


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize("name", ROWS)
def test_entry(name: str, table: Kernels):
    with on(Target("cupy")):
        for job in jobs([ROWS[name]]):
            run(*job)


def test_no_entry_is_the_specification_on_numpy(table: Kernels):
    for name, function in reference.ENTRIES.items():
        own = getattr(table, name)
        assert own is not function
        assert vars(sys.modules[function.__module__]) is not own.__globals__
        assert own.__globals__.get("np") is not np or own.__module__.startswith(cupy_gpu.__name__)


def test_a_replacement_needs_a_place(table: Kernels):
    wrong = types.ModuleType("anywhere.softmax")
    wrong.__all__ = ["softmaxx"]  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no softmaxx to replace"):
        twins.entries([wrong])


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "bool", "float32"])
def test_sums_at_places_of_dtypes_without_atomic_additions(table: Kernels, dtype: str):
    x = np.array([0, 1, 0, -3]).astype(dtype)
    index, value = np.array([0, 2, 0, 3, 3]), np.array([1, 1, 0, -2, -1]).astype(dtype)
    given = [standin.ndarray(a.copy()) for a in (x, index, value)]
    got = table.index_put(given[0], (given[1],), given[2], True)
    want = reference.index_put(x, (index,), value, True)
    assert got.dtype == dtype
    np.testing.assert_array_equal(got.get(), want)


QUOTIENTS = [(1.0, 0.1), (-1.0, 0.1), (7.0, -2.0), (6.0, -2.0), (1e-300, -1e300), (-0.0, 1.0)]
QUOTIENTS += [(1.0, 0.0), (-1.0, 0.0), (0.0, 0.0), (np.inf, 2.0), (-2.0, np.inf), (np.nan, 1.0)]


@pytest.mark.parametrize("name", ["floor_divide", "remainder"])
def test_quotients_are_rounded_once(table: Kernels, name: str):
    x, y = np.array(QUOTIENTS).T
    with np.errstate(all="ignore"):
        want = getattr(np, name)(x, y)
        got = getattr(table, name)(standin.ndarray(x), standin.ndarray(y)).get()
        one = getattr(table, name)(standin.ndarray(x), 0.1).get()
        np.testing.assert_array_equal(one, getattr(np, name)(x, 0.1))
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.copysign(1, got)[want == 0], np.copysign(1, want)[want == 0])


@pytest.mark.parametrize("bounds", [(np.nan, 1), (0.0, None), (None, 1), (0, 1), (None, np.nan)])
def test_bounds_of_clip_may_be_nan_or_missing(table: Kernels, bounds: Any):
    x = np.array([-1.0, 0.5, 2, np.nan])
    got = table.clip(standin.ndarray(x), *bounds)
    np.testing.assert_array_equal(got.get(), np.clip(x, *bounds))


def test_choices_of_bfloat16_keep_its_bits(table: Kernels):
    x: Any = np.arange(-2.0, 4).reshape(2, 3).astype(ml_dtypes.bfloat16)
    here = standin.ndarray(x)
    kept = table.where(standin.ndarray(x > 0), here, table.zeros((), x.dtype))
    for got, want in ((kept, np.where(x > 0, x, x.dtype.type(0))), (table.tril(here), np.tril(x))):
        assert got.dtype == x.dtype
        np.testing.assert_array_equal(got.get().astype(float), want.astype(float))
    assert table.triu(here).get()[1, 0] == 0


def test_attention_in_more_blocks_than_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cupy_gpu.attention, "BLOCK", 20)
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, 3, 5, 4)) for _ in range(3))
    with standin.installed() as kernels:
        out, _ = kernels.attention(*map(standin.ndarray, (q, k, v)), None, True, 0.5)
    want, _ = reference.attention(q, k, v, None, True, 0.5)
    np.testing.assert_allclose(out.get(), want, rtol=1e-13)


# ---------------------------------------------------------------- checks of values


def test_what_is_refused_is_told_by_the_next_read(cp: Any, table: Kernels):
    x = cp.asarray(np.arange(3.0))
    table.refuse(x > 5, ValueError("none"))
    table.refuse(x > 1, ValueError("first"))
    table.refuse(x > 0, ValueError("second"))
    with pytest.raises(ValueError, match="first"):
        table.host(x)
    np.testing.assert_array_equal(table.host(x), [0, 1, 2])  # told once
    table.refuse(x > 1, ValueError("again"))
    with pytest.raises(ValueError, match="again"):
        cupy_gpu.raise_refused()
    cupy_gpu.raise_refused()


def test_so_many_checks_are_read_unasked(cp: Any, table: Kernels):
    x = cp.asarray(np.arange(3.0))
    with pytest.raises(ValueError, match="of many"):
        for _ in range(1000):
            table.refuse(x > 1, ValueError("of many"))
    cupy_gpu.raise_refused()


def test_values_on_the_cpu_are_refused_at_once():
    with pytest.raises(ValueError, match="here"):
        refuse(np.array([False, True]), ValueError("here"))
    refuse(np.array([False]), ValueError("not here"))


# ---------------------------------------------------------------- the stand-in

WAITING = {
    "float": float,
    "int": int,
    "bool": bool,
    "index": operator.index,
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "array": np.asarray,
    "array_ufunc": lambda x: np.add(x, 1),
    "array_function": np.sum,
    "numpy scalar": lambda x: np.float32(2) * x,
    "mask": lambda x: x[x > 0],
    "mask written": lambda x: x.__setitem__(x > 0, x[:2]),
}


@pytest.mark.parametrize("name", WAITING)
def test_what_would_wait_raises(name: str, cp: Any):
    x = cp.asarray(np.ones(3) if "mask" in name else np.ones(1))
    with pytest.raises(standin.Synchronised):
        WAITING[name](x)


REFUSED = {
    "operator": lambda cp, x: x + np.ones(3),
    "ufunc": lambda cp, x: cp.add(x, np.ones(3)),
    "function": lambda cp, x: cp.sum(np.ones(3)),
    "list": lambda cp, x: cp.exp([1.0, 2.0]),
    "where of a ufunc": lambda cp, x: cp.exp(x, where=x > 0),
    "order of a ufunc": lambda cp, x: cp.exp(x, order="C"),
    "where of a sum": lambda cp, x: cp.sum(x, where=x > 0),
    "where of a method": lambda cp, x: x.sum(where=x > 0),
    "atomic int16": lambda cp, x: cp.add.at(x.astype("i2"), cp.arange(3), x.astype("i2")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cupy_does_not_take_raises(name: str, cp: Any):
    with pytest.raises(TypeError):
        REFUSED[name](cp, cp.asarray(np.ones(3)))


@pytest.mark.parametrize("name", ["vecdot", "matvec", "emath", "nope", "testing"])
def test_names_that_cupy_lacks(name: str, cp: Any):
    with pytest.raises(AttributeError, match=f"no cupy.{name}"):
        getattr(cp, name)
    with pytest.raises(AttributeError, match="no setflags"):
        cp.ones(3).setflags  # noqa: B018


def test_results_are_arrays(cp: Any):
    x = cp.asarray(np.arange(6.0).reshape(2, 3))
    for result in (cp.sum(x), x.max(), x[1, 2], cp.any(x > 1), cp.exp(1.0), x[0].dot(x[0])):
        assert type(result) is cp.ndarray
        assert result.shape == ()
    assert cp.exp(x.T).flags.c_contiguous
    x[1, 2][...] = 9  # one element is a view, too
    assert x.get()[1, 2] == 9


def test_indices_wrap_around(cp: Any):
    x = cp.asarray(np.arange(6.0).reshape(2, 3))
    index = cp.asarray(np.array([4, -1]))
    np.testing.assert_array_equal(x[..., index].get(), [[1, 2], [4, 5]])
    np.testing.assert_array_equal(cp.take(x, index, axis=0).get(), [[0, 1, 2], [3, 4, 5]])
    x[None, :, index] = 0
    np.testing.assert_array_equal(x.get(), [[0, 0, 0], [3, 0, 0]])


def test_it_goes_as_it_came():
    before = dict(TABLES), sys.modules.get("cupy"), sys.modules.get("cupyx")
    with standin.installed() as kernels:
        assert TABLES["cuda"] is kernels
        assert sys.modules["cupy"].asnumpy(kernels.zeros((2,))).tolist() == [0, 0]
    assert (dict(TABLES), sys.modules.get("cupy"), sys.modules.get("cupyx")) == before
