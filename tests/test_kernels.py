"""All kernels against plain float64 formulas, differences and published numbers.

The specification runs with two sizes of pieces, the native table on every instruction set that the
machine has. Every call goes through `run`, which also checks the contract that all entries share:
inputs are not written, results are fresh C-contiguous arrays (attention's may have the heads behind
the rows in memory). `arrays` draws layouts with values.
"""

import importlib
import math
import tracemalloc
from unittest import mock

import numpy as np
import pytest
from conftest import TABLES, on_table
from hypothesis import given, strategies as st

from minidl.backends import local, reference

DTYPES = (np.float32, np.float64)
EXTREME = [
    0.0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-30,
    -1e-30,
    88.8,
    -88.8,
    -104.0,
    1e30,
    -1e30,
    5e-8,
]


@pytest.fixture(autouse=True, params=["small pieces", *TABLES])
def _kernels(request):
    """Pieces of 20 elements make small cases as many-pieced as large arrays are."""
    if request.param == "small pieces":
        blocks = importlib.import_module("minidl.backends.reference.blocks")
        with mock.patch.object(blocks, "PIECE", 20), on_table("reference"):
            yield
    else:
        with on_table(request.param):
            yield


def run(name, *args, **kwargs):
    """Call an entry on read-only inputs with float warnings off; check what all entries promise."""
    given_arrays = [a for a in args if isinstance(a, np.ndarray)]
    before = [a.copy() for a in given_arrays]
    with np.errstate(all="ignore"):
        results = getattr(local.state.cpu, name)(*args, **kwargs)
    for array, copy in zip(given_arrays, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    fresh = [r for r in (results if isinstance(results, tuple) else (results,)) if r is not None]
    for i, r in enumerate(fresh):
        assert type(r) is np.ndarray
        turned = name.startswith("attention") and r.ndim > 2 and np.swapaxes(r, -3, -2)
        assert r.flags.c_contiguous or turned.flags.c_contiguous
        assert r.flags.writeable
        assert not any(np.may_share_memory(r, a) for a in (*given_arrays, *fresh[:i]))
    return results


def laid(array, layout):
    """The same values in another layout, read-only."""
    array = np.asarray(array)
    if not array.ndim:
        view = array.copy()
    elif layout == "strided":
        wide = np.zeros([2 * n + 1 for n in array.shape], array.dtype)
        view = wide[tuple(slice(1, None, 2) for _ in array.shape)]
        view[...] = array
    elif layout == "reversed":
        view = np.flip(np.flip(array).copy())
    elif layout == "fortran":
        view = np.asfortranarray(array)
    else:
        view = array.copy()
    view = np.asarray(view)
    view.flags.writeable = False
    return view


LAYOUTS = st.sampled_from(["plain", "strided", "reversed", "fortran"])
SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.sampled_from([0, 1, 2, 3, 5, 8, 17])


@st.composite
def arrays(draw, shape, dtype=np.float64, scale=1.0, extreme=False):
    """An array of that shape: normal values in any layout, some of them EXTREME if asked."""
    rng = np.random.default_rng(draw(SEEDS))
    x = np.asarray(rng.standard_normal(shape) * scale, dtype)
    if extreme and draw(st.booleans()):
        places = rng.random(shape) < 0.2
        x[places] = np.asarray(rng.choice(EXTREME, shape))[places]
    if x.ndim and draw(st.integers(0, 5)) == 0:
        x = np.broadcast_to(x[:1], shape)
        x.flags.writeable = False
        return x
    return laid(x, draw(LAYOUTS))


SHAPES = st.lists(SIZES, min_size=0, max_size=3).map(tuple)


def close(got, want, floor, dtype):
    """`got` has the dtype and want's shape, and is as near as the floor (an array or number)."""
    want = np.asarray(want)
    assert got.dtype == dtype
    assert got.shape == want.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    wide, floor = want.astype(np.float64), np.broadcast_to(floor, want.shape)
    with np.errstate(all="ignore"):
        rounded = wide.astype(dtype)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~finite], rounded[~finite])
        error = np.abs(got.astype(np.float64) - wide)[finite]
    assert np.all(error <= floor[finite]), (error.max(), floor[finite][error.argmax()])


