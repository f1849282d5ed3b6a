"""The kernels of random numbers and optimiser steps: published vectors, scalar formulas."""

import importlib
import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, strategies as st

from minidl.backends import local, reference

SEED64 = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32, 2**64 - 1]))
WORD = 2**32 - 1


class _Kernels:
    """The entries of the active table."""

    def __getattr__(self, name):
        return getattr(local.state.cpu, name)


k = _Kernels()


@pytest.fixture(autouse=True)
def _float_warnings_off(each_table):
    """As the operators call the kernels."""
    with np.errstate(all="ignore"):
        yield


def philox_by_hand(counter, key):
    """Philox4x32-10 of one counter, in Python integers, after the paper."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        first, second = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (second >> 32) ^ c1 ^ k0,
            second & WORD,
            (first >> 32) ^ c3 ^ k1,
            first & WORD,
        )
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return [c0, c1, c2, c3]


# Random123, tests/kat_vectors, rows "philox4x32 10": counter, key, expected
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


@pytest.mark.parametrize("counter, key, expected", KNOWN)
def test_philox_known_answers(counter, key, expected):
    counter, key, expected = ([int(w, 16) for w in t.split()] for t in (counter, key, expected))
    assert philox_by_hand(counter, key) == expected
    rounds = importlib.import_module("minidl.backends.reference.random")._philox
    even, odd, spare = np.zeros((3, 2, 1), np.uint64)
    even[:, 0], odd[:, 0] = counter[0::2], counter[1::2]
    rounds(even, odd, tuple(key), spare)
    assert [even[0, 0], odd[0, 0], even[1, 0], odd[1, 0]] == expected


def test_philox_first_known_answer_is_the_stream_of_seed_0():
    want = [int(w, 16) for w in KNOWN[0][2].split()]
    np.testing.assert_array_equal(k.philox_bits(4, 0, 0), want)


@given(SEED64, SEED64, st.integers(0, 40))
def test_philox_stream(seed, offset, n):
    got = k.philox_bits(n, seed, offset)
    assert got.dtype == np.uint32
    assert got.flags.owndata or got.base is not None
    key, want = (seed & WORD, seed >> 32), []
    for i in range(reference.philox_blocks(n)):
        low = (offset + i) % 2**64
        want += philox_by_hand([low & WORD, low >> 32, 0, 0], key)
    np.testing.assert_array_equal(got, want[:n])


@given(SEED64, SEED64, st.integers(0, 30_000), st.integers(0, 7000))
def test_philox_is_one_stream(seed, offset, n, skip):
    """A draw is the tail of a longer draw, whatever pieces either was computed in."""
    long = k.philox_bits(n + 4 * skip, seed, offset)
    np.testing.assert_array_equal(k.philox_bits(n, seed, offset + skip), long[4 * skip :])


SHAPES = st.lists(st.integers(0, 9), max_size=3).map(tuple)


@given(SHAPES, SEED64, SEED64)
def test_uniform(shape, seed, offset):
    n = math.prod(shape)
    words = [int(w) for w in k.philox_bits(2 * n, seed, offset)]
    single = k.uniform(shape, np.float32, seed, offset)
    double = k.uniform(shape, np.float64, seed, offset)
    assert (single.dtype, single.shape, double.dtype, double.shape) == ("f4", shape, "f8", shape)
    assert type(single) is type(double) is np.ndarray
    np.testing.assert_array_equal(single.reshape(-1), [(w >> 8) / 2**24 for w in words[:n]])
    pairs = zip(words[0::2], words[1::2], strict=True)
    want = [((high << 32 | low) >> 11) / 2**53 for low, high in pairs]
    np.testing.assert_array_equal(double.reshape(-1), want)


@given(SHAPES, SEED64, SEED64)
def test_normal(shape, seed, offset):
    n = math.prod(shape)
    for dtype, ulp in ((np.float32, 1), (np.float64, 4)):
        got = k.normal(shape, dtype, seed, offset)
        assert (got.dtype, got.shape) == (dtype, shape)
        u = k.uniform((n + n % 2,), dtype, seed, offset).astype(float)
        want = []
        for first, second in zip(u[0::2], u[1::2], strict=True):
            radius, angle = math.sqrt(-2 * math.log(1 - first)), 2 * math.pi * second
            want += [radius * math.cos(angle), radius * math.sin(angle)]
        want = np.array(want[:n]).reshape(shape)
        room = ulp * np.spacing(np.abs(want).astype(dtype)).astype(float)
        assert np.all(np.abs(got - want) <= room)


def test_normal_pieces_and_moments():
    x = k.normal((200_001,), np.float32, 5, 0)
    np.testing.assert_array_equal(x[100_000:], k.normal((100_001,), np.float32, 5, 25_000))
    assert abs(x.mean()) < 5 / math.sqrt(x.size)
    assert abs((x.astype(float) ** 2).mean() - 1) < 5 * math.sqrt(2 / x.size)
    assert abs((x.astype(float) ** 4).mean() - 3) < 5 * math.sqrt(96 / x.size)
    assert np.isfinite(x).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("p", [0.1, 0.5, 1 / 3, 1.0, 1e-11, 1])
@given(shape=st.sampled_from([(), (0,), (5,), (3, 33), (7, 70, 140)]), seed=SEED64)
def test_dropout(dtype, p, shape, seed):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape[::-1]).astype(dtype).T
    if x.size > 9:
        x[0, 0], x[1, 1], x[2, 2] = np.inf, np.nan, -0.0
    keep = k.bernoulli(shape, 1 - p, seed, 9)
    want = x * (keep * dtype(1 / (1 - p) if p < 1 else 0))
    got = k.dropout(x, p, seed, 9)
    assert got.dtype == dtype and got.flags.c_contiguous
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got), np.signbit(want))


@given(SHAPES, SEED64, st.floats(0, 1))
def test_bernoulli(shape, seed, p):
    words = k.philox_bits(math.prod(shape), seed, 3).astype(float).reshape(shape)
    want = words < np.rint(p * 2**32)
    for q in (p, np.array(p), np.full(shape, p), np.broadcast_to(np.float64(p), shape)):
        got = k.bernoulli(shape, q, seed, 3)
        assert got.dtype == bool
        assert got.shape == shape
        np.testing.assert_array_equal(got, want)
    assert not k.bernoulli((50,), 0.0, seed, 0).any()
    assert k.bernoulli((50,), 1.0, seed, 0).all()
    assert k.bernoulli((50,), np.ones(50, np.float32), seed, 0).all()
    columns = k.bernoulli((50, 2), np.array([0.0, 1.0], np.float32), seed, 0)
    assert not columns[:, 0].any()
    assert columns[:, 1].all()


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.lists(INT64, min_size=2, max_size=2, unique=True).map(sorted), SHAPES, SEED64)
def test_randint(bounds, shape, seed):
    low, high = bounds
    got = k.randint(low, high, shape, seed, 11)
    assert got.dtype == np.int64
    assert got.shape == shape
    words = [int(w) for w in k.philox_bits(2 * got.size, seed, 11)]
    pairs = zip(words[0::2], words[1::2], strict=True)
    want = [low + ((b << 32 | a) * (high - low) >> 64) for a, b in pairs]
    assert got.reshape(-1).tolist() == want


@given(st.integers(0, 300), SEED64)
def test_permutation(n, seed):
    got = k.permutation(n, seed, 2)
    assert got.dtype == np.int64
    assert sorted(got.tolist()) == list(range(n))
    words = [int(w) for w in k.philox_bits(2 * n, seed, 2)]
    keys = [b << 32 | a for a, b in zip(words[0::2], words[1::2], strict=True)]
    assert got.tolist() == sorted(range(n), key=keys.__getitem__)


def test_permutation_is_uniform():
    counts: dict[tuple, int] = {}
    for seed in range(3000):
        order = tuple(k.permutation(3, seed, 0).tolist())
        counts[order] = counts.get(order, 0) + 1
    chi = sum((c - 500) ** 2 / 500 for c in counts.values())
    assert len(counts) == 6
    assert chi < 20.5  # 5 degrees of freedom, 0.1 %; the seeds are fixed


P = np.array([[0.0, 1.0, 2.0, 0.0, 5.0, 0.0], [1.0, 0.0, 0.0, 1.0, 0.0, 2.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_frequencies(replacement, dtype):
    draws, p = 4000, np.repeat(P, 4000, axis=0).astype(dtype)
    got = k.multinomial(p, 3, replacement, 9, 0)
    assert got.dtype == np.int64
    assert got.shape == (2 * draws, 3)
    for row in range(2):
        part = got[row * draws : (row + 1) * draws]
        share = P[row] / P[row].sum()
        for column in range(3 if replacement else 1):
            counts = np.bincount(part[:, column], minlength=6)
            assert np.all(counts[share == 0] == 0)
            assert np.all(np.abs(counts / draws - share) <= 5 * np.sqrt(share / draws))
        if not replacement:
            assert all(len(set(line)) == 3 for line in part.tolist())
            # the second draw follows the rest: P(b | a) = p_b / (1 - p_a)
            second = sum(
                share * (share[4] / np.where(share < 1, 1 - share, 1)) * (np.arange(6) != 4)
            )
            assert abs((part[:, 1] == 4).mean() - second) < 5 * math.sqrt(0.25 / draws)


def test_multinomial_shapes():
    one = k.multinomial(np.array([0.0, 3.0]), 4, True, 1, 0)
    np.testing.assert_array_equal(one, [1, 1, 1, 1])
    assert k.multinomial(P[:0], 2, True, 1, 0).shape == (0, 2)
    assert k.multinomial(P[:0], 2, False, 1, 0).shape == (0, 2)
    strided = k.multinomial(P[::-1, ::-1], 2, False, 1, 0)
    np.testing.assert_array_equal(strided, k.multinomial(P[::-1, ::-1].copy(), 2, False, 1, 0))


BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FORMATS = [(np.dtype(t), layout) for t in ("f2", "f4", "f8") for layout in ("plain", "strided")]
FORMATS += [(BFLOAT16, "plain"), (BFLOAT16, "strided")]
SHAPES_OF_PARAMETERS = [(), (0,), (3,), (4, 5), (2, 3, 2), (130, 130)]


def parameters(rng, dtype, layout):
    """Arrays of a few shapes; "strided" ones are transposed columns of larger arrays."""
    out = []
    for shape in SHAPES_OF_PARAMETERS:
        array = np.asarray(rng.standard_normal(shape), dtype)
        if layout == "strided" and shape:
            room = np.zeros((*shape[::-1], 2), dtype)
            room[..., 1] = array.T
            array = room[..., 1].T
        out.append(array)
    return out


def working(dtype):
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def widened(arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def agree(got, want, dtype, room):
    for g, w in zip(got, want, strict=True):
        error = np.abs(np.asarray(g, np.float64) - w)
        assert np.all(error <= room * float(ml_dtypes.finfo(dtype).eps) * (1 + np.abs(w)))


@pytest.mark.parametrize("dtype, layout", FORMATS, ids=str)
@given(st.data())
def test_sgd(dtype, layout, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    momentum = data.draw(st.sampled_from([0.0, 0.9]))
    nesterov = data.draw(st.booleans()) and momentum > 0
    dampening = 0.0 if nesterov else data.draw(st.sampled_from([0.0, 0.5]))
    decay, maximize = data.draw(st.sampled_from([0.0, 0.1])), data.draw(st.booleans())
    params = parameters(rng, dtype, layout)
    momenta = [np.zeros_like(p) for p in params] if momentum else [None] * len(params)
    for step in range(2):
        grads = parameters(rng, dtype, layout)
        kept = [g.copy() for g in grads]
        want, speed = (
            widened(params),
            [None if m is None else np.asarray(m, float) for m in momenta],
        )
        for i, grad in enumerate(widened(grads)):
            d = (-grad if maximize else grad) + decay * want[i]
            if momentum:
                speed[i] = d if step == 0 else momentum * speed[i] + (1 - dampening) * d
                d = d + momentum * speed[i] if nesterov else speed[i]
            want[i] = want[i] - 0.1 * d
        k.sgd_step(
            params, grads, momenta, [step == 0] * len(params), lr=0.1, momentum=momentum,
            dampening=dampening, weight_decay=decay, nesterov=nesterov, maximize=maximize,
        )  # fmt: skip
        for g, copy in zip(grads, kept, strict=True):
            np.testing.assert_array_equal(g, copy)
        # one rounding of the parameter's own format: half an eps, and the arithmetic's few
        agree(params, want, dtype, 0.51 if dtype.itemsize == 2 else 4)
        if momentum:
            agree(momenta, speed, dtype, 0.51 if dtype.itemsize == 2 else 4)


@pytest.mark.parametrize("dtype, layout", FORMATS, ids=str)
@given(st.data())
def test_adam(dtype, layout, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    beta1, beta2 = data.draw(st.sampled_from([(0.9, 0.999), (0.4, 0.9), (0.0, 0.5)]))
    decay, decoupled = data.draw(st.sampled_from([0.0, 0.1])), data.draw(st.booleans())
    amsgrad, maximize = data.draw(st.booleans()), data.draw(st.booleans())
    params = parameters(rng, dtype, layout)
    state = [[np.zeros(p.shape, working(dtype)) for p in params] for _ in range(3)]
    if not amsgrad:
        state[2] = [None] * len(params)
    average, square, peak = ([np.zeros(p.shape) for p in params] for _ in range(3))
    for step in (1, 2, 3):
        grads, want = parameters(rng, dtype, layout), widened(params)
        for i, g in enumerate(widened(grads)):
            g = -g if maximize else g
            if decoupled:
                want[i] = want[i] * (1 - 0.01 * decay)
            else:
                g = g + decay * want[i]
            average[i] = beta1 * average[i] + (1 - beta1) * g
            square[i] = beta2 * square[i] + (1 - beta2) * g * g
            peak[i] = np.maximum(peak[i], square[i])
            root = np.sqrt((peak if amsgrad else square)[i] / (1 - beta2**step)) + 0.1
            want[i] = want[i] - 0.01 * average[i] / (1 - beta1**step) / root
        k.adam_step(
            params, grads, *state, [step] * len(params), lr=0.01, beta1=beta1, beta2=beta2,
            eps=0.1, weight_decay=decay, amsgrad=amsgrad, maximize=maximize, decoupled=decoupled,
        )  # fmt: skip
        agree(params, want, dtype, 0.51 if dtype.itemsize == 2 else 8)
        agree(state[0], average, working(dtype), 16)
        agree(state[1], square, working(dtype), 16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("decoupled", [False, True])
def test_an_infinite_parameter_without_decay_makes_no_nan(dtype, decoupled):
    """0 * inf must not reach the averages, which would stay NaN."""
    far, g = np.array([np.inf, 1, -np.inf], dtype), np.ones(3, dtype)
    p, m, v = far.copy(), np.zeros(3, dtype), np.zeros(3, dtype)
    k.adam_step(
        [p], [g], [m], [v], [None], [1], lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8,
        weight_decay=0.0, amsgrad=False, maximize=False, decoupled=decoupled,
    )  # fmt: skip
    np.testing.assert_allclose(p, [np.inf, 0.9, -np.inf], rtol=1e-6)
    np.testing.assert_allclose(m, 0.1, rtol=1e-6)
    p, m = far.copy(), np.zeros(3, dtype)
    k.sgd_step(
        [p], [g], [m], [True], lr=0.1, momentum=0.9, dampening=0.0, weight_decay=0.0,
        nesterov=False, maximize=False,
    )  # fmt: skip
    np.testing.assert_allclose(p, [np.inf, 0.9, -np.inf], rtol=1e-6)
    np.testing.assert_array_equal(m, 1)


@given(st.sampled_from([2.0, 1.0, 3.0, math.inf]), st.integers(0, 2**32))
def test_grad_norm(p, seed):
    rng = np.random.default_rng(seed)
    for dtype, layout in FORMATS:
        grads = parameters(rng, dtype, layout)
        values = np.concatenate([g.reshape(-1) for g in widened(grads)])
        got = k.grad_norm(grads, p)
        assert type(got) is float
        assert got == pytest.approx(float(np.linalg.norm(values, p)), rel=1e-12)


def test_grad_norm_extremes():
    assert k.grad_norm([], 2.0) == 0
    assert k.grad_norm([np.zeros(3), np.zeros((0, 2))], 2.0) == 0
    assert k.grad_norm([np.full(4, 1e25, np.float32)], 2.0) == pytest.approx(2e25)
    assert k.grad_norm([np.full(4, 1e200), np.zeros(2)], 2.0) == pytest.approx(2e200)
    assert k.grad_norm([np.full(4, 1e-200)], 2.0) == pytest.approx(2e-200)
    assert k.grad_norm([np.array([1.0, np.inf])], 2.0) == math.inf
    assert math.isnan(k.grad_norm([np.array([1.0, np.nan])], 2.0))
    assert math.isnan(k.grad_norm([np.ones(2), np.array([1.0, np.nan])], math.inf))


@pytest.mark.parametrize("dtype, layout", FORMATS, ids=str)
def test_grad_scale(dtype, layout):
    grads = parameters(np.random.default_rng(0), dtype, layout)
    want = [(np.asarray(g, working(dtype)) * working(dtype).type(0.3)).astype(dtype) for g in grads]
    k.grad_scale(grads, 0.3)
    for g, w in zip(grads, want, strict=True):
        np.testing.assert_array_equal(g, w)
