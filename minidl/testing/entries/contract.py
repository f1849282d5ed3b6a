"""Rows of matrix products, linear maps and attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends import reference
from minidl.dtypes import DType
from minidl.testing.case import Sample, sample
from minidl.testing.entries.draws import FEW, array, side
from minidl.testing.entry import Entry, entry

ACTIVATIONS = (None, "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid")


def _matmul(d: Any, dtype: DType) -> Sample:
    n, k, m = side(d), side(d), side(d)
    batch = [d.choice(FEW) for _ in range(d.integer(0, 2))]
    ones = [d.choice([1, b]) for b in batch]
    left = d.choice([(n, k), (k,), (*batch, n, k)])
    right = d.choice([(k, m), (k,), (*ones, k, m)])
    return sample(array(d, left, dtype), array(d, right, dtype))


def _terms(want: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    # of up to hundreds of equal terms, whose roundings all go one way
    return (2 + x.shape[-1] / 4) * np.asarray(np.matmul(np.abs(x), np.abs(y)))


def _linear(d: Any, dtype: DType) -> Sample:
    lead = [d.choice(FEW) for _ in range(d.integer(0, 1))]
    rows, inner, outer = side(d), side(d), side(d)
    x, weight = array(d, (*lead, rows, inner), dtype), array(d, (outer, inner), dtype)
    bias = array(d, (outer,), dtype) if d.boolean() else None
    return sample(x, weight, bias, d.choice(ACTIVATIONS), d.boolean())


def _sizes(want: Any, x: Any, weight: Any, bias: Any, *_: Any) -> np.ndarray:
    """Of the activation's argument: gelu's floor is 4 eps of it."""
    return (4 + x.shape[-1] / 4) * (
        np.abs(x) @ np.abs(weight).T + (0 if bias is None else np.abs(bias))
    )


def _linear_backward(d: Any, dtype: DType) -> Sample:
    rows, inner, outer = side(d), side(d), side(d)
    g = array(d, (rows, outer), dtype)
    x, weight = array(d, (rows, inner), dtype), array(d, (outer, inner), dtype)
    needs = (d.boolean(), d.boolean(), d.boolean())
    activation = d.choice(ACTIVATIONS)
    low = 0.1 if activation in ("relu", "sigmoid") else -0.9
    kept = None if activation is None else array(d, (rows, outer), dtype, low, 0.9)
    if d.boolean():  # what is in no gradient may be missing
        return sample(
            g, x if needs[1] else None, weight if needs[0] else None, needs, activation, kept
        )
    return sample(g, x, weight, needs, activation, kept)


def _backward_terms(want: Any, g: Any, x: Any, weight: Any, needs: Any, *_: Any) -> list[Any]:
    # a slope is at most 1.2, and the sum of two terms
    size = (4 + max(g.shape) / 4) * np.abs(g)
    sums = (
        lambda: size @ np.abs(weight),
        lambda: size.T @ np.abs(x),
        lambda: size.sum(0),
    )
    return [terms() for terms, needed in zip(sums, needs, strict=True) if needed]


def _heads(d: Any, dtype: DType) -> list[Any]:
    batch = d.choice([(), (1,), (2,), (2, 3)])
    kv_heads, group = d.choice([(1, 1), (2, 1), (1, 3), (2, 2)])
    t, s, depth, dv = (d.choice((3, 1, 2, 5, 8, 16, 17, 33, 0)) for _ in range(4))
    q = array(d, (*batch, kv_heads * group, t, depth), dtype)
    k = array(d, (*batch, kv_heads, s, depth), dtype)
    v = array(d, (*batch, kv_heads, s, dv), dtype)
    full, mask = (*batch, kv_heads * group, t, s), None
    if kind := d.choice(["", "bool", "float"]):
        part = d.broadcastable(full, within=True)
        mask = d.mask(part) if kind == "bool" else array(d, part, dtype)
    return [q, k, v, mask, d.boolean(), d.choice([0.5, 1.0, 0.125])]


def _attention(d: Any, dtype: DType) -> Sample:
    return sample(*_heads(d, dtype))


def _attention_backward(d: Any, dtype: DType) -> Sample:
    q, k, v, mask, causal, scale = _heads(d, dtype)
    g = array(d, (*q.shape[:-1], v.shape[-1]), dtype)
    wide = [None if a is None else a if a.dtype == bool else a.astype(np.float64)
            for a in (q, k, v, mask)]  # fmt: skip
    with np.errstate(all="ignore"):
        out, lse = reference.attention(*wide, causal, scale)  # type: ignore[arg-type]
    # no broadcasting, which would change their values: weights need the lse of these scores
    kept = [d.layout(a.astype(dtype.numpy), broadcast=False) for a in (out, lse)]
    return sample(g, q, k, v, mask, causal, scale, *kept)


def _scores_terms(want: Any, g: Any, q: Any, k: Any, v: Any, *more: Any) -> list[float]:
    """The difference in p (g v^T - sum(g out)) may cancel to 0; what is left of its terms."""
    top = [float(np.abs(a).max(initial=0)) for a in (g, q, k, v)]
    terms = 2 * abs(more[2]) * v.shape[-1] * top[0] * top[3]
    queries = q.shape[-3] // k.shape[-3] * q.shape[-2]
    return [terms * top[2], terms * top[1] * queries, 2 * top[0] * queries]


def _heads_behind(array: Any) -> bool:
    """Attention's results may have the order (*B, T, H, D) in memory."""
    return array.ndim > 2 and array.swapaxes(-3, -2).flags.c_contiguous


ROWS: tuple[Entry, ...] = (
    entry("matmul", _matmul, floor=_terms),
    entry("linear", _linear, floor=_sizes),
    entry("linear_backward", _linear_backward, floor=_backward_terms),
    # scores up to some tens: eps of them is a relative error of the weights
    entry("attention", _attention, scale=4, spread=_heads_behind),
    entry(
        "attention_backward",
        _attention_backward,
        scale=8,
        floor=_scores_terms,
        spread=_heads_behind,
    ),
)