def directional(function, arguments, gradients, g, seed):
    """<g, f(x + h d) - f(x - h d)> / 2h equals <gradient, d> for a random d per argument."""
    rng, h = np.random.default_rng(seed), 1e-5
    for i, gradient in enumerate(gradients):
        if gradient is None or not gradient.size:
            continue
        d = rng.standard_normal(gradient.shape)
        ends = []
        for sign in (1, -1):
            moved = list(arguments)
            moved[i] = arguments[i] + sign * h * d
            with np.errstate(all="ignore"):
                ends.append(function(*moved))
        numeric = np.sum(g * (ends[0] - ends[1])) / (2 * h)
        exact = np.sum(gradient * d)
        assert abs(numeric - exact) <= 1e-6 * (1 + np.sum(np.abs(gradient * d))), (
            i,
            numeric,
            exact,
        )


def wide(x):
    return np.asarray(x, np.longdouble)


def erf_exact(x, complement=False):
    """erf or erfc in long double: DLMF 7.6.2, a series of positive terms, and 7.9.1 from 1 on."""
    x = wide(x)
    a, root_pi = np.minimum(np.abs(x), 200), np.sqrt(np.longdouble("3.14159265358979323846264338"))
    term = series = near = np.minimum(a, 1)
    for n in range(1, 60):
        term = term * 2 * near * near / (2 * n + 1)
        series = series + term
    low = 2 / root_pi * np.exp(-near * near) * series
    fraction = far = np.maximum(a, 1)
    for n in range(400, 0, -1):
        fraction = far + wide(n) / 2 / fraction
    high = np.exp(-far * far) / (root_pi * fraction)
    if complement:
        return np.where(a < 1, 1 - np.sign(x) * low, np.where(x < 0, 2 - high, high))
    return np.sign(x) * np.where(a < 1, low, 1 - high)


def sigma(x):
    return 1 / (1 + np.exp(-wide(x)))


def log_sigma(x):
    return np.minimum(wide(x), 0) - np.log1p(np.exp(-np.abs(wide(x))))


def gelu_exact(x):
    return wide(x) * 0.5 * erf_exact(-wide(x) / np.sqrt(wide(2)), True)


def gelu_tanh(x):
    x = wide(x)
    return x * sigma(2 * np.sqrt(2 / np.pi) * x * (1 + 0.044715 * x * x))


@given(st.data())
def test_matmul(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    n, k, m = (data.draw(SIZES) for _ in range(3))
    batch = data.draw(st.lists(st.sampled_from([1, 2, 3]), max_size=2))
    ones = [data.draw(st.sampled_from([1, b])) for b in batch]
    left = data.draw(st.sampled_from([(k,), (n, k), (*batch, n, k)]))
    right = data.draw(st.sampled_from([(k,), (k, m), (*ones, k, m)]))
    x, y = (data.draw(arrays(s, dtype)) for s in (left, right))
    floor = (k + 1) * np.finfo(dtype).eps * np.matmul(np.abs(wide(x)), np.abs(wide(y)))
    close(run("matmul", x, y), np.matmul(wide(x), wide(y)), floor.astype(float), dtype)


RESULT_OF = {
    None: lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": gelu_exact,
    "gelu_tanh": gelu_tanh,
    "silu": lambda x: x * sigma(x),
    "tanh": np.tanh,
    "sigmoid": sigma,
}


def gelu_tanh_slope(x):
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    rise = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)
    return (1 + np.tanh(u)) / 2 + x / 2 * (1 - np.tanh(u) ** 2) * rise


SLOPE_OF = {  # of the input for gelu and silu, else of the result
    "relu": lambda y: (y > 0).astype(float),
    "gelu": lambda x: (
        gelu_exact(x) / np.where(x == 0, 1, x) * (x != 0)
        + 0.5 * (x == 0)
        + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    ),
    "gelu_tanh": gelu_tanh_slope,
    "silu": lambda x: sigma(x) * (1 + x * (1 - sigma(x))),
    "tanh": lambda y: 1 - y**2,
    "sigmoid": lambda y: y * (1 - y),
}


