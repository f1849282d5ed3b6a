"""The kernels in CUDA source, compiled as C++ and run on the CPU against the specification.

Threads of a block become threads of the CPU that meet at `__syncthreads`, so that indices, edges
and the two phases of a tile are tested without a GPU. Where nvcc is found, it compiles them, too.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minidl.backends import reference
from minidl.backends.cupy_gpu import capture
from minidl.backends.cupy_gpu.raw import gemm, launch, optim, random

SOURCES = {"gemm": gemm.SOURCE, "random": random.SOURCE, "optim": optim.SOURCE}
SOURCES["norm"] = optim.NORM
SHIM = r"""
#include <cmath>
#include <pthread.h>
#include <thread>
#include <vector>
using std::cos; using std::log; using std::sin; using std::sqrt;
struct Three { unsigned x, y, z; };
static thread_local Three threadIdx, blockIdx;
static Three blockDim;
static pthread_barrier_t meeting;
static void __syncthreads() { pthread_barrier_wait(&meeting); }
#define __device__ static
#define __global__ static
#define __shared__ static
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(n)
"""
LAUNCH = r"""
extern "C" void launch_NAME(unsigned blocks, unsigned threads, const TYPE* argument) {
    blockDim = {threads, 1, 1};
    if (!TOGETHER) {
        for (unsigned block = 0; block < blocks; ++block)
            for (unsigned t = 0; t < threads; ++t) {
                blockIdx = {block, 0, 0}, threadIdx = {t, 0, 0};
                NAME(*argument);
            }
        return;
    }
    pthread_barrier_init(&meeting, nullptr, threads);
    std::vector<std::thread> team;
    for (unsigned t = 0; t < threads; ++t)
        team.emplace_back([=] {
            for (unsigned block = 0; block < blocks; ++block) {
                blockIdx = {block, 0, 0}, threadIdx = {t, 0, 0};
                NAME(*argument);
                __syncthreads();
            }
        });
    for (auto& thread : team) thread.join();
    pthread_barrier_destroy(&meeting);
}
"""
KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*) p\)')


class Array(np.ndarray):
    """A NumPy array whose address is where CuPy's arrays have theirs."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)


def placed(x: Any, dtype: Any = None) -> Any:
    return np.array(x, dtype, order="K").view(Array)


CUPY = SimpleNamespace(
    ndarray=Array,
    empty=lambda shape, dtype: np.full(shape, 77, dtype).view(Array),
    array=lambda x, dtype, order: np.array(x, dtype, order=order).view(Array),
    asarray=lambda x: x,
    rint=np.rint,
    sum=np.sum,
    sqrt=np.sqrt,
    expand_dims=np.expand_dims,
    broadcast_to=lambda x, shape: np.broadcast_to(x, shape, subok=True),
    ascontiguousarray=lambda x: np.ascontiguousarray(x).view(Array),
)


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ctypes.CDLL]:
    if shutil.which("g++") is None:
        pytest.skip("needs g++, which runs the CUDA source on the CPU")
    folder, found = tmp_path_factory.mktemp("kernels"), {}
    for name, text in SOURCES.items():
        starts = [
            LAUNCH.replace("NAME", kernel)
            .replace("TYPE", kind.split()[-1])
            .replace("TOGETHER", "true" if "__syncthreads" in text else "false")
            for kernel, kind in KERNEL.findall(text)
        ]
        assert starts
        file, library = folder / f"{name}.cpp", folder / f"{name}.so"
        file.write_text(
            SHIM + text.replace('extern "C" __global__', "__global__") + "".join(starts)
        )
        command = ["g++", "-O1", "-std=c++17", "-ffp-contract=off", "-fPIC", "-shared", "-pthread"]
        subprocess.run([*command, "-w", str(file), "-o", str(library)], check=True)
        found[name] = ctypes.CDLL(str(library))
    return found


def started(
    libraries: dict[str, ctypes.CDLL],
    source: launch.Source,
    name: str,
    blocks: int,
    record: np.ndarray,
) -> None:
    """Run the kernel `name` on the CPU."""
    if blocks:
        where = next(key for key, text in SOURCES.items() if text == source.text)
        function = getattr(libraries[where], f"launch_{name}")
        function(blocks, launch.THREADS, ctypes.c_void_p(record.ctypes.data))


