"""Losses on the emulator: widths, rows too wide to keep, misaligned and 16-bit logits, edges."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated

import minidl
from minidl.autograd import grad
from minidl.backends import reference, use_backend
from minidl.backends.native_cuda import launch, loss
from minidl.backends.table import Kernels
from minidl.errors import OutOfRangeError
from minidl.nn import functional as F  # noqa: N812
from minidl.testing.cases import loss as cases
from minidl.testing.runner import jobs, run
from minidl.testing.targets import Target, on

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

RNG = np.random.default_rng(0)
START = RNG.bit_generator.state
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALVES = [np.dtype(np.float16), BFLOAT16]
WIDTHS = [1, 7, 8, 31, 32, 33, 1023, 1024, 1025, 4100]


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """Whichever tests ran before in this process."""
    RNG.bit_generator.state = START


@pytest.fixture(scope="module", params=[0, 1], ids=["in order", "backwards"])
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[Kernels, Emulator]]:
    with emulated(request.param) as found:
        yield found


def numbers(*shape: int, dtype: np.dtype | type = np.float32) -> np.ndarray:
    return (3 * RNG.standard_normal(shape)).astype(dtype)


def double(x: np.ndarray | None) -> Any:
    return x if x is None else x.astype(np.float64)


def all_three(
    k: Kernels,
    logits: np.ndarray,
    target: np.ndarray,
    weight: np.ndarray | None = None,
    ignored: int = -100,
    smoothing: float = 0.0,
    rtol: float = 2e-5,
) -> None:
    """Forward, backward and both in place against the specification in float64."""
    rest = ignored, smoothing
    with np.errstate(all="ignore"):
        wants = reference.cross_entropy(double(logits), target, double(weight), *rest)
        one = np.ones(())
        slope = reference.cross_entropy_backward(
            one, double(logits), target, double(weight), *rest, wants[1]
        )
    x, t = k.asarray(logits), k.asarray(target)
    w = None if weight is None else k.asarray(weight)
    wide = np.dtype(np.float64 if logits.dtype == np.float64 else np.float32)
    found = k.cross_entropy(x, t, w, *rest)
    own = x.copy()
    at_once = k.cross_entropy_in_place(own, t, w, *rest)
    for got, want in zip((*found, *at_once), (*wants, *wants), strict=True):
        assert got.dtype == wide
        np.testing.assert_allclose(k.host(got), want, rtol=rtol, atol=rtol)
    dx = k.cross_entropy_backward(k.asarray(np.ones((), wide)), x, t, w, *rest, found[1])
    coarse = {BFLOAT16: 2**-8, np.dtype(np.float16): 2**-10}.get(logits.dtype, rtol)
    for got in (dx, own):
        assert got.dtype == logits.dtype
        np.testing.assert_allclose(k.host(got).astype(float), slope, rtol=coarse, atol=coarse / 64)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, *HALVES])
def test_widths(gpu: tuple[Kernels, Emulator], width: int, dtype: np.dtype):
    logits, target = numbers(3, width, dtype=dtype), RNG.integers(0, width, 3)
    all_three(gpu[0], logits, target)
    target[1] = 1
    weight = RNG.uniform(0.5, 2, width).astype(dtype)
    all_three(gpu[0], logits, target, weight, 1, 0.1)


def test_rows_too_wide_for_shared_memory(
    gpu: tuple[Kernels, Emulator], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(launch, "_most_shared", lambda: 100)
    for width in (33, 1025):
        for smoothing in (0.0, 0.2):
            logits, target = numbers(2, width), RNG.integers(0, width, 2)
            all_three(gpu[0], logits, target, smoothing=smoothing)


@pytest.mark.parametrize("dtype", [np.float32, BFLOAT16])
@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64])
def test_misaligned_and_spread(gpu: tuple[Kernels, Emulator], dtype: np.dtype, kind: type):
    k = gpu[0]
    whole, target = numbers(4 * 32 + 1, dtype=dtype), np.array([3, 0, 31, 9], kind)
    for x in (k.asarray(whole)[1:].reshape(4, 32), k.asarray(whole)[1:].reshape(32, 4).T):
        plain, own = k.host(x).copy(), x.copy() if x.flags.c_contiguous else x
        losses, _, _ = k.cross_entropy(x, k.asarray(target), None, -100, 0.0)
        again, _, _ = k.cross_entropy_in_place(own, k.asarray(target), None, -100, 0.0)
        want, lse, _ = reference.cross_entropy(double(plain), target, None, -100, 0.0)
        slope = reference.cross_entropy_backward(
            np.ones(()), double(plain), target, None, -100, 0.0, lse
        )
        for got in (losses, again):
            np.testing.assert_allclose(k.host(got), want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(k.host(own).astype(float), slope, rtol=0.01, atol=1e-4)


def test_edge_values(gpu: tuple[Kernels, Emulator]):
    """-inf leaves a class out, also whole pieces of a row; large logits lose nothing."""
    inf = np.inf
    logits = numbers(6, 2000)
    logits[0, :1990] = -inf
    logits[1] += 300
    logits[2, 5] = 300
    logits[3, :] = -inf
    logits[4, 7] = np.nan
    logits[5, 7] = inf
    all_three(gpu[0], logits, np.array([1995, 3, 6, 1, 1, 1]), rtol=1e-4)
    all_three(gpu[0], logits[:3], np.array([1995, 3, 5]), smoothing=0.0, rtol=1e-4)


def test_ignored_rows_are_zero_whatever_they_hold(gpu: tuple[Kernels, Emulator]):
    logits = numbers(3, 40)
    logits[1] = np.nan
    all_three(gpu[0], logits, np.array([1, -100, 2]))


def test_totals_of_many_rows(gpu: tuple[Kernels, Emulator], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loss, "_ROWS_OF_ONE_BLOCK", 100)
    for dtype in (np.float32, np.float64, BFLOAT16):
        logits, target = numbers(9000, 3, dtype=dtype), RNG.integers(0, 3, 9000)
        weight = RNG.uniform(0.5, 2, 3).astype(dtype)
        x, t, w = map(gpu[0].asarray, (logits, target, weight))
        call = loss._Classes(x, t, w, 1, 0.0)
        want = double(weight)[target[target != 1]].sum()
        np.testing.assert_allclose(gpu[0].host(call.total()), want, rtol=1e-6)


def test_gradients_per_row(gpu: tuple[Kernels, Emulator]):
    k = gpu[0]
    logits, target, g = numbers(5, 9), RNG.integers(0, 9, 5), numbers(5)
    losses, lse, _ = reference.cross_entropy(double(logits), target, None, -100, 0.3)
    want = reference.cross_entropy_backward(double(g), double(logits), target, None, -100, 0.3, lse)
    rest = k.asarray(target), None, -100, 0.3, k.asarray(lse)
    for each in (g, g[:1], np.array(2.0, np.float32)):
        found = k.host(k.cross_entropy_backward(k.asarray(each), k.asarray(logits), *rest))
        scale = 1 if each is g else (each / g)[:, None]
        np.testing.assert_allclose(found, want * scale, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("entry", ["cross_entropy", "cross_entropy_in_place"])
@pytest.mark.parametrize("bad", [-1, 4, 1 << 40])
def test_targets_outside_are_told_at_the_next_read(
    gpu: tuple[Kernels, Emulator], entry: str, bad: int
):
    k = gpu[0]
    logits = k.asarray(numbers(3, 4))
    getattr(k, entry)(logits, k.asarray(np.array([0, bad, 1])), None, -100, 0.0)
    with pytest.raises(ValueError, match="targets must lie in"):
        k.host(logits)
    k.host(logits)


def test_the_operator_tells_of_targets(gpu: tuple[Kernels, Emulator]):
    found = F.cross_entropy(minidl.zeros(2, 3, device="cuda"), minidl.tensor([0, 3], device="cuda"))
    with pytest.raises(OutOfRangeError, match="targets must lie in"):
        found.item()
    minidl.zeros(1, device="cuda").item()


def test_empty(gpu: tuple[Kernels, Emulator]):
    k = gpu[0]
    for dtype in (np.float32, BFLOAT16):
        for shape in ((0, 4), (2, 0)):
            target = k.asarray(np.full(shape[0], -100))
            for entry in (k.cross_entropy, k.cross_entropy_in_place):
                losses, lse, total = entry(k.zeros(shape, dtype), target, None, -100, 0.0)
                assert losses.shape == lse.shape == shape[:1]
                assert losses.dtype == lse.dtype == total.dtype == np.float32
                assert k.host(total) == 0
            g = k.ones((), np.float32)
            dx = k.cross_entropy_backward(g, k.zeros(shape, dtype), target, None, -100, 0.0, lse)
            assert dx.shape == shape
            assert dx.dtype == dtype


def test_binary_of_more_than_one_grid(
    gpu: tuple[Kernels, Emulator], monkeypatch: pytest.MonkeyPatch
):
    k = gpu[0]
    x, target, g = (numbers(4101, dtype=np.dtype(np.float32)) for _ in range(3))
    given = [k.asarray(a) for a in (g, x, target)]
    kernels = (
        (k.binary_cross_entropy_with_logits, given[1:]),
        (k.binary_cross_entropy_with_logits_backward, given),
    )
    want = [k.host(kernel(*args, None, None)) for kernel, args in kernels]
    monkeypatch.setattr(loss, "_MOST_BLOCKS", 2)
    for (kernel, args), whole in zip(kernels, want, strict=True):
        np.testing.assert_array_equal(k.host(kernel(*args, None, None)), whole)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, *HALVES])
@pytest.mark.parametrize("size", [1, 7, 8, 31, 33, 1025])
def test_binary(gpu: tuple[Kernels, Emulator], dtype: np.dtype, size: int):
    k = gpu[0]
    x, target = numbers(2, size, dtype=dtype), RNG.uniform(0, 1, (2, size)).astype(dtype)
    x[0, 0], x[1, 0] = 80, -80
    g = numbers(2, size, dtype=dtype)
    wide = np.float64 if dtype == np.float64 else np.float32
    eps = float(ml_dtypes.finfo(dtype).eps)
    factors = [None, *(RNG.uniform(0.5, 2, s).astype(dtype)
                       for s in ((), (size,), (2, 1), (2, size), (1, 1)))]  # fmt: skip
    for weight in factors:
        for positive in factors[:3]:
            args = [k.asarray(a) if a is not None else None for a in (x, target, weight, positive)]
            found = k.binary_cross_entropy_with_logits(*args)
            want = reference.binary_cross_entropy_with_logits(
                *map(double, (x, target, weight, positive))
            )
            assert found.dtype == wide
            np.testing.assert_allclose(k.host(found), want, rtol=1e-5, atol=1e-6)
            for each in (g, np.broadcast_to(g[:1, :1], g.shape)):
                given = (
                    k.broadcast_to(k.asarray(each[:1, :1]), g.shape)
                    if each is not g
                    else (k.asarray(g))
                )
                dx = k.binary_cross_entropy_with_logits_backward(given, *args)
                assert dx.dtype == dtype
                want = reference.binary_cross_entropy_with_logits_backward(
                    *map(double, (each, x, target, weight, positive))
                )
                near = max(eps, 1e-5)
                np.testing.assert_allclose(k.host(dx).astype(float), want, rtol=near, atol=near)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_16_bits_are_not_widened(gpu: tuple[Kernels, Emulator], dtype: str, reduction: str):
    """Operators give the kernels what they have; losses are summed in float32, rounded once."""
    k, machine = gpu
    x = minidl.tensor(numbers(40, 12).tolist(), dtype=getattr(minidl, dtype), device="cuda")
    x.requires_grad_()
    target = minidl.tensor(RNG.integers(0, 12, 40).tolist(), device="cuda")
    machine.started.clear()
    out = F.cross_entropy(x, target, reduction=reduction)
    (found,) = grad(out.sum(), [x])
    assert out.dtype is found.dtype is getattr(minidl, dtype)
    wide = minidl.tensor(k.host(x.array).astype(np.float64).tolist(), dtype=minidl.float64)
    wide.requires_grad_()
    own = minidl.tensor(k.host(target.array).tolist())
    want = F.cross_entropy(wide, own, reduction=reduction)
    (slope,) = grad(want.sum(), [wide])
    eps = 2**-8 if dtype == "bfloat16" else 2**-11
    np.testing.assert_allclose(k.host(out.array).astype(float), want.array, rtol=eps)
    np.testing.assert_allclose(
        k.host(found.array).astype(float), slope.array, rtol=2 * eps, atol=eps / 64
    )
    assert {name for name in machine.started if "entropy" in name} == {
        f"{name}_{dtype}" for name in ("cross_entropy", "cross_entropy_backward",
                                       "cross_entropy_total")
    }  # fmt: skip
    y = minidl.sigmoid(x.detach())
    machine.started.clear()
    out = F.binary_cross_entropy_with_logits(x, y, reduction=reduction)
    grad(out.sum(), [x])
    assert out.dtype is x.dtype
    assert f"binary_cross_entropy_backward_{dtype}" in machine.started
    assert f"binary_cross_entropy_{dtype}" in machine.started


def test_a_linear_map_and_its_loss_in_chunks(
    gpu: tuple[Kernels, Emulator], monkeypatch: pytest.MonkeyPatch
):
    k, machine = gpu
    monkeypatch.setattr(sys.modules["minidl.ops.linear_cross_entropy"], "_LOGITS", {"cuda": 40})
    x, weight = (
        minidl.tensor(numbers(*shape).tolist(), device="cuda", requires_grad=True)
        for shape in ((12, 5), (10, 5))
    )
    target = minidl.tensor(RNG.integers(0, 10, 12).tolist(), device="cuda")
    plain = grad(F.cross_entropy(F.linear(x, weight), target), [x, weight])
    machine.started.clear()
    own = grad(F.linear_cross_entropy(x, weight, target), [x, weight])
    assert machine.started["cross_entropy_in_place_float32"] == 3
    for found, want in zip(own, plain, strict=True):
        np.testing.assert_allclose(k.host(found.array), k.host(want.array), rtol=1e-4, atol=1e-5)


def test_a_linear_map_and_its_loss_of_16_bits(
    gpu: tuple[Kernels, Emulator], monkeypatch: pytest.MonkeyPatch
):
    """Where products take 16-bit floats as they are; sums over chunks are in float32 even so."""
    k, machine = gpu
    monkeypatch.setattr(k, "half", k.half | {"linear_cross_entropy"})
    chunks = {"cuda": 40, "cpu": 40}
    monkeypatch.setattr(sys.modules["minidl.ops.linear_cross_entropy"], "_LOGITS", chunks)
    given = [(numbers(rows, 5) / 5).astype(BFLOAT16) for rows in (12, 10)]
    target = RNG.integers(0, 10, 12).tolist()
    found = []
    for dtype, device in ((minidl.bfloat16, "cuda"), (minidl.float64, "cpu")):
        x, weight = (
            minidl.tensor(double(a).tolist(), dtype=dtype, device=device, requires_grad=True)
            for a in given
        )
        loss = F.linear_cross_entropy(x, weight, minidl.tensor(target, device=device))
        found.append([loss, *grad(loss, [x, weight])])
    assert machine.started["cross_entropy_in_place_bfloat16"]
    for own, want in zip(*found, strict=True):
        assert own.dtype is minidl.bfloat16
        got = k.host(own.array).astype(float)
        np.testing.assert_allclose(got, want.array, rtol=0.02, atol=0.02)


ROWS = [case for case in cases.CASES if case.name in loss.OVER]


@pytest.mark.parametrize("case", ROWS, ids=lambda case: case.name)
def test_operators(case: Any):
    with emulated(), on(Target("cuda")):
        for job in jobs([case]):
            run(*job)


@pytest.mark.parametrize("backend", ["reference", "cupy", "cuda"])
def test_a_weight_of_nobody_may_be_nan(backend: str):
    x = np.array([[1, 2, 0], [1, 2, 3]], np.float32)
    weight = np.array([np.nan, 1, 1], np.float32)
    with emulated(), use_backend(backend):
        place = "cpu" if backend == "reference" else "cuda"
        logits = minidl.tensor(x, device=place, requires_grad=True)
        given = minidl.tensor(np.array([1, 2]), device=place)
        minidl.nn.functional.cross_entropy(
            logits, given, minidl.tensor(weight, device=place), ignore_index=1
        ).backward()
        got = logits.grad.cpu().numpy()
    np.testing.assert_allclose(got[1], [0.0900306, 0.2447285, -0.3347591], 1e-5)
    np.testing.assert_array_equal(got[0], 0)