@given(st.data())
def test_linear(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    lead, inner, outer = data.draw(SHAPES), data.draw(SIZES), data.draw(SIZES)
    x = data.draw(arrays((*lead, inner), dtype))
    weight = data.draw(arrays((outer, inner), dtype))
    bias = data.draw(st.one_of(st.none(), arrays((outer,), dtype)))
    activation = data.draw(st.sampled_from(list(RESULT_OF)))
    keep = data.draw(st.booleans())
    out, pre = run("linear", x, weight, bias, activation, keep)
    shift = np.zeros(()) if bias is None else wide(bias)
    want = wide(x) @ wide(weight).T + shift
    size = np.abs(wide(x)) @ np.abs(wide(weight)).T + np.abs(shift)
    floor = ((inner + 6) * np.finfo(dtype).eps * (size + 1)).astype(float)
    close(out, RESULT_OF[activation](want), floor, dtype)
    assert (pre is not None) == (keep and activation in ("gelu", "gelu_tanh", "silu"))
    if pre is not None:
        close(pre, want, floor, dtype)

    g = data.draw(arrays((*lead, outer), dtype))
    needs = tuple(data.draw(st.booleans()) for _ in range(3))
    kept = None if activation is None else data.draw(arrays((*lead, outer), dtype))
    if data.draw(st.booleans()):  # what is in no gradient may be missing
        x, weight = x if needs[1] else None, weight if needs[0] else None
    slope = 1.0 if activation is None else SLOPE_OF[activation](wide(kept))
    rows = math.prod(lead)
    g2 = (wide(g) * slope).reshape(rows, outer)
    wanted = (
        (g2 @ wide(weight)).reshape(*lead, inner) if needs[0] else None,
        g2.T @ wide(x).reshape(rows, inner) if needs[1] else None,
        g2.sum(0) if needs[2] else None,
    )
    found = run("linear_backward", g, x, weight, needs, activation, kept)
    for got, want in zip(found, wanted, strict=True):
        assert (got is not None) == (want is not None)
        if want is not None:
            close(got, want, (rows + outer + 1) * 50 * np.finfo(dtype).eps, dtype)


def attention_by_hand(q, k, v, mask, causal, scale):
    """The textbook formula with the whole (T, S) matrix, one row at a time softmax."""
    group = q.shape[-3] // k.shape[-3]
    k, v = (np.repeat(a, group, axis=-3) for a in (k, v))
    s = scale * (q @ np.swapaxes(k, -1, -2))
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    if causal:
        s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, -np.inf)
    top = np.max(s, axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(top == -np.inf, 0, top))
    total = e.sum(-1, keepdims=True)
    out = (e / np.where(total == 0, 1, total)) @ v
    return out, np.log(total[..., 0]) + top[..., 0]


