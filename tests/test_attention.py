"""Scaled dot-product attention: masks of every form, ranks, memory, fused against composite."""

import math
import tracemalloc

import numpy as np
import pytest

import minidl as ml
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.attention import _weights_times_values
from minidl.testing import gradcheck, gradgradcheck

attention = ml.nn.functional.scaled_dot_product_attention

B, H, T, S, D = 2, 3, 4, 5, 6
HALVES = (ml.float16, ml.bfloat16)


def drawn(*shape, seed=0, dtype=ml.float64, requires_grad=True):
    g = ml.Generator().manual_seed(seed)
    return ml.randn(shape, generator=g, dtype=dtype, requires_grad=requires_grad)


def inputs(*lead, t=T, s=S, dtype=ml.float64):
    return tuple(
        drawn(*lead, n, D, seed=i, dtype=dtype) for i, n in enumerate((t, s, s), 1)
    )  # fmt: skip


def by_hand(q, k, v, mask=None, scale=None):
    """NumPy, with the whole matrix of weights; rows without a key give 0."""
    q, k, v = (x.array.astype(np.float64) for x in (q, k, v))
    scores = q @ k.swapaxes(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    top = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(np.isinf(top), 0, top))
    total = weights.sum(-1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0) @ v


MASKS = {
    "per score": (B, H, T, S),
    "per head": (1, H, T, S),
    "per example": (B, 1, T, S),
    "padding of keys": (B, 1, 1, S),
    "one for all": (T, S),
    "one row for all": (1, S),
    "a column": (T, 1),
    "per head and key": (H, 1, S),
    "full but one axis": (B, H, 1, S),
}


def masked(shape, seed=0):
    keep = np.random.default_rng(seed).integers(0, 3, shape) > 0
    keep[..., 0] = True
    return keep


@pytest.mark.parametrize("form", MASKS)
@pytest.mark.parametrize("kind", ["bool", "additive", "infinite"])
def test_masks_of_every_form(form, kind):
    keep = masked(MASKS[form])
    bias = np.random.default_rng(1).standard_normal(keep.shape)
    mask = {"bool": keep, "additive": bias, "infinite": np.where(keep, bias, -np.inf)}[kind]
    q, k, v = inputs(B, H)
    given = ml.tensor(mask)
    assert np.allclose(attention(q, k, v, given).array, by_hand(q, k, v, mask))

    def masked_attention(q, k, v):
        return attention(q, k, v, given)

    assert gradcheck(masked_attention, (q, k, v), fast_mode=True)
    assert gradgradcheck(masked_attention, (q, k, v), fast_mode=True)


@pytest.mark.parametrize("form", MASKS)
def test_an_additive_mask_gets_its_gradient(form):
    bias = drawn(*MASKS[form], seed=7)
    q, k, v = inputs(B, H)
    assert gradcheck(attention, (q, k, v, bias), fast_mode=True)
    assert gradgradcheck(attention, (q, k, v, bias), fast_mode=True)
    constant = attention(q, k, v, bias.detach())
    assert np.allclose(attention(q, k, v, bias).array, constant.array)


def test_a_query_without_keys_gives_zero_and_no_gradient():
    keep = masked((B, H, T, S))
    keep[0, 1, 2] = False
    keep[1] = False
    for mask in (keep, np.where(keep, 0.0, -np.inf)):
        q, k, v = inputs(B, H)
        out = attention(q, k, v, ml.tensor(mask))
        assert (out.array[0, 1, 2] == 0).all() and (out.array[1] == 0).all()
        out.sum().backward()
        for x in (q, k, v):
            assert np.isfinite(x.grad.array).all() and (x.grad.array[1] == 0).all()
        assert (q.grad.array[0, 1, 2] == 0).all() and (q.grad.array[0, 1, 1] != 0).any()


@pytest.mark.parametrize("t, s", [(4, 4), (3, 6), (6, 3), (1, 5), (5, 1)])
def test_causal(t, s):
    q, k, v = inputs(B, H, t=t, s=s)
    out = attention(q, k, v, is_causal=True)
    lower = np.tril(np.ones((t, s), bool))
    assert np.allclose(out.array, by_hand(q, k, v, lower))
    assert np.allclose(out.array, attention(q, k, v, ml.tensor(lower)).array)
    assert gradcheck(lambda *x: attention(*x, is_causal=True), (q, k, v), fast_mode=True)


def test_the_future_does_not_reach_the_past():
    q, k, v = inputs(1, 1, t=300, s=300)  # several blocks of query rows
    before = attention(q, k, v, is_causal=True)
    with ml.no_grad():
        k[..., 200:, :] = 99
        v[..., 200:, :] = 99
    after = attention(q, k, v, is_causal=True)
    assert np.array_equal(before.array[..., :200, :], after.array[..., :200, :])
    assert not np.allclose(before.array[..., 200:, :], after.array[..., 200:, :])