@pytest.fixture(autouse=True)
def emulated(libraries: dict[str, ctypes.CDLL], monkeypatch: pytest.MonkeyPatch):
    """Kernels start on the CPU, and arrays are NumPy's."""

    monkeypatch.setattr(launch.Source, "start", lambda *args: started(libraries, *args))
    for module in (gemm, random, optim):
        monkeypatch.setattr(module, "cp", CUPY)


# ---------------------------------------------------------------- products


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("x", "y"),
    [
        ((1, 1), (1, 1)),
        ((65, 17), (17, 63)),
        ((3, 200), (200, 5)),
        ((2, 1030), (1030, 3)),  # in parts of the inner axis
        ((7,), (7, 66)),
        ((66, 7), (7,)),
        ((19,), (19,)),
        ((3, 70, 9), (9, 5)),
        ((2, 1, 3, 5), (4, 5, 6)),
        ((2, 1, 2, 1, 3, 5), (2, 1, 3, 5, 4)),
        ((3, 2, 600), (600, 2)),
        ((0, 3), (3, 2)),
        ((2, 0), (0, 3)),
    ],
)
def test_products(x: tuple, y: tuple, dtype: str):
    rng = np.random.default_rng(0)
    a, b = (placed(rng.standard_normal(shape), dtype) for shape in (x, y))
    check_product(a, b)
    if len(x) > 1:
        check_product(placed(a.swapaxes(-1, -2)).swapaxes(-1, -2), b)
        check_product(placed(np.repeat(a, 2, -1))[..., ::2], b)
    if len(y) > 1:
        check_product(a, placed(b.swapaxes(-1, -2)).swapaxes(-1, -2))


def check_product(a: Any, b: Any) -> None:
    wanted = np.matmul(np.asarray(a, "f8"), np.asarray(b, "f8"))
    found = gemm._own(a, b, None)
    assert found.shape == wanted.shape and found.dtype == a.dtype
    inner = max(1, a.shape[-1])
    np.testing.assert_allclose(found, wanted, 0, 8 * inner * np.finfo(a.dtype).eps)
    wide = placed(np.zeros((*wanted.shape, 2), a.dtype))
    assert gemm._own(a, b, wide[..., 1]) is not None
    np.testing.assert_array_equal(wide[..., 1], found)
    assert not wide[..., 0].any()


def test_large_tiles(monkeypatch: pytest.MonkeyPatch):
    """Results of many tiles go to the kernel with tiles of 128 x 128; here two are many."""
    monkeypatch.setattr(gemm, "_BUSY", 4)
    names = []
    start = launch.Source.start
    monkeypatch.setattr(
        launch.Source, "start", lambda *args: (names.append(args[1]), start(*args))[1]
    )
    rng = np.random.default_rng(1)
    x, y = (
        placed(rng.standard_normal((130, 40)), "f4"),
        placed(rng.standard_normal((40, 129)), "f4"),
    )
    check_product(x, y)
    check_product(placed(x.T).T, placed(y.T).T)
    assert set(names) == {"multiply_float_large"}


def test_products_fit():
    with pytest.raises(ValueError):
        gemm._own(placed(np.zeros((2, 3))), placed(np.zeros((2, 3))), None)
    with pytest.raises(ValueError):
        gemm._own(placed(np.zeros((2, 3))), placed(np.zeros((3, 2))), placed(np.zeros((3, 2))))


# ---------------------------------------------------------------- random numbers

SIZES = [0, 1, 3, 4, 5, 1023, 4099]
WHERE = [(0, 0), (2**64 - 1, 2**64 - 3), (123456789012345, 2**32 - 2)]


@pytest.mark.parametrize(("seed", "offset"), WHERE)
@pytest.mark.parametrize("size", SIZES)
def test_random_numbers(size: int, seed: int, offset: int):
    at = (seed, offset)
    np.testing.assert_array_equal(random.philox_bits(size, *at), reference.philox_bits(size, *at))
    for dtype in (np.float32, np.float64):
        found, wanted = random.uniform((size,), dtype, *at), reference.uniform((size,), dtype, *at)
        np.testing.assert_array_equal(found, wanted)
        found, wanted = random.normal((size,), dtype, *at), reference.normal((size,), dtype, *at)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_max_ulp(np.asarray(found), wanted, 2)
        x = placed(np.random.default_rng(0).standard_normal(size), dtype)
        for p in (0.0, 0.3, 1.0):
            found, wanted = random.dropout(x, p, *at), reference.dropout(np.asarray(x), p, *at)
            np.testing.assert_array_equal(found, wanted)
    for p in (0.0, 0.25, 1.0, placed(np.linspace(0, 1, size)), placed(0.5)):
        wanted = reference.bernoulli((size,), np.asarray(p) if isinstance(p, Array) else p, *at)
        np.testing.assert_array_equal(random.bernoulli((size,), p, *at), wanted)