@given(st.data())
def test_attention(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    batch = data.draw(st.sampled_from([(), (1,), (2,), (2, 3)]))
    kv_heads, group = data.draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2)]))
    heads = kv_heads * group
    t, s, d, dv = (data.draw(SIZES) for _ in range(4))
    q = data.draw(arrays((*batch, heads, t, d), dtype))
    k = data.draw(arrays((*batch, kv_heads, s, d), dtype))
    v = data.draw(arrays((*batch, kv_heads, s, dv), dtype))
    g = data.draw(arrays((*batch, heads, t, dv), dtype))
    mask = None
    kind = data.draw(st.sampled_from(["none", "bool", "float"]))
    if kind != "none":
        full = [*batch, heads, t, s]
        shape = tuple(data.draw(st.sampled_from([1, n])) for n in full)
        shape = shape[data.draw(st.integers(0, len(full))) :]
        mask = data.draw(arrays(shape, dtype))
        if kind == "bool":
            mask = laid(mask > -0.5, data.draw(LAYOUTS))
        elif data.draw(st.booleans()):
            mask = np.where(mask > 1, -np.inf, mask).astype(dtype)
        if data.draw(st.booleans()):
            mask = np.broadcast_to(mask, full)
    causal = data.draw(st.booleans())
    module = importlib.import_module("minidl.backends.reference.attention")
    # a block of a few scores makes many blocks out of small cases
    with mock.patch.object(module, "BLOCK", data.draw(st.sampled_from([1, 7, 40, 65536]))):
        out, lse = run("attention", q, k, v, mask, causal, 0.3)
        grads = run("attention_backward", g, q, k, v, mask, causal, 0.3, out, lse)
    with np.errstate(all="ignore"):
        want, lse_want = attention_by_hand(*map(wide, (q, k, v)), mask, causal, 0.3)
    eps = float(np.finfo(dtype).eps)
    close(out, want, (d + s + 4) * 8 * eps, dtype)
    close(lse, lse_want, (d + s + 4) * 8 * eps, dtype)
    assert [a.shape for a in grads] == [q.shape, k.shape, v.shape]
    if dtype == np.float64:
        by_hand = lambda *a: attention_by_hand(*a, mask, causal, 0.3)[0]  # noqa: E731
        directional(by_hand, [q, k, v], grads, g, 2)
    else:
        inputs = [a.astype(np.float64) for a in (g, q, k, v)]
        out, lse = run("attention", *inputs[1:], mask, causal, 0.3)
        wanted = run("attention_backward", *inputs, mask, causal, 0.3, out, lse)
        for got, want in zip(grads, wanted, strict=True):
            close(got, want, (s + t * group + d + 4) * 100 * eps, dtype)


def test_attention_row_without_keys():
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((1, 2, 4, 3)) for _ in range(4))
    mask = np.ones((4, 4), bool)
    mask[2] = False
    out, lse = run("attention", q, k, v, mask, False, 1.0)
    assert np.all(out[:, :, 2] == 0)
    assert np.all(lse[:, :, 2] == -np.inf)
    dq, dk, dv = run("attention_backward", g, q, k, v, mask, False, 1.0, out, lse)
    assert np.all(dq[:, :, 2] == 0)
    g[:, :, 2] = 1e6  # its gradient reaches no key
    again = run("attention_backward", g, q, k, v, mask, False, 1.0, out, lse)
    np.testing.assert_array_equal(dk, again[1])
    np.testing.assert_array_equal(dv, again[2])


def test_attention_ignores_what_is_masked():
    rng = np.random.default_rng(1)
    q, k, v = (rng.standard_normal((1, 1, 6, 4)) for _ in range(3))
    want = run("attention", q, k, v, None, True, 0.5)[0]
    k[..., 4:, :] = np.inf
    np.testing.assert_array_equal(run("attention", q, k, v, None, True, 0.5)[0][..., :4, :],
                                  want[..., :4, :])  # fmt: skip


def test_attention_keeps_no_square():
    t, forward, backward = 1024, reference.attention, reference.attention_backward
    q = np.random.default_rng(0).standard_normal((2, 2, t, 8)).astype(np.float32)
    mask = np.broadcast_to(np.ones(t, bool), (2, 2, t, t))
    for causal in (False, True):
        tracemalloc.start()
        try:
            out, lse = forward(q, q, q, mask, causal, 0.3)
            backward(out, q, q, q, mask, causal, 0.3, out, lse)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < t * t * q.itemsize  # a quarter of the scores of all heads


@st.composite
def rows_with_axis(draw, scale=3.0, extreme=True):
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(SIZES, min_size=1, max_size=3).map(tuple))
    axis = draw(st.integers(-len(shape), len(shape) - 1))
    return draw(arrays(shape, dtype, scale, extreme)), axis, dtype


