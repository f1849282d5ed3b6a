"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, Index, constant, op
from minidl.errors import ShapeError
from minidl.ops.arithmetic import mul
from minidl.ops.matmul import matmul
from minidl.ops.random import Generator, dropout
from minidl.ops.select import where
from minidl.ops.softmax import softmax
from minidl.ops.views import expand, reshape, transpose
from minidl.tensor import Tensor


@op(residuals=("lse",), promote="match")
def _attention(
    k: Any,
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Index | None,
    is_causal: bool,
    scale: float,
) -> Any:
    return k.attention(query, key, value, attn_mask, is_causal, scale)


@_attention.gradient
def _(
    g: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Any,
    is_causal: bool,
    scale: float,
    out: Tensor,
    lse: Tensor,
) -> Any:
    return _attention_backward(g, query, key, value, attn_mask, is_causal, scale, out, lse)


@op(outputs=3, promote=None, nondiff=True)
def _attention_backward(
    k: Any,
    grad: Array,
    query: Array,
    key: Array,
    value: Array,
    attn_mask: Index | None,
    is_causal: bool,
    scale: float,
    out: Array,
    lse: Array,
) -> Any:
    return k.attention_backward(grad, query, key, value, attn_mask, is_causal, scale, out, lse)


def _repeated(x: Tensor, heads: int) -> Tensor:
    """Key or value heads repeated for the query heads that share them: (B..., heads, S, D)."""
    *batch, own, s, d = x.shape
    if own == heads:
        return x
    wide = expand(reshape(x, (*batch, own, 1, s, d)), (*batch, own, heads // own, s, d))
    return reshape(wide, (*batch, heads, s, d))


@_attention.composite
def _weights_times_values(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None,
    is_causal: bool,
    scale: float,
    dropout_p: float = 0.0,
    generator: Generator | None = None,
) -> Tensor:
    heads = query.shape[-3]
    key, value = _repeated(key, heads), _repeated(value, heads)
    scores = matmul(mul(query, scale), transpose(key, -1, -2))
    allowed = np.ones((1, 1), bool)
    if attn_mask is not None:
        mask = attn_mask.array
        if mask.dtype.kind == "b":
            allowed = mask
        else:
            allowed = mask != -np.inf
            scores = scores + where(constant(allowed), attn_mask, 0.0)
    if is_causal:
        allowed = allowed & np.tril(np.ones(scores.shape[-2:], bool))
    scores = where(constant(allowed), scores, -math.inf)
    dead = constant(~np.broadcast_to(allowed, scores.shape).any(-1, keepdims=True))
    weights = where(dead, 0.0, softmax(where(dead, 0.0, scores), -1))
    if dropout_p:
        weights = dropout(weights, dropout_p, generator=generator)
    return matmul(weights, value)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`softmax(query @ key.T * scale + mask) @ value` without keeping the T x S weights.

    query (..., H, T, D), key (..., Hkv, S, D), value (..., Hkv, S, Dv) -> (..., H, T, Dv);
    H is Hkv, or a multiple of it with enable_gqa. attn_mask: bool (True may attend) or additive,
    broadcast to (..., H, T, S); is_causal: query i sees keys 0..i. A query that sees no key
    gives 0. scale defaults to 1 / sqrt(D). Raises ShapeError, DTypeError. The fused form is used
    without dropout and for masks without gradient (Dao 2023, FlashAttention-2).
    """
    shapes = f"{query.shape}, {key.shape}, {value.shape}"
    if query.ndim < 2 or key.ndim != query.ndim or value.ndim != query.ndim:
        raise ShapeError("query, key and value need equal numbers of axes, two or more",
                         operator="attention", got=shapes)
    lead = query.ndim == 2
    if lead:
        query, key, value = (reshape(x, (1, *x.shape)) for x in (query, key, value))
    if query.shape[:-3] != key.shape[:-3]:
        batch = np.broadcast_shapes(query.shape[:-3], key.shape[:-3], value.shape[:-3])
        query, key, value = (expand(x, (*batch, *x.shape[-3:])) for x in (query, key, value))
    heads, kv_heads = query.shape[-3], key.shape[-3]
    if (
        key.shape[:-1] != value.shape[:-1]
        or query.shape[-1] != key.shape[-1]
        or (heads != kv_heads and not (enable_gqa and kv_heads and heads % kv_heads == 0))
    ):
        raise ShapeError("query (..., H, T, D), key (..., Hkv, S, D), value (..., Hkv, S, Dv) do not"
                         " fit (enable_gqa lets H be a multiple of Hkv)",
                         operator="attention", got=shapes)
    if attn_mask is not None:
        if is_causal:
            raise ShapeError("is_causal and attn_mask exclude each other", operator="attention")
        wanted = (*query.shape[:-1], key.shape[-2])
        try:
            np.broadcast_to(np.empty(attn_mask.shape, bool), wanted)
        except ValueError:
            raise ShapeError("attn_mask must broadcast to the scores", operator="attention",
                             got=f"{attn_mask.shape}, {wanted}") from None
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1]) if query.shape[-1] else 1.0
    if dropout_p or (attn_mask is not None and attn_mask.requires_grad):
        out = _weights_times_values(query, key, value, attn_mask, is_causal, scale, dropout_p)
    else:
        out = _attention(query, key, value, attn_mask, is_causal, scale)
    return reshape(out, out.shape[1:]) if lead else out