def test_dropout_of_other_layouts():
    x = placed(np.arange(12.0).reshape(3, 4)).T
    np.testing.assert_array_equal(
        random.dropout(x, 0.5, 1, 2), reference.dropout(np.asarray(x), 0.5, 1, 2)
    )


# ---------------------------------------------------------------- optimiser steps

SHAPES = [(3,), (), (0,), (1024,), (1025,), (5, 700), (2, 2)] * 5  # more than one launch takes
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01}


def lists(count: int, dtype: Any) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [[rng.random(s).astype(dtype) for s in SHAPES] for _ in range(count)]


def copies(arrays: list[list[np.ndarray]], strided: bool) -> list[list[Any]]:
    def copy(x: np.ndarray) -> Any:
        return placed(np.stack([x, x], -1))[..., 0] if strided else placed(x)

    return [[copy(x) for x in each] for each in arrays]


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize(
    "changed", [{}, {"momentum": 0}, {"nesterov": True, "dampening": 0}, {"weight_decay": 0}]
)
@pytest.mark.parametrize("maximize", [False, True])
def test_sgd(dtype: Any, strided: bool, changed: dict, maximize: bool):
    options = {"nesterov": False, "maximize": maximize, **SGD, **changed}
    plain = lists(3, dtype)
    found = copies(plain, strided)
    first = [i % 2 == 0 for i in range(len(SHAPES))]
    reference.sgd_step(*plain, first, **options)
    optim.sgd_step(*found, first, **options)
    for a, b in zip(plain, found, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("changed", [{}, {"beta1": 0.3}, {"weight_decay": 0}])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam(dtype: Any, strided: bool, changed: dict, decoupled: bool, amsgrad: bool):
    flags = {"decoupled": decoupled, "amsgrad": amsgrad, "maximize": amsgrad}
    options = {**flags, **ADAM, **changed}
    plain = lists(5, dtype)
    plain[4][0][...] = np.nan
    found = copies(plain, strided)
    steps = [1 + i % 3 for i in range(len(SHAPES))]
    reference.adam_step(*plain, steps, **options)
    optim.adam_step(*found, steps, **options)
    for a, b in zip(plain, found, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("strided", [False, True])
def test_norm(dtype: Any, strided: bool):
    shapes = [(3,), (), (0,), (4096,), (4097,), (5, 1700)] * 20  # more than one launch takes
    rng = np.random.default_rng(0)
    plain = [[rng.standard_normal(s).astype(dtype) for s in shapes]]
    (grads,) = copies(plain, strided)
    wanted = reference.grad_norm(plain[0], 2.0)
    np.testing.assert_allclose(optim.grad_norm(grads, 2.0), wanted, 1e-12)
    np.testing.assert_array_equal(optim.grad_norm(grads[2:3], 2.0), 0)


def test_a_parameter_that_is_given_twice_steps_twice():
    options = {**SGD, "nesterov": False, "maximize": False}
    p, g, v = (np.ones(5, "f4") for _ in range(3))
    P, G, V = map(placed, (p, g, v))
    reference.sgd_step([p, p], [g, g], [v, v], [False, False], **options)
    optim.sgd_step([P, P], [G, G], [V, V], [False, False], **options)
    np.testing.assert_array_equal(p, P)


# ---------------------------------------------------------------- the compiler


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="needs nvcc, of the CUDA toolkit")
@pytest.mark.parametrize("name", [*SOURCES, "capture"])
def test_nvcc_compiles_them_without_spills(name: str, tmp_path: Path):
    file = tmp_path / "kernel.cu"
    file.write_text(SOURCES.get(name, capture._SOURCE))
    command = ["nvcc", "-arch=sm_90", "-cubin", "-Xptxas", "-v", str(file), "-o", "/dev/null"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    assert re.findall(r"(\d+) bytes spill stores", said)
    assert set(re.findall(r"(\d+) bytes spill stores", said)) == {"0"}