@given(rows_with_axis(), SEEDS)
def test_softmax(case, seed):
    x, axis, dtype = case
    if not x.size:
        assert run("softmax", x, axis).shape == run("log_softmax", x, axis).shape == x.shape
        return
    with np.errstate(all="ignore"):
        shifted = wide(x) - wide(x).max(axis, keepdims=True)
        total = np.exp(shifted).sum(axis, keepdims=True)
        soft, log = np.exp(shifted) / total, shifted - np.log(total)
        eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
        distance = np.nan_to_num(np.abs(shifted).astype(float), posinf=0)
        room = (distance + x.shape[axis] + 4) * eps
        close(run("softmax", x, axis), soft, np.nan_to_num(room * soft.astype(float)) + tiny, dtype)
        close(run("log_softmax", x, axis), log, 2 * room, dtype)


@given(rows_with_axis(extreme=False), SEEDS)
def test_softmax_gradients(case, seed):
    x, axis, _ = case
    x = x.astype(np.float64)
    g = np.random.default_rng(seed).standard_normal(x.shape)
    for name in ("softmax", "log_softmax"):
        dx = run(f"{name}_backward", g, run(name, x, axis), axis)
        assert dx.shape == x.shape
        directional(lambda x, name=name: run(name, x, axis), [x], [dx], g, seed)


@given(st.data())
def test_logsumexp(data):
    x, _, dtype = data.draw(rows_with_axis())
    axes = data.draw(st.sets(st.integers(0, x.ndim - 1)).map(sorted))
    negative = tuple(a - x.ndim if data.draw(st.booleans()) else a for a in axes)
    keepdim = data.draw(st.booleans())
    got = run("logsumexp", x, negative, keepdim)
    with np.errstate(all="ignore"):
        values = wide(x)
        top = np.max(values, axis=tuple(axes), keepdims=True, initial=-np.inf)
        top = np.where(np.isinf(top), 0, top)
        total = np.exp(values - top).sum(axis=tuple(axes), keepdims=True)
        want = np.log(total) + top
        want = want if keepdim else want.squeeze(tuple(axes))
        size = np.nan_to_num(np.abs(want).astype(float), posinf=0)
    close(got, want, (size + x.size + 4) * 4 * np.finfo(dtype).eps, dtype)


def test_infinite_rows():
    low, high = np.full((2, 3), -np.inf), np.array([[1.0, np.inf, 2.0]])
    assert np.isnan(run("softmax", low, 1)).all()
    assert np.isnan(run("log_softmax", low, 1)).all()
    np.testing.assert_array_equal(run("logsumexp", low, (1,), False), [-np.inf, -np.inf])
    np.testing.assert_array_equal(run("logsumexp", high, (0, 1), False), np.inf)
    np.testing.assert_array_equal(run("softmax", np.array(3.0), -1), 1.0)
    np.testing.assert_array_equal(run("logsumexp", np.array(3.0), (), False), 3.0)


