"""Pointwise kernels and their gradients against plain float64 formulas; see test_kernels.py."""

import math

import numpy as np
import pytest
from hypothesis import given, strategies as st
from test_kernels import (
    DTYPES,
    LAYOUTS,
    SHAPES,
    _kernels as _kernels,
    arrays,
    close,
    directional,
    erf_exact,
    gelu_exact,
    gelu_tanh,
    laid,
    log_sigma,
    run,
    sigma,
    wide,
)

# name, attributes, formula, floor in (ULP of the result, eps * |x|)
POINTWISE = [
    ("relu", (), lambda x: np.maximum(wide(x), 0), 0, 0),
    ("erf", (), erf_exact, 4, 0),
    ("erfc", (), lambda x: erf_exact(x, True), 4, 0),
    ("sigmoid", (), sigma, 4, 0),
    ("log_sigmoid", (), log_sigma, 4, 0),
    ("softplus", (1.0, 20.0), lambda x: np.where(x > 20, x, -log_sigma(-wide(x))), 4, 0),
    (
        "softplus",
        (2.5, 3.0),
        lambda x: np.where(x > 1.2, x, -log_sigma(-2.5 * wide(x)) / 2.5),
        4,
        4,
    ),
    ("gelu", ("none",), gelu_exact, 0, 4),
    ("gelu", ("tanh",), gelu_tanh, 0, 4),
    ("silu", (), lambda x: wide(x) * sigma(x), 4, 0.1),
]


@pytest.mark.parametrize("name, attributes, formula, ulp, relative", POINTWISE)
@given(data=st.data())
def test_pointwise(name, attributes, formula, ulp, relative, data):
    dtype = data.draw(st.sampled_from(DTYPES))
    x = data.draw(arrays(data.draw(SHAPES), dtype, scale=3, extreme=True))
    got = run(name, x, *attributes)
    with np.errstate(all="ignore"):
        want = np.asarray(formula(x), np.float64)
        # PyTorch computes x * (something that is 0), and so do we
        want = np.where((x == -np.inf) & np.isin(name, ("gelu", "silu")), np.nan, want)
        unit = np.spacing(np.abs(want).astype(dtype)).astype(np.float64)
        size = np.nan_to_num(np.abs(x), posinf=0).astype(np.float64)
        room = ulp * unit + relative * np.finfo(dtype).eps * size
        room = room + float(np.finfo(dtype).tiny) * np.maximum(1, size)
    if name == "softplus" and attributes[0] == 2.5:
        away = np.abs(x - 1.2) > 1e-6  # the threshold decides between two close values
        got, want, room = got[away], want[away], room[away]
    close(got, want, room, dtype)


@given(data=st.data())
def test_erfinv_inverts(data):
    y = data.draw(st.floats(-1, 1, exclude_min=True, exclude_max=True))
    for dtype in DTYPES:
        value = np.full((1,), y, dtype)
        if abs(value[0]) == 1:
            continue
        x = float(run("erfinv", value)[0])
        a, want = abs(x), abs(float(value[0]))
        # the relative error of x, from the residual of whichever of erf and erfc is small
        residual = (1 - want) - math.erfc(a) if want > 0.5 else want - math.erf(a)
        slope = 2 / math.sqrt(math.pi) * math.exp(-a * a)
        noise = 2**-52 * min(want, 1 - want) / slope
        assert abs(residual) / slope <= 8 * float(np.spacing(dtype(a))) + 4 * noise
        assert math.copysign(1, x) == math.copysign(1, y)


def test_erfinv_ends():
    for dtype in DTYPES:
        ends = run("erfinv", np.array([1, -1, 0, 1.5, -2, np.nan], dtype))
        np.testing.assert_array_equal(ends, [np.inf, -np.inf, 0, np.nan, np.nan, np.nan])


@pytest.mark.parametrize(
    "name, attributes", [("gelu", ("none",)), ("gelu", ("tanh",)), ("silu", ())], ids=str
)
@given(data=st.data())
def test_pointwise_gradients(name, attributes, data):
    shape = data.draw(SHAPES)
    g, x = (data.draw(arrays(shape, scale=2)) for _ in range(2))
    dx = run(f"{name}_backward", g, x, *attributes)
    directional(lambda x: run(name, x, *attributes), [x], [dx], g, 1)
    g32, x32 = g.astype(np.float32), x.astype(np.float32)
    want = run(f"{name}_backward", g32.astype(np.float64), x32.astype(np.float64), *attributes)
    floor = 8 * np.finfo(np.float32).eps * np.abs(g) * (1 + np.abs(x)) + 1e-37
    close(run(f"{name}_backward", g32, x32, *attributes), want, floor, np.float32)


# name, function, and its slope at a point by the result there
BY_RESULT = [
    ("relu", lambda x: np.maximum(x, 0), lambda y: np.where(y <= 0, 0.0, 1.0)),
    ("sigmoid", sigma, lambda y: y * (1 - y)),
    ("tanh", np.tanh, lambda y: 1 - y * y),
]


@pytest.mark.parametrize("name, function, slope", BY_RESULT)
@given(data=st.data())
def test_gradients_from_results(name, function, slope, data):
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(SHAPES)
    g, x = (data.draw(arrays(shape, dtype, scale=3)) for _ in range(2))
    out = laid(function(x).astype(dtype), data.draw(LAYOUTS))
    floor = 4 * np.finfo(dtype).eps * np.abs(wide(g)) * (name != "relu")
    close(run(f"{name}_backward", g, out), wide(g) * slope(wide(out)), floor.astype(float), dtype)


def test_relu_gradient_is_a_choice():
    for dtype in DTYPES:
        g = np.array([np.inf, np.nan, -np.inf, 2, 3], dtype)
        got = run("relu_backward", g, np.array([0, -1, 1, np.nan, -0.0], dtype))
        np.testing.assert_array_equal(got, [0, 0, -np.inf, 2, 0])


def test_gelu_gradient_limits():
    x = np.array([np.inf, 1e30, -1e30, -np.inf])
    for approximate in ("none", "tanh"):
        for dtype in DTYPES:
            got = run("gelu_backward", np.ones(4, dtype), x.astype(dtype), approximate)
            np.testing.assert_array_equal(got, [1, 1, 0, 0])
