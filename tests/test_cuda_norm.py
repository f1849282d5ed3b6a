"""Normalisation on the GPU's kernels, run by the emulator: edges that the rows do not draw."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated

import minidl
from minidl.backends import reference
from minidl.backends.native_cuda import launch, norm
from minidl.backends.table import Kernels
from minidl.testing.cases.norm import CASES
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, host, on, placed

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
WIDTHS = (1, 7, 8, 31, 32, 33, 768, 1023, 1024, 1025)
WIDE = [(8200, np.float32), (8193, BFLOAT16), (8193, np.float16), (4100, np.float64)]
EPS = {np.dtype(np.float64): 1e-12, np.dtype(np.float32): 2e-5}
EPS |= {np.dtype(np.float16): 2e-3, BFLOAT16: 1.6e-2}


@pytest.fixture(scope="module")
def on_emulator() -> Iterator[tuple[Kernels, Emulator]]:
    with emulated() as both, on(Target("cuda")):
        yield both


@pytest.fixture
def k(on_emulator) -> Kernels:
    return on_emulator[0]


@pytest.fixture
def started(on_emulator) -> Any:
    on_emulator[1].started.clear()
    return on_emulator[1].started


def wide(x: Any) -> Any:
    return None if x is None else np.asarray(x, np.float64)


def check(got: Any, want: Any, dtype: Any, sums: float = 1.0) -> None:
    """Within some rounding of the dtype, of sums as large as `sums`."""
    got = host(got)
    assert got.dtype == dtype
    tolerance = EPS[np.dtype(dtype)]
    np.testing.assert_allclose(wide(got), want, rtol=tolerance, atol=tolerance * sums)


def statistics_of(dtype: Any) -> np.dtype:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def both(k: Kernels, rows: int, width: int, dtype: Any, weighted: bool = True, seed: int = 0):
    """All entries on random arrays against the specification in float64."""
    rng = np.random.default_rng(seed)
    x, y, g = (rng.normal(0.5, 1, (rows, width)).astype(dtype) for _ in range(3))
    weight, bias = (rng.normal(1, 1, width).astype(dtype) if weighted else None for _ in range(2))
    own = statistics_of(dtype)

    def call(name: str, *args: Any) -> tuple[Any, Any]:
        given = [placed(a) if isinstance(a, np.ndarray) else a for a in args]
        plain = [wide(a) if isinstance(a, np.ndarray) else a for a in args]
        return getattr(k, name)(*given), getattr(reference, name)(*plain)

    many = float(rows) ** 0.5 * 4
    (out, *kept), (want, *kept_wanted) = call("layer_norm", x, 1, weight, bias, 1e-5)
    check(out, want, dtype)
    for one, other in zip(kept, kept_wanted, strict=True):
        check(one, other, own)
    (out, total, *kept), (want, total_wanted, *wanted) = call(
        "add_layer_norm", x, y, 1, weight, bias, 1e-5
    )
    check(out, want, dtype)
    check(total, total_wanted, dtype)
    for one, other in zip(kept, wanted, strict=True):
        check(one, other, own)
    (out, rstd), (want, rstd_wanted) = call("rms_norm", x, 1, weight, 1e-5)
    check(out, want, dtype)
    check(rstd, rstd_wanted, own)

    mean, scale = (np.asarray(a, own) for a in kept_wanted)
    got, wanted = call("layer_norm_backward", g, x, 1, weight, mean, scale)
    largest = float(np.abs(scale).max()) * 4
    check(got[0], wanted[0], dtype, largest)
    assert (got[1] is None) == (weight is None)
    for one, other in zip(got[1:], wanted[1:], strict=True):
        if one is not None:
            check(one, other, dtype, many)
    got, wanted = call("rms_norm_backward", g, x, 1, weight, np.asarray(rstd_wanted, own))
    check(got[0], wanted[0], dtype, float(rstd_wanted.max()) * 4)
    assert (got[1] is None) == (weight is None)
    if weight is not None:
        check(got[1], wanted[1], dtype, many)


@pytest.mark.parametrize("width", WIDTHS)
def test_widths(k: Kernels, width: int):
    both(k, 3, width, np.float32, seed=width)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, BFLOAT16], ids=str)
@pytest.mark.parametrize("width", [1, 24, 33, 513])
def test_dtypes(k: Kernels, width: int, dtype: Any):
    both(k, 3, width, dtype, weighted=width != 24, seed=width)


@pytest.mark.parametrize("weighted", [True, False])
def test_many_rows_are_shared_among_a_bounded_number_of_blocks(
    k: Kernels, monkeypatch: pytest.MonkeyPatch, weighted: bool
):
    monkeypatch.setattr(norm, "BUSY", 12)
    both(k, 61, 40, np.float32, weighted)
    both(k, 9, 1100, np.float32, weighted)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(("width", "dtype"), WIDE, ids=str)
def test_a_row_too_wide_for_registers(
    k: Kernels, started: Any, width: int, dtype: Any, weighted: bool
):
    both(k, 2, width, dtype, weighted)
    kind = launch.KINDS[np.dtype(dtype)]
    assert started[f"norm_dx_{kind}"] == 2
    assert started[f"norm_columns_{kind}"] == 1 + weighted
    assert not started[f"layer_norm_backward_{kind}"]


@pytest.mark.parametrize("width", [40, 41, 1100, 5000])
def test_a_row_too_wide_for_shared_memory(k: Kernels, monkeypatch: pytest.MonkeyPatch, width: int):
    monkeypatch.setattr(launch, "_most_shared", lambda: 64)
    both(k, 2, width, np.float32)


def test_rows_at_any_address_and_of_any_strides(k: Kernels):
    rng = np.random.default_rng(0)
    held = rng.normal(size=5 * 64 + 3).astype(np.float32)
    weight = rng.normal(size=65).astype(np.float32)[1:]
    for x in (held[3:].reshape(5, 64), held[:320].reshape(64, 5).T):
        out, mean, rstd = k.layer_norm(placed(x), 1, placed(weight), None, 1e-5)
        want, *kept = reference.layer_norm(wide(x), 1, wide(weight), None, 1e-5)
        check(out, want, np.float32)
        g = placed(x[::-1])
        dx, dweight, _ = k.layer_norm_backward(g, placed(x), 1, placed(weight), mean, rstd)
        wants = reference.layer_norm_backward(wide(x[::-1]), wide(x), 1, wide(weight), *kept)
        check(dx, wants[0], np.float32, 4)
        check(dweight, wants[1], np.float32, 4)


@pytest.mark.parametrize("width", [5, 100, 768, 3000])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, BFLOAT16], ids=str)
def test_equal_elements_give_zeros_however_small_eps_is(k: Kernels, dtype: Any, width: int):
    values = np.array([0.7, 1.8300176, -1e4, 12345.678, 1e-3])
    x = np.repeat(values[:, None], width, 1).astype(dtype)
    out, mean, _ = k.layer_norm(placed(x), 1, None, None, 1e-30)
    np.testing.assert_array_equal(host(out), 0)
    np.testing.assert_array_equal(host(mean), x[:, 0].astype(statistics_of(dtype)))


def test_a_mean_far_from_zero_leaves_the_variance(k: Kernels):
    x = (4096 + np.random.default_rng(0).integers(-8, 9, (4, 1000)) / 64).astype(np.float32)
    out, mean, rstd = k.layer_norm(placed(x), 1, None, None, 1e-12)
    wants = reference.layer_norm(wide(x), 1, None, None, 1e-12)
    for got, want in zip((out, mean, rstd), wants, strict=True):
        np.testing.assert_allclose(host(got), want, rtol=2e-5, atol=1e-6)


def test_not_finite_rows_are_nan_and_leave_the_others(k: Kernels):
    x = np.random.default_rng(0).normal(size=(4, 50)).astype(np.float32)
    x[1, 7], x[2, 0] = np.nan, np.inf
    out, mean, rstd = (host(a) for a in k.layer_norm(placed(x), 1, None, None, 1e-5))
    want = reference.layer_norm(x[[0, 3]], 1, None, None, 1e-5)[0]
    np.testing.assert_allclose(out[[0, 3]], want, rtol=1e-5, atol=1e-6)
    assert np.isnan(out[[1, 2]]).all()
    assert np.isnan(mean[[1, 2]]).all() and np.isnan(rstd[[1, 2]]).all()
    out, rstd = (host(a) for a in k.rms_norm(placed(x), 1, None, 1e-5))
    assert np.isnan(out[1]).all() and np.isnan(out[2, 0]) and rstd[2] == 0
    np.testing.assert_array_equal(out[2, 1:], 0)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16], ids=str)
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0,)])
def test_empty(k: Kernels, started: Any, shape: tuple[int, ...], dtype: Any):
    own = statistics_of(dtype)
    x = placed(np.zeros(shape, dtype))
    weight = placed(np.ones(shape[-1:], dtype))
    out, mean, rstd = k.layer_norm(x, 1, weight, None, 1e-5)
    assert out.shape == shape and mean.shape == rstd.shape == shape[:-1]
    assert out.dtype == dtype and mean.dtype == rstd.dtype == own
    assert np.isnan(host(mean)).all() and np.isnan(host(rstd)).all()
    assert [a.shape for a in k.add_layer_norm(x, x, 1, weight, None, 1e-5)[:2]] == [shape] * 2
    dx, dweight, dbias = k.layer_norm_backward(x, x, 1, weight, mean, rstd)
    assert dx.shape == shape
    for sums in (dweight, dbias, k.rms_norm_backward(x, x, 1, weight, rstd)[1]):
        assert sums.shape == shape[-1:] and sums.dtype == dtype
        np.testing.assert_array_equal(host(sums), 0)
    assert not started


def test_sums_do_not_depend_on_the_order_of_threads():
    rng = np.random.default_rng(0)
    x, g = (rng.normal(size=(40, 70)).astype(np.float32) for _ in range(2))
    _, mean, rstd = reference.layer_norm(x, 1, None, None, 1e-5)
    found = []
    for order in (0, 1, 7):
        with emulated(order) as (k, _), on(Target("cuda")):
            given = [placed(a) for a in (g, x, mean, rstd, x[0])]
            grads = k.layer_norm_backward(*given[:2], 1, given[4], *given[2:4])
            found.append([host(a).tobytes() for a in grads])
    assert found[0] == found[1] == found[2]


def test_other_dtypes_go_to_the_layer_below(k: Kernels, started: Any):
    x = np.random.default_rng(0).normal(size=(3, 5))
    out, *_ = k.layer_norm(placed(x), 1, placed(np.ones(5, np.float32)), None, 1e-5)
    np.testing.assert_allclose(host(out), reference.layer_norm(x, 1, None, None, 1e-5)[0])
    assert not started


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_operators(k: Kernels, started: Any, case: Any):
    for job in jobs([case]):
        if job[1] != "gradgrad":  # primitive operators
            run(*job, examples=15)
    assert case.name == "normalize" or started


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_16_bit_operators_move_no_float32_array(k: Kernels, started: Any, name: str):
    dtype = getattr(minidl, name)
    x = minidl.ones((4, 48), device="cuda", dtype=dtype, requires_grad=True)
    one, two = (minidl.ones((48,), device="cuda", dtype=dtype, requires_grad=True) for _ in "ab")
    y = minidl.nn.functional.layer_norm(x, (48,), one)
    y = minidl.nn.functional.rms_norm(y, (48,), two)
    y.backward(minidl.ones((4, 48), device="cuda", dtype=dtype))
    grads = [x.grad, one.grad, two.grad]
    assert all(t is not None and t.dtype is dtype for t in (y, *grads))
    entries = ("layer_norm", "layer_norm_backward", "rms_norm", "rms_norm_backward")
    for entry in entries:
        assert started[f"{entry}_{name}"] == 1
    assert not any(kernel.endswith("float32") for kernel in started)
