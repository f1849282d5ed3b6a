"""Activations on the emulator at sizes where vectors end, and `linear` behind its product."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated

from minidl.backends import reference
from minidl.backends.native_cuda import activation
from minidl.backends.table import Kernels
from minidl.testing import standin

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

SIZES = [0, 1, 7, 8, 9, 1023, 4096, 4097, 9001]
DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
ENDS = [np.inf, -np.inf, np.nan, 0.0, -0.0, 88.0, -88.0, 1e4, -1e4]
ONE = {
    "relu": (),
    "sigmoid": (),
    "silu": (),
    "log_sigmoid": (),
    "softplus": (2.0, 20.0),
    "gelu": ("none",),
}
TWO = ["relu_backward", "sigmoid_backward", "tanh_backward", "silu_backward", "gelu_backward"]


@pytest.fixture(scope="module")
def table() -> Iterator[Kernels]:
    with emulated() as (kernels, _):
        yield kernels


def placed(x: np.ndarray) -> Any:
    return standin.ndarray(x)


def drawn(size: int, dtype: Any, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal(size) * 4
    x[: len(ENDS)] = ENDS[:size]
    return x.astype(dtype)


def check(got: Any, want: np.ndarray, dtype: Any) -> None:
    got = got.get()
    assert got.dtype == dtype
    eps = float(ml_dtypes.finfo(dtype).eps)
    wide = want.astype(np.float64)
    np.testing.assert_allclose(got.astype(np.float64), wide, 8 * eps, 8 * eps)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ONE)
def test_sizes(table: Kernels, name: str, size: int, dtype: Any):
    x = drawn(size + 1, dtype)
    for part in (x[:size], x[1:]):  # the second one does not begin at 16 bytes
        with np.errstate(all="ignore"):
            want = getattr(reference, name)(part.astype(np.float64), *ONE[name]).astype(dtype)
        check(getattr(table, name)(placed(part), *ONE[name]), want, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", TWO)
def test_sizes_of_gradients(table: Kernels, name: str, size: int, dtype: Any):
    more = ("none",) if "gelu" in name else ()
    x, g = drawn(size + 1, dtype), drawn(size + 1, dtype, 1)
    if name in ("sigmoid_backward", "tanh_backward", "relu_backward"):
        with np.errstate(all="ignore"):
            x = np.tanh(np.abs(x.astype(np.float64))).astype(dtype)
    for part in (slice(0, size), slice(1, None)):
        with np.errstate(all="ignore"):
            wide = g[part].astype(np.float64), x[part].astype(np.float64)
            want = getattr(reference, name)(*wide, *more).astype(dtype)
        got = getattr(table, name)(placed(g[part]), placed(x[part]), *more).get()
        eps = float(ml_dtypes.finfo(dtype).eps)
        with np.errstate(all="ignore"):
            size_of = np.nan_to_num(np.abs(wide[0]) * (1 + np.abs(wide[1])), posinf=1, neginf=1)
        with np.errstate(all="ignore"):
            off = np.abs(got.astype(np.float64) - want.astype(np.float64))
        same = (got == want) | (np.isnan(got) & np.isnan(want))
        assert np.all(same | (off <= 8 * eps * size_of + 1e-6 * (dtype != np.float64)))


@pytest.mark.parametrize("kind", [None, "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid"])
@pytest.mark.parametrize("rows", [1, 7, 65, 700])
@pytest.mark.parametrize("width", [1, 5, 129, 300])
def test_linear(table: Kernels, kind: str | None, rows: int, width: int, monkeypatch: Any):
    monkeypatch.setattr(activation, "BUSY", 8)
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((rows, 3)), rng.standard_normal((width, 3))
    b, g = rng.standard_normal(width), rng.standard_normal((rows, width))
    want, kept = reference.linear(x, w, b, kind)
    got, pre = table.linear(placed(x), placed(w), placed(b), kind)
    check(got, want, np.float64)
    assert (pre is None) == (kept is None)
    if kept is not None:
        check(pre, kept, np.float64)
    saved = want if kept is None else kept
    found = table.linear_backward(
        placed(g), placed(x), placed(w), (True, True, True), kind, placed(saved)
    )
    wanted = reference.linear_backward(g, x, w, (True, True, True), kind, saved)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.get(), b, 1e-11, 1e-11)
    for needs in [(False, False, True), (True, False, False), (False, True, True)]:
        some = table.linear_backward(placed(g), placed(x), placed(w), needs, kind, placed(saved))
        for a, b, need in zip(some, wanted, needs, strict=True):
            assert (a is not None) == need
            if need:
                np.testing.assert_allclose(a.get(), b, 1e-11, 1e-11)


def test_one_kernel_each(table: Kernels):
    with emulated() as (kernels, machine):
        assert isinstance(machine, Emulator)
        x, w, b = (placed(np.ones(shape, "f4")) for shape in ((4, 3), (5, 3), (5,)))
        out, pre = kernels.linear(x, w, b, "gelu")
        assert dict(machine.started) == {"bias_gelu_float32": 1}
        machine.started.clear()
        kernels.linear_backward(out, x, w, (True, True, True), "gelu", pre)
        assert dict(machine.started) == {"bias_gelu_backward_float32": 1}
