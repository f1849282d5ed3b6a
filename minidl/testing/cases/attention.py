"""Rows of `minidl.ops.attention`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.dtypes import DType, float32, float64
from minidl.ops.attention import scaled_dot_product_attention
from minidl.testing.case import Case, Sample, sample
from minidl.testing.draws import alike


def _qkv(d: Any, dtype: DType, lead: tuple[int, ...], group: int = 1) -> tuple[Any, Any, Any]:
    # a query that sees one key has a gradient of 0, up to rounding: there are others beside it
    depth, keys = d.integer(2, 4), d.integer(2, 5)
    own = (*lead[:-1], lead[-1] * group) if lead else ()
    shapes = (*own, d.integer(2, 4), depth), (*lead, keys, depth), (*lead, keys, d.integer(1, 3))
    q, k, v = alike(*(d.array(shape, dtype, -2, 2, distinct=True) for shape in shapes))
    return q, k, v


def _inputs(d: Any, dtype: DType) -> Sample:
    lead = d.choice([(), (2,), (2, 2), (2, 1, 2)])
    options: dict[str, Any] = {"is_causal": True} if d.boolean() else {}
    if d.boolean():
        options["scale"] = d.number(0.125, 1)
    return sample(*_qkv(d, dtype, lead), **options)


def _grouped_inputs(d: Any, dtype: DType) -> Sample:
    q, k, v = _qkv(d, dtype, (2, 2), group=d.integer(1, 3))
    return sample(q, k, v, is_causal=d.boolean(), enable_gqa=True)


def _masked(additive: bool) -> Any:
    def inputs(d: Any, dtype: DType) -> Sample:
        q, k, v = _qkv(d, dtype, (2, 2))
        scores = (*q.shape[:-1], k.shape[-2])
        # full, per query, padding of keys, per head, and with fewer axes
        shape = d.choice([scores, scores[-2:], (2, 1, 1, scores[-1]), (2, 1, 1), (1, scores[-1])])
        shape = shape if len(shape) != 3 else (1, 2, 1, scores[-1])
        if additive:
            bias = d.array(shape, dtype, distinct=True)
            return sample(q, k, v, bias.astype(q.dtype, copy=False))
        mask = d.rng.integers(0, 2, shape) == 1
        mask[(0,) * (len(shape) - 1)][:2] = True
        return sample(q, k, v, d.layout(mask))

    return inputs


def _attention(
    q: Any, k: Any, v: Any, mask: Any = None, is_causal: bool = False, scale: Any = None,
    enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """One query after the other."""
    if enable_gqa:
        k, v = (np.repeat(x, q.shape[-3] // x.shape[-3], axis=-3) for x in (k, v))
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    scores = np.einsum("...td,...sd->...ts", q, k) * scale
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    out = np.zeros((*q.shape[:-1], v.shape[-1]))
    for i in np.ndindex(q.shape[:-1]):
        row = scores[i][: i[-1] + 1] if is_causal else scores[i]
        weights = np.exp(row)
        if weights.any():
            out[i] = weights / weights.sum() @ v[i[:-1]][: len(row)]
    return out


def _row(name: str, inputs: Any, *operators: str, **options: Any) -> Case:
    # gradients of query and key are differences, of terms up to about 8 times as large
    function = scaled_dot_product_attention
    torch = "torch.nn.functional.scaled_dot_product_attention"
    return Case(name, function, _attention, inputs, torch, operators=operators or ("attention",),
                scale=8, **options)  # fmt: skip


CASES = [
    _row("scaled_dot_product_attention", _inputs, "attention", "attention_backward"),
    _row("attention_grouped", _grouped_inputs),
    _row("attention_mask", _masked(False)),
    # a mask that asks for a gradient goes through operators that round half dtypes each
    _row("attention_bias", _masked(True), dtypes=(float64, float32)),
    _row("attention_bias_constant",
         lambda d, dtype: sample(*(s := _masked(True)(d, dtype).args)[:3], d.constant(s[3]))),
]  # fmt: skip