@pytest.mark.parametrize("lead", [(), (H,), (B, H), (2, B, H), (2, 1, B, H)])
def test_every_number_of_axes(lead):
    q, k, v = inputs(*lead)
    out = attention(q, k, v)
    assert out.shape == (*lead, T, D)
    assert np.allclose(out.array, by_hand(q, k, v))
    mask = masked((T, S))
    assert np.allclose(attention(q, k, v, ml.tensor(mask)).array, by_hand(q, k, v, mask))


@pytest.mark.parametrize("group", [1, 2, 4])
def test_grouped_queries_read_the_heads_in_order(group):
    q, (_, k, v) = drawn(B, 2 * group, T, D, seed=9), inputs(B, 2)
    out = attention(q, k, v, enable_gqa=True)
    wide = [x.repeat_interleave(group, -3) for x in (k, v)]
    assert np.allclose(out.array, attention(q, *wide).array)

    def grouped(q, k, v):
        return attention(q, k, v, is_causal=True, enable_gqa=True)

    assert gradcheck(grouped, (q, k, v), fast_mode=True)
    assert gradgradcheck(grouped, (q, k, v), fast_mode=True)


def test_axes_of_size_one_broadcast():
    q, k, v = inputs(B, H)
    for a, b, c in ((q[:1], k, v), (q, k[:1], v[:1]), (q, k[:, :1], v[:, :1]), (q[:, :1], k, v)):
        want = by_hand(*(x.expand(B, H, -1, -1) for x in (a, b, c)))
        assert np.allclose(attention(a, b, c).array, want)


def test_scale():
    q, k, v = inputs(B, H)
    assert np.allclose(attention(q, k, v, scale=0.3).array, by_hand(q, k, v, scale=0.3))
    assert np.allclose(attention(q, k, v, scale=0.0).array, v.array.mean(-2, keepdims=True))


@pytest.mark.parametrize("shape", [(0, H, T, S), (B, H, 0, S), (B, H, T, 0)])
def test_empty(shape):
    b, h, t, s = shape
    q, k, v = inputs(b, h, t=t, s=s)
    out = attention(q, k, v)
    assert out.shape == (b, h, t, D) and (out.array == 0).all()
    out.sum().backward()
    assert [x.grad.shape for x in (q, k, v)] == [x.shape for x in (q, k, v)]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("mask", [None, "bool", "additive"])
def test_half_dtypes_round_once(dtype, mask):
    q, k, v = inputs(B, H, t=20, s=30, dtype=dtype)
    keep = masked((B, 1, 1, 30))
    bias = np.where(keep, 0.5, -np.inf).astype(dtype.numpy)
    given = {None: None, "bool": ml.tensor(keep), "additive": ml.from_numpy(bias)}[mask]
    out = attention(q, k, v, given)
    want = by_hand(q, k, v, {None: None, "bool": keep, "additive": bias.astype(float)}[mask])
    assert out.dtype is dtype
    assert np.abs(out.array.astype(float) - want).max() <= ml.finfo(dtype).eps * np.abs(want).max()
    out.sum().backward()
    wide = [x.detach().float().requires_grad_() for x in (q, k, v)]
    attention(*wide, given if mask == "bool" or given is None else given.float()).sum().backward()
    for x, y in zip((q, k, v), wide, strict=True):
        assert x.grad.dtype is dtype
        difference = np.abs(x.grad.array.astype(float) - y.grad.array)
        assert difference.max() <= 8 * ml.finfo(dtype).eps * np.abs(y.grad.array).max()


def test_layouts_do_not_matter():
    heads_last = [drawn(B, n, H, D, seed=i) for i, n in enumerate((T, S, S))]
    q, k, v = (x.transpose(1, 2) for x in heads_last)
    plain = attention(*(x.contiguous() for x in (q, k, v)))
    assert np.array_equal(attention(q, k, v).array, plain.array)
    flipped = [x.flip(0).flip(-1) for x in (q, k, v)]
    again = [ml.from_numpy(x.array[::-1, ..., ::-1]) for x in flipped]
    assert np.array_equal(attention(*again).array, plain.array)


# ---------------------------------------------------------------- fused and composite