@given(st.data())
def test_norms(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(st.lists(st.sampled_from([1, 2, 5, 17]), min_size=1, max_size=3).map(tuple))
    shape = (0, *shape[1:]) if len(shape) > 1 and data.draw(st.integers(0, 9)) == 0 else shape
    ndim = data.draw(st.integers(1, len(shape) - 1)) if len(shape) > 1 else 1
    normed, lead = shape[len(shape) - ndim :], shape[: len(shape) - ndim]
    x = data.draw(arrays(shape, dtype)) + np.asarray(data.draw(st.sampled_from([0, 3])), dtype)
    g = data.draw(arrays(shape, dtype))
    weight, bias = (data.draw(st.one_of(st.none(), arrays(normed, dtype))) for _ in range(2))
    eps = 1e-2  # large enough that differences do not cross a singularity
    axes = tuple(range(len(lead), len(shape)))

    def formula(x, weight, bias, center):
        x = x - x.mean(axes, keepdims=True) if center else x
        y = x / np.sqrt((x * x).mean(axes, keepdims=True) + eps)
        return y * (1 if weight is None else weight) + (0 if bias is None else bias)

    floor = 200 * math.prod(normed) * np.finfo(dtype).eps
    x8 = wide(x)
    out, mean, rstd = run("layer_norm", x, ndim, weight, bias, eps)
    close(out, formula(x8, weight, bias, True), floor, dtype)
    close(mean, x8.mean(axes), floor, dtype)
    close(rstd, 1 / np.sqrt(x8.var(axes) + eps), floor, dtype)
    y = data.draw(arrays(shape, dtype))
    of_sum, total, *statistics = run("add_layer_norm", x, y, ndim, weight, bias, eps)
    np.testing.assert_array_equal(total, x + y)
    same = run("layer_norm", total, ndim, weight, bias, eps)
    for a, b in zip((of_sum, *statistics), same, strict=True):
        np.testing.assert_array_equal(a, b)
    rms, rate = run("rms_norm", x, ndim, weight, eps)
    close(rms, formula(x8, weight, None, False), floor, dtype)
    close(rate, 1 / np.sqrt((x8 * x8).mean(axes) + eps), floor, dtype)

    dx, dweight, dbias = run("layer_norm_backward", g, x, ndim, weight, mean, rstd)
    rms_grads = run("rms_norm_backward", g, x, ndim, weight, rate)
    assert (dweight is None) == (rms_grads[1] is None) == (weight is None)
    assert dbias.shape == normed
    if dtype == np.float64:
        layer = lambda x, w, b: formula(x, w, b, True)  # noqa: E731
        zero = np.zeros(normed) if bias is None else bias
        directional(layer, [x, weight, zero], [dx, dweight, dbias], g, 3)
        root = lambda x, w: formula(x, w, None, False)  # noqa: E731
        directional(root, [x, weight], rms_grads, g, 4)
    else:
        up = lambda a: None if a is None else a.astype(np.float64)  # noqa: E731
        _, mean, rstd = run("layer_norm", up(x), ndim, up(weight), up(bias), eps)
        wanted = run("layer_norm_backward", up(g), up(x), ndim, up(weight), mean, rstd)
        for got, want in zip((dx, dweight, dbias), wanted, strict=True):
            if want is not None:
                close(got, want, 10 * floor * (1 + len(shape) * 17), dtype)


def cross_entropy_by_hand(x, target, weight, ignore_index, smoothing):
    classes = x.shape[1]
    w = np.ones(classes) if weight is None else weight
    losses = []
    for row, t in zip(x, target, strict=True):
        if t == ignore_index:
            losses.append(0.0 * row[0])
            continue
        nll = np.log(np.exp(row - row.max()).sum()) + row.max() - row
        loss = (1 - smoothing) * w[t] * nll[t]
        losses.append(loss + (smoothing / classes * (w * nll).sum() if smoothing else 0))
    return np.array(losses).reshape(len(target))


@given(st.data())
def test_cross_entropy(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    n, c = data.draw(SIZES), data.draw(st.sampled_from([1, 2, 5, 17]))
    x = data.draw(arrays((n, c), dtype, scale=data.draw(st.sampled_from([1, 200]))))
    rng = np.random.default_rng(data.draw(SEEDS))
    kind = data.draw(st.sampled_from([np.int64, np.int32, np.uint8]))
    target = rng.integers(0, c, n).astype(kind)
    ignore = data.draw(st.sampled_from([-100, 0, 1]))
    weight = data.draw(st.sampled_from([None, rng.random(c).astype(dtype)]))
    smoothing = data.draw(st.sampled_from([0.0, 0.1, 1.0]))
    losses, lse, total = run("cross_entropy", x, target, weight, ignore, smoothing)
    used = target[target != ignore]
    size = len(used) if weight is None else wide(weight)[used].sum()
    close(total, np.array(size), 4 * np.finfo(dtype).eps * size, dtype)
    hand = cross_entropy_by_hand(wide(x), target, weight, ignore, smoothing)
    room = 8 * (c + 4) * np.finfo(dtype).eps * (np.abs(x).max(initial=1) + 4)
    close(losses, hand, room, dtype)
    close(lse, np.log(np.exp(wide(x)).sum(1)), room, dtype)
    g = data.draw(arrays(data.draw(st.sampled_from([(n,), ()])), dtype))
    dx = run("cross_entropy_backward", g, x, target, weight, ignore, smoothing, lse)
    g = np.broadcast_to(g, n)
    assert np.all(dx[target == ignore] == 0)
    if dtype == np.float64:
        by_hand = lambda x: cross_entropy_by_hand(x, target, weight, ignore, smoothing)  # noqa: E731
        directional(by_hand, [x], [dx], g, 5)
    else:
        inputs = [a.astype(np.float64) for a in (g, x)]
        w = None if weight is None else weight.astype(np.float64)
        lse = run("cross_entropy", inputs[1], target, w, ignore, smoothing)[1]
        want = run("cross_entropy_backward", *inputs, target, w, ignore, smoothing, lse)
        close(dx, want, room * 4, dtype)


def test_cross_entropy_edges():
    x = np.array([[np.nan, 1.0], [1e30, -1e30], [0.0, -np.inf], [-np.inf, -np.inf]])
    target = np.array([7, 1, 0, 0])
    losses, lse, total = run("cross_entropy", x, target, None, 7, 0.0)
    assert total == 3
    np.testing.assert_array_equal(losses, [0, 2e30, 0, np.nan])
    dx = run("cross_entropy_backward", np.ones(4), x, target, None, 7, 0.0, lse)
    np.testing.assert_array_equal(dx[:3], [[0, 0], [1, -1], [0, 0]])
    for dtype in DTYPES:
        x = np.zeros((0, 3), dtype)
        losses, lse, total = run("cross_entropy", x, np.zeros(0, int), None, -100, 0.1)
        assert losses.shape == lse.shape == (0,) and total.shape == () and total == 0
        for wrong in (-1, 3):
            with pytest.raises(ValueError, match="targets must lie in"):
                run("cross_entropy", np.zeros((2, 3), dtype), np.array([0, wrong]), None, 7, 0.0)


@given(st.data())
def test_binary_cross_entropy(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    n, m = data.draw(SIZES), data.draw(SIZES)
    x = data.draw(arrays((n, m), dtype, scale=data.draw(st.sampled_from([1, 60]))))
    g = data.draw(arrays((n, m), dtype))
    rng = np.random.default_rng(data.draw(SEEDS))
    target = rng.random((n, m)).astype(dtype)
    target = target.round() if data.draw(st.booleans()) else target
    weight = data.draw(st.sampled_from([None, rng.random((n, 1)).astype(dtype)]))
    positive = data.draw(st.sampled_from([None, (3 * rng.random(m)).astype(dtype)]))
    w, p = (wide(1 if a is None else a) for a in (weight, positive))
    t, z = wide(target), wide(x)
    want = -w * (p * t * log_sigma(z) + (1 - t) * log_sigma(-z))
    info = np.finfo(dtype)
    got = run("binary_cross_entropy_with_logits", x, target, weight, positive)
    close(got, want, 8 * info.eps * want.astype(float) + 4 * float(info.tiny), dtype)
    parts = (1 - t) * sigma(z), -p * t * sigma(-z)
    dx = run("binary_cross_entropy_with_logits_backward", g, x, target, weight, positive)
    room = 8 * info.eps * np.abs(wide(g) * w) * (parts[0] - parts[1]) + 4 * float(info.tiny)
    close(dx, wide(g) * w * (parts[0] + parts[1]), room.astype(float), dtype)


@given(st.data())
def test_embedding_backward(data):
    dtype = data.draw(st.sampled_from(DTYPES))
    shape, width, rows = data.draw(SHAPES), data.draw(SIZES), data.draw(st.integers(1, 9))
    g = data.draw(arrays((*shape, width), dtype, extreme=True))
    index = laid(
        np.random.default_rng(data.draw(SEEDS)).integers(0, rows, shape), data.draw(LAYOUTS)
    )
    padding = data.draw(st.one_of(st.none(), st.integers(0, rows - 1)))
    want, size = np.zeros((2, rows, width))
    with np.errstate(all="ignore"):
        rows_of_g = g.reshape(index.size, width)
        np.add.at(want, index.reshape(-1), rows_of_g)
        np.add.at(size, index.reshape(-1), np.abs(rows_of_g))
        if padding is not None:
            want[padding] = 0
        room = np.nan_to_num(size * index.size * np.finfo(dtype).eps)
    close(run("embedding_backward", g, index, rows, padding), want, room, dtype)


@given(st.data())
def test_scatter_and_index_add(data):
    dtype = data.draw(st.sampled_from([*DTYPES, np.int64]))
    shape = data.draw(st.lists(st.sampled_from([1, 2, 5]), min_size=1, max_size=3).map(tuple))
    dim = data.draw(st.integers(0, len(shape) - 1))
    given_dim = dim - len(shape) if data.draw(st.booleans()) else dim
    x = data.draw(arrays(shape, dtype, scale=9))
    rng = np.random.default_rng(data.draw(SEEDS))
    sizes = [int(rng.integers(0, n + 1)) for n in shape]
    sizes[dim] = int(rng.integers(0, 9))
    index = laid(rng.integers(0, shape[dim], sizes), data.draw(LAYOUTS))
    src = data.draw(arrays([n + int(rng.integers(0, 2)) for n in sizes], dtype, scale=9))
    want = x.astype(np.longdouble)
    for place in np.ndindex(*sizes):
        to = (*place[:dim], index[place], *place[dim + 1 :])
        want[to] += src[place]
    room = 0 if dtype == np.int64 else 2000 * np.finfo(dtype).eps
    close(run("scatter_add", x, given_dim, index, src), want, room, dtype)

    count = int(rng.integers(0, 9))
    index = laid(rng.integers(0, shape[dim], count), data.draw(LAYOUTS))
    src = data.draw(arrays([count if a == dim else n for a, n in enumerate(shape)], dtype, scale=9))
    want = np.moveaxis(x.astype(np.longdouble), dim, 0)
    for i, part in zip(index, np.moveaxis(src, dim, 0), strict=True):
        want[i] += 3 * part
    got = run("index_add", x, given_dim, index, src, 3)
    close(got, np.moveaxis(want, 0, dim), room, dtype)


def test_scatter_into_a_scalar():
    one, two, zero = np.array(1.0), np.array(2.0), np.array(0)
    np.testing.assert_array_equal(run("scatter_add", one, 0, zero, two), 3.0)
    np.testing.assert_array_equal(run("index_add", one, 0, zero, two, 2), 5.0)


@given(st.data())
def test_index_put(data):
    x = data.draw(arrays((4, 5, 3), data.draw(st.sampled_from(DTYPES)), scale=2))
    rng = np.random.default_rng(data.draw(SEEDS))
    ints = lambda n, *s: rng.integers(-n, n, s)  # noqa: E731
    indices = data.draw(
        st.sampled_from([
            (ints(4, 7),), (ints(4, 2, 3),), (ints(4),), (ints(4, 6), ints(5, 6)),
            (slice(None), ints(5, 6)), (ints(4, 2, 1), slice(1, 3), ints(3, 6)), (2, slice(0, 3)),
            (rng.random((4, 5)) < 0.5,), (rng.random(4) < 0.5, 1), (Ellipsis, ints(3, 4)),
            (slice(None, None, -1), None), (ints(4, 0),), (), (1, ints(5, 6)),
        ])
    )  # fmt: skip
    selected = x[indices]
    shape = selected.shape[data.draw(st.integers(0, selected.ndim)) :]
    shape = tuple(data.draw(st.sampled_from([1, n])) if n else n for n in shape)
    value = data.draw(arrays(shape, x.dtype))
    want = x.astype(np.float64)
    np.add.at(want, indices, value)
    close(run("index_put", x, indices, value, True), want, 300 * np.finfo(x.dtype).eps, x.dtype)
    want = x.copy()
    want[indices] = value
    np.testing.assert_array_equal(run("index_put", x, indices, value, False), want)
