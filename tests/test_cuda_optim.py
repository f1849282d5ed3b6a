"""Optimiser steps, gradient norms and scaling on the emulator: bit for bit the specification."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from emulation import Emulator, emulated

import minidl
from minidl import nn
from minidl.backends import reference
from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.table import Kernels

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ for the emulator")

F4, F8, F2 = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16)
B2 = np.dtype(ml_dtypes.bfloat16)
SHAPES = [(3,), (), (0,), (1024,), (1025,), (5, 7), (2, 2), (8,), (9,)] * 8  # two launches
SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.01}
ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.01}
# of parameters, gradients, states; and the kernel's suffix
DTYPES = [
    (F4, F4, F4, "float32_float32"),
    (F8, F8, F8, "float64_float64"),
    (F2, F2, F2, "float16_float16"),
    (B2, B2, B2, "bfloat16_bfloat16"),
    (F2, F2, F4, "float16_float32"),
    (B2, B2, F4, "bfloat16_float32"),
    (F4, B2, F4, "float32_float32"),
    (B2, F4, F4, "float32_float32"),
    (F4, F4, F2, "float32_float32"),
    (F8, F4, F8, "float64_float64"),
]


@pytest.fixture(scope="module", params=[0, 1], ids=["in order", "backwards"])
def gpu(request: pytest.FixtureRequest) -> Iterator[tuple[Kernels, Emulator]]:
    with emulated(request.param) as found:
        found[1].started.clear()
        yield found


def lists(dtypes: list[np.dtype], shapes: list[tuple]) -> list[list[np.ndarray]]:
    rng = np.random.default_rng(0)
    return [[rng.random(s).astype(dtype) for s in shapes] for dtype in dtypes]


def moved(arrays: list[list[np.ndarray]], layout: str = "whole") -> list[list[Any]]:
    def copy(x: np.ndarray) -> Any:
        if layout == "strided":
            return cp.asarray(np.stack([x, x], -1))[..., 0]
        if layout == "misaligned":
            flat = np.concatenate([x.reshape(-1)[:0], np.zeros(1, x.dtype), x.reshape(-1)])
            return cp.asarray(flat)[1:].reshape(x.shape)
        return cp.asarray(x)

    return [[copy(x) for x in each] for each in arrays]


def same(wanted: list[list[np.ndarray]], found: list[list[Any]]) -> None:
    for a, b in zip(wanted, found, strict=True):
        for x, y in zip(a, b, strict=True):
            assert y.dtype == x.dtype
            np.testing.assert_array_equal(y.get().astype(F8), x.astype(F8))


LAYOUTS = ["whole", "misaligned", "strided"]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"momentum": 0},
        {"nesterov": True, "dampening": 0},
        {"weight_decay": 0, "maximize": True},
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtypes", DTYPES, ids=lambda d: "-".join(map(str, d[:3])))
def test_sgd(dtypes: tuple, layout: str, changed: dict, gpu: tuple[Any, Emulator]):
    k, machine = gpu
    options = {"nesterov": False, "maximize": False, **SGD, **changed}
    shapes = SHAPES if layout == "whole" and not changed else SHAPES[:9]
    plain: list[Any] = lists(list(dtypes[:3]), shapes)
    found = moved(plain, layout)
    first = [i % 2 == 0 for i in range(len(shapes))]
    machine.started.clear()
    reference.sgd_step(*plain, first, **options)
    k.sgd_step(*found, first, **options)
    same(plain, found)
    # which of the parameters are stepped for the first time makes two launches
    if options["momentum"]:
        assert dict(machine.started) == {f"sgd_{dtypes[3]}": 2}
    else:
        assert sum(machine.started.values()) == -(-len(shapes) // 64)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"beta1": 0.3, "decoupled": True},
        {"weight_decay": 0, "maximize": True},
        {"amsgrad": True, "decoupled": True},
    ],
)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtypes", DTYPES, ids=lambda d: "-".join(map(str, d[:3])))
def test_adam(dtypes: tuple, layout: str, changed: dict, gpu: tuple[Any, Emulator]):
    k, machine = gpu
    flags = {"decoupled": False, "amsgrad": False, "maximize": False}
    options = {**flags, **ADAM, **changed}
    shapes = SHAPES if layout == "whole" and not changed else SHAPES[:9]
    plain: list[Any] = lists([*dtypes[:2], *[dtypes[2]] * 3], shapes)
    plain[4][0][...] = np.nan
    found = moved(plain, layout)
    steps = [1 + i % 3 for i in range(len(shapes))]
    machine.started.clear()
    with np.errstate(all="ignore"):
        reference.adam_step(*plain, steps, **options)
    k.adam_step(*found, steps, **options)
    same(plain, found)
    assert dict(machine.started) == {f"adam_{dtypes[3]}": 3}


def test_a_parameter_that_is_given_twice_steps_twice(gpu: tuple[Any, Emulator]):
    k, _ = gpu
    options = {**SGD, "nesterov": False, "maximize": False}
    p, g, v = (np.ones(5, "f4") for _ in range(3))
    P, G, V = map(cp.asarray, (p, g, v))
    reference.sgd_step([p, p], [g, g], [v, v], [True, False], **options)
    k.sgd_step([P, P], [G, G], [V, V], [True, False], **options)
    same([[p, v]], [[P, V]])


@pytest.mark.parametrize("dtype", [F4, F2, B2, F8], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm(dtype: np.dtype, layout: str, gpu: tuple[Any, Emulator]):
    k, machine = gpu
    shapes = [(3,), (), (0,), (4096,), (4097,), (5, 9)] + [(2,)] * (170 * (layout == "whole"))
    plain = lists([dtype], shapes)[0]
    grads = moved([plain], layout)[0]
    machine.started.clear()
    wanted = reference.grad_norm(plain, 2.0)
    found = k.grad_norm(grads, 2.0)
    np.testing.assert_allclose(found.get(), wanted, 1e-12)
    if dtype != F8:
        assert found.shape == () and found.dtype == F8
        assert sum(machine.started.values()) == (3 if layout == "whole" else 2)
    assert float(k.grad_norm(grads[2:3], 2.0).get()) == 0
    np.testing.assert_allclose(k.grad_norm(grads[:2], 1.0).get(), reference.grad_norm(plain[:2], 1))


def test_norms_of_several_dtypes(gpu: tuple[Any, Emulator]):
    k, _ = gpu
    plain = [x for each in lists([F4, F2, B2], [(5,), (33,)]) for x in each]
    found = k.grad_norm([cp.asarray(x) for x in plain], 2.0)
    np.testing.assert_allclose(found.get(), reference.grad_norm(plain, 2.0), 1e-12)
    plain[0][0] = np.nan
    assert np.isnan(k.grad_norm([cp.asarray(x) for x in plain], 2.0).get())
    assert k.grad_norm([], 2.0) == 0.0


@pytest.mark.parametrize("on_gpu", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scale(layout: str, on_gpu: bool, gpu: tuple[Any, Emulator]):
    k, machine = gpu
    plain = [x for each in lists([F4, F8, F2, B2], SHAPES[:9]) for x in each]
    grads = moved([plain], layout)[0]
    grads.append(grads[0])  # is scaled twice
    machine.started.clear()
    reference.grad_scale([*plain, plain[0]], 0.3)
    k.grad_scale(grads, cp.asarray(np.array(0.3)) if on_gpu else 0.3)
    same([plain], [grads[:-1]])
    assert machine.started["scale_float32"] == 2 and sum(machine.started.values()) == 5


def test_many_gradients_take_few_launches(gpu: tuple[Any, Emulator]):
    k, machine = gpu
    plain = lists([F4], [(3,)] * 161)[0]
    grads = moved([plain])[0]
    machine.started.clear()
    k.grad_scale(grads, cp.asarray(np.array(2, np.float32)))
    same([[x * 2 for x in plain]], [grads])
    assert dict(machine.started) == {"scale_float32": 2}


def test_clipping_waits_for_nothing(gpu: tuple[Any, Emulator]):
    _, machine = gpu
    there = [minidl.zeros(5, device="cuda") for _ in range(4)]
    for i, x in enumerate(there):
        x.grad = minidl.full((5,), float(i), device="cuda")
    machine.started.clear()
    nn.utils.clip_grad_norm_(there, 1.0)
    assert dict(machine.started) == {"squares_float32": 1, "root_of_sum": 1, "scale_float32": 1}
    grads: list[Any] = [x.grad for x in there]
    norm = sum(float((g * g).sum().item()) for g in grads)
    assert abs(norm - 1) < 1e-5