@pytest.mark.parametrize("case", ["plain", "causal", "bool", "additive", "grouped"])
def test_the_composite_is_the_same_function(case):
    q, k, v = inputs(B, H) if case != "grouped" else (drawn(B, 6, T, D), *inputs(B, H)[1:])
    mask = {"bool": ml.tensor(masked((B, 1, T, S))), "additive": drawn(T, S).detach()}.get(case)
    causal = case == "causal"
    weights = drawn(*q.shape[:-1], D, seed=5).detach()
    fused = attention(q, k, v, mask, is_causal=causal, enable_gqa=case == "grouped")
    whole = _weights_times_values(q, k, v, mask, causal, 1 / math.sqrt(D))
    assert np.allclose(fused.array, whole.array)
    grads = [ml.autograd.grad((y * weights).sum(), (q, k, v)) for y in (fused, whole)]
    for ours, theirs in zip(*grads, strict=True):
        assert np.allclose(ours.array, theirs.array)


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_matrix_of_weights_is_made_or_kept():
    n = 2048
    q, k, v = (drawn(1, 1, n, 16, seed=i, dtype=ml.float32) for i in range(3))
    matrix = n * n * 4

    def fused():
        attention(q, k, v, is_causal=True).sum().backward()

    def composite():
        _weights_times_values(q, k, v, None, True, 0.25).sum().backward()

    fused()  # compiles what is compiled on first use
    assert peak_of(fused) < matrix / 4
    assert peak_of(composite) > matrix
    node = attention(q, k, v).grad_fn
    kept = sum(x.nbytes for x in node.saved if isinstance(x, np.ndarray))
    assert kept <= 5 * q.nbytes


# ---------------------------------------------------------------- dropout


def test_dropout_of_weights():
    q, k, v = inputs(B, H)
    assert (attention(q, k, v, dropout_p=1.0).array == 0).all()
    ml.manual_seed(3)
    first = attention(q, k, v, dropout_p=0.4)
    ml.manual_seed(3)
    assert np.array_equal(first.array, attention(q, k, v, dropout_p=0.4).array)
    assert not np.allclose(first.array, attention(q, k, v, dropout_p=0.4).array)
    mean = sum(attention(q, k, v, dropout_p=0.4).array for _ in range(600)) / 600
    assert np.abs(mean - attention(q, k, v).array).max() < 0.2

    def seeded(q, k, v):
        ml.manual_seed(1)
        return attention(q, k, v, dropout_p=0.4, is_causal=True)

    assert gradcheck(seeded, (q, k, v), fast_mode=True)
    assert gradgradcheck(seeded, (q, k, v), fast_mode=True)


# ---------------------------------------------------------------- what is refused


def ones(*shape, dtype=ml.float32):
    return ml.ones(shape, dtype=dtype)


Q, K, V = ones(B, H, T, D), ones(B, H, S, D), ones(B, H, S, D)
BAD = {
    "one axis": (lambda: attention(ones(3), ones(3), ones(3)), ShapeError, "two or more"),
    "other ranks": (lambda: attention(Q, K[0], V), ShapeError, "equal numbers of axes"),
    "depth": (lambda: attention(Q, ones(B, H, S, D + 1), V), ShapeError, "must agree"),
    "length": (lambda: attention(Q, K, ones(B, H, S + 1, D)), ShapeError, "must agree"),
    "heads": (lambda: attention(ones(B, 4, T, D), ones(B, 2, S, D), ones(B, 2, S, D)),
              ShapeError, "enable_gqa"),
    "no multiple": (lambda: attention(Q, ones(B, 2, S, D), ones(B, 2, S, D), enable_gqa=True),
                    ShapeError, "multiple"),
    "batch": (lambda: attention(Q, ones(5, H, S, D), ones(5, H, S, D)), ShapeError, "broadcast"),
    "mask": (lambda: attention(Q, K, V, ones(T, S + 1)), ShapeError, r"\(4, 6\), \(2, 3, 4, 5\)"),
    "long mask": (lambda: attention(Q, K, V, ones(1, B, H, T, S)), ShapeError, "broadcast"),
    "short mask": (lambda: attention(Q, K, V, ones(S)), ShapeError, "two axes"),
    "wide mask": (lambda: attention(Q[:, :, :1], K, V, ones(T, S)), ShapeError, "broadcast"),
    "integer mask": (lambda: attention(Q, K, V, ones(T, S, dtype=ml.int64)), DTypeError, "bool"),
    "two masks": (lambda: attention(Q, K, V, ones(T, S), is_causal=True), ArgumentError,
                  "exclude each other"),
    "dtypes": (lambda: attention(Q, K.double(), V), DTypeError, "same dtype"),
    "integers": (lambda: attention(Q.long(), K.long(), V.long()), DTypeError, "floating point"),
    "dropout": (lambda: attention(Q, K, V, dropout_p=1.5), ArgumentError, "probability"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case):
    call, error, words = BAD[case]
    with pytest.raises(error, match=words) as caught:
        call()
    assert "attention]" in str(caught.value)
