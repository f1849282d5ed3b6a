"""Scaled dot-product attention."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minidl.autograd.op import Array, Index, constant, op
from minidl.backends import kernels_for
from minidl.dtypes import BOOL, FLOAT
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.ops.arithmetic import mul
from minidl.ops.convert import cast, widened
from minidl.ops.matmul import matmul
from minidl.ops.method import check_tensor
from minidl.ops.random import Generator, dropout
from minidl.ops.select import where
from minidl.ops.softmax import softmax
from minidl.ops.views import expand, reshape, transpose
from minidl.tensor import Tensor

__all__ = ["scaled_dot_product_attention"]


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
    if query.dtype.kind != "f":
        raise DTypeError("query, key and value must be floating point")
    return k.attention(query, key, value, _additive(attn_mask, query), is_causal, scale)


def _additive(mask: Any, query: Any) -> Any:
    """The mask in the dtype that is computed in, unless it is bool or absent."""
    return mask if mask is None or mask.dtype.kind == "b" else mask.astype(query.dtype, copy=False)


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


@op(outputs=3, nondiff=True)
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
    mask = _additive(attn_mask, query)
    return k.attention_backward(grad, query, key, value, mask, is_causal, scale, out, lse)


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
    heads, dtype = query.shape[-3], query.dtype
    query, key, value = widened(query), widened(key), widened(value)
    key, value = _repeated(key, heads), _repeated(value, heads)
    scores = matmul(mul(query, scale), transpose(key, -1, -2))
    k: Any = kernels_for(query.array)
    allowed = k.ones((1, 1), bool)
    if attn_mask is not None:
        if attn_mask.dtype.kind != BOOL:
            attn_mask = cast(attn_mask, query.dtype)
        mask = attn_mask.array
        if mask.dtype.kind == "b":
            allowed = mask
        else:
            allowed = mask != -np.inf
            scores = scores + where(constant(allowed), attn_mask, 0.0)
    if is_causal:
        allowed = allowed & k.tril(k.ones(scores.shape[-2:], bool))
    scores = where(constant(allowed), scores, -math.inf)
    dead = constant(~k.broadcast_to(allowed, scores.shape).any(-1, keepdims=True))
    weights = where(dead, 0.0, softmax(where(dead, 0.0, scores), -1))
    if dropout_p:
        weights = dropout(weights, dropout_p, generator=generator)
    return cast(matmul(weights, value), dtype)


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

    query (..., H, T, D), key (..., Hkv, S, D), value (..., Hkv, S, Dv) -> (..., H, T, Dv), or
    without the heads' axis; H is Hkv, or a multiple of it with enable_gqa; axes of size 1 in
    front of the last two broadcast. attn_mask: bool (True may attend) or added to the scores,
    broadcast to (..., H, T, S), e.g. (B, 1, 1, S) for padding; is_causal: query i sees keys 0..i.
    A query that sees no key gives 0. scale defaults to 1 / sqrt(D). Raises ShapeError, DTypeError,
    ArgumentError. The fused form is used without dropout and for masks without gradient.
    Source: Dao, "FlashAttention-2", 2023.
    """
    for argument, x in (("query", query), ("key", key), ("value", value)):
        check_tensor(_NAME, argument, x)
    rank = query.ndim
    shapes = (query.shape, key.shape, value.shape)
    if rank < 2 or key.ndim != rank or value.ndim != rank:
        raise _misfit("query, key and value need equal numbers of axes, two or more", *shapes)
    if rank == 2:
        query, key, value = (reshape(x, (1, *x.shape)) for x in (query, key, value))
    query, key, value = _matched(query, key, value, enable_gqa, shapes)
    if attn_mask is not None:
        _check_mask(attn_mask, is_causal, (*query.shape[rank == 2 : -1], key.shape[-2]))
    if not 0 <= dropout_p <= 1:
        raise ArgumentError("dropout_p must be a probability", operator=_NAME, got=repr(dropout_p))
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1] or 1)
    if dropout_p or (attn_mask is not None and attn_mask.requires_grad):
        out = _weights_times_values(query, key, value, attn_mask, is_causal, scale, dropout_p)
    else:
        out = _attention(query, key, value, attn_mask, is_causal, scale)
    return reshape(out, out.shape[1:]) if rank == 2 else out


_NAME = "scaled_dot_product_attention"


def _misfit(rule: str, *shapes: tuple[int, ...]) -> ShapeError:
    return ShapeError(rule, operator=_NAME, got=", ".join(str(shape) for shape in shapes))


def _matched(
    query: Tensor, key: Tensor, value: Tensor, enable_gqa: bool, shapes: tuple
) -> tuple[Tensor, Tensor, Tensor]:
    """The three with equal leading axes, and as many heads in key as in value."""
    if key.shape[-2] != value.shape[-2] or query.shape[-1] != key.shape[-1]:
        raise _misfit("query (..., T, D), key (..., S, D), value (..., S, Dv) must agree", *shapes)
    heads, own = query.shape[-3], max(key.shape[-3], value.shape[-3])
    grouped = enable_gqa and own and heads % own == 0
    if heads != own and 1 not in (heads, own) and not grouped:
        raise _misfit(
            "query needs as many heads as key and value (or a multiple, with enable_gqa)", *shapes
        )
    leads = (query.shape[:-3], key.shape[:-3], value.shape[:-3])
    try:
        lead = leads[0] if leads[0] == leads[1] == leads[2] else np.broadcast_shapes(*leads)
    except ValueError:
        raise _misfit("leading axes must broadcast", *shapes) from None
    owns = (*lead, own)
    return (
        _widened(query, owns if heads < own and not grouped else (*lead, heads)),
        _widened(key, owns),
        _widened(value, owns),
    )


def _widened(x: Tensor, lead: tuple[int, ...]) -> Tensor:
    return x if x.shape[:-2] == lead else expand(x, (*lead, -1, -1))


def _check_mask(mask: Tensor, is_causal: bool, scores: tuple[int, ...]) -> None:
    check_tensor(_NAME, "attn_mask", mask)
    if is_causal:
        raise ArgumentError("is_causal and attn_mask exclude each other", operator=_NAME)
    if mask.dtype.kind not in (BOOL, FLOAT):
        raise DTypeError(
            "attn_mask must be bool or floating point", operator=_NAME, got=repr(mask.dtype)
        )
    same = (n in (1, m) for n, m in zip(mask.shape[::-1], scores[::-1], strict=False))
    if not 2 <= mask.ndim <= len(scores) or not all(same):
        raise _misfit(
            "attn_mask needs two axes or more and must broadcast to the scores (..., T, S)",
            mask.shape,
            scores,
        )
