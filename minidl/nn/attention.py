"""Multi-head attention with PyTorch's weights, masks and return values."""

from __future__ import annotations

import math
from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError, DTypeError, ShapeError
from minidl.nn import init
from minidl.nn.linear import Linear
from minidl.nn.module import Module
from minidl.ops.creation import sizes
from minidl.tensor import Parameter, Tensor


class MultiheadAttention(Module):
    """Scaled dot-product attention in several heads between two linear maps.

    `add_bias_kv` appends a learnt key and value, `add_zero_attn` a key and value of zeros, that all
    queries may attend to.

    query: (L, N, E), or (N, L, E) with `batch_first`, or (L, E); key and value likewise with
    length S and sizes `kdim`, `vdim`. Source: Vaswani et al., arXiv:1706.03762.
    """

    bias_k: Tensor | None
    bias_v: Tensor | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        embed_dim, num_heads = sizes((embed_dim, num_heads), "MultiheadAttention")
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ArgumentError(
                "embed_dim must be a positive multiple of num_heads",
                operator="MultiheadAttention",
                got=f"embed_dim={embed_dim}, num_heads={num_heads}",
            )
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._same_sizes = self.kdim == embed_dim and self.vdim == embed_dim

        def weight(inputs: int, outputs: int = embed_dim) -> Tensor:
            return Parameter(ops.empty((outputs, inputs), device=device, dtype=dtype))

        packed, separate = "in_proj_weight", ("q_proj_weight", "k_proj_weight", "v_proj_weight")
        if self._same_sizes:
            self.in_proj_weight = weight(embed_dim, 3 * embed_dim)
            for name in separate:
                self.register_parameter(name, None)
        else:
            self.q_proj_weight = weight(embed_dim)
            self.k_proj_weight = weight(self.kdim)
            self.v_proj_weight = weight(self.vdim)
            self.register_parameter(packed, None)
        if bias:
            self.in_proj_bias = Parameter(ops.empty((3 * embed_dim,), device=device, dtype=dtype))
        else:
            self.register_parameter("in_proj_bias", None)
        self.out_proj = Linear(embed_dim, embed_dim, bias=bias, device=device, dtype=dtype)
        for name in ("bias_k", "bias_v"):
            empty = ops.empty((1, 1, embed_dim), device=device, dtype=dtype)
            self.register_parameter(name, Parameter(empty) if add_bias_kv else None)
        self.add_zero_attn = add_zero_attn
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Draw the input maps Xavier-uniform and clear both biases."""
        if self._same_sizes:
            init.xavier_uniform_(self.in_proj_weight)
        else:
            for weight in (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight):
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        for extra in (self.bias_k, self.bias_v):
            if extra is not None:
                init.xavier_normal_(extra)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output, of the query's shape, and the weights (N, L, S) if `need_weights`.

        `key_padding_mask`: (N, S), `attn_mask`: (L, S) or (N * heads, L, S); boolean, where True
        forbids attention, or floating, which is added to the scores. `average_attn_weights=False`
        gives weights (N, heads, L, S). `is_causal` may come with its mask or without; only
        `need_weights=False` runs the fused kernel, which never stores the L x S scores.
        """
        given = {"query": query, "key": key, "value": value}
        given |= {"key_padding_mask": key_padding_mask, "attn_mask": attn_mask}
        for name, x in given.items():
            if not isinstance(x, Tensor) and (x is not None or "mask" not in name):
                raise DTypeError(
                    f"{name} must be a Tensor; wrap it with minidl.tensor(...)",
                    operator="multi_head_attention",
                    got=type(x).__name__,
                )
        batched = self._check_shapes(query, key, value)
        same = query is key and key is value
        if not batched:
            query, key, value = (x.unsqueeze(0) for x in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (x.transpose(0, 1) for x in (query, key, value))
        q, k, v = self._project(query, key, value, same)
        extra = (self.bias_k is not None) + bool(self.add_zero_attn)
        if is_causal and key_padding_mask is None and not need_weights and not extra:
            mask, causal = None, True
        else:
            if is_causal and attn_mask is None:
                attn_mask = _causal_mask(q.shape[2], k.shape[2], query.device)
            mask, causal = self._merge_masks(q, k, attn_mask, key_padding_mask), False
        if extra:
            k, v = self._with_extra_keys(k, self.bias_k), self._with_extra_keys(v, self.bias_v)
            if mask is not None:  # every query may attend to the extra ones
                mask = ops.cat([mask, ops.zeros((*mask.shape[:-1], extra), dtype=mask.dtype)], -1)

        dropout = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = ops.matmul(q * math.sqrt(1 / self.head_dim), k.transpose(-2, -1))
            if mask is not None:
                scores = scores + _additive(mask, scores)
            weights = ops.dropout(ops.softmax(scores, -1), dropout, dropout > 0)
            heads = ops.matmul(weights, v)
        else:
            # SDPA's boolean mask says what takes part, this module's what is left out.
            if mask is not None and not mask.is_floating_point():
                mask = ops.logical_not(mask)
            heads = ops.scaled_dot_product_attention(
                q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=causal
            )
        # (N, heads, L, head_dim) -> (N, L, E)
        joined = heads.transpose(1, 2).reshape(query.shape[0], query.shape[1], self.embed_dim)
        output = self.out_proj(joined)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return output.squeeze(0), None if weights is None else weights.squeeze(0)
        return (output if self.batch_first else output.transpose(0, 1)), weights

    def _check_shapes(self, query: Tensor, key: Tensor, value: Tensor) -> bool:
        """Refuse shapes that do not fit; True if there is a batch axis."""
        shapes = [tuple(x.shape) for x in (query, key, value)]
        got = f"query {shapes[0]}, key {shapes[1]}, value {shapes[2]}"
        if query.dim() not in (2, 3) or any(len(s) != query.dim() for s in shapes):
            rule = "query, key and value must all have 2 axes, or all 3"
        elif (shapes[0][-1], shapes[1][-1], shapes[2][-1]) != (
            self.embed_dim,
            self.kdim,
            self.vdim,
        ):
            rule = f"last axes must be {self.embed_dim}, {self.kdim}, {self.vdim}"
        elif shapes[1][:-1] != shapes[2][:-1]:
            rule = "key and value must agree in length and batch"
        elif query.dim() == 3 and query.shape[batch := 1 - self.batch_first] != key.shape[batch]:
            rule = f"query and key must agree in axis {batch}, the batch"
        else:
            return query.dim() == 3
        raise ShapeError(rule, operator="multi_head_attention", got=got)

    def _project(
        self, query: Tensor, key: Tensor, value: Tensor, same: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map the inputs (N, length, size) to heads (N, heads, length, head_dim)."""
        bias = self.in_proj_bias
        if self._same_sizes and same:
            parts = ops.linear(query, self.in_proj_weight, bias).chunk(3, -1)
        else:
            if self._same_sizes:
                weights = self.in_proj_weight.chunk(3)
            else:
                weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            biases = (None, None, None) if bias is None else bias.chunk(3)
            inputs = zip((query, key, value), weights, biases, strict=True)
            parts = [ops.linear(x, weight, b) for x, weight, b in inputs]
        q, k, v = (
            x.view(x.shape[0], x.shape[1], self.num_heads, self.head_dim).transpose(1, 2)
            for x in parts
        )
        return q, k, v

    def _with_extra_keys(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Append to keys or values (N, heads, S, head_dim) what was learnt, and a row of zeros."""
        batch, heads, _, size = x.shape
        parts = [x]
        if bias is not None:
            parts.append(bias.view(1, heads, 1, size).expand(batch, heads, 1, size))
        if self.add_zero_attn:
            parts.append(ops.zeros((batch, heads, 1, size), dtype=x.dtype, device=x.device))
        return ops.cat(parts, 2)

    def _merge_masks(
        self, q: Tensor, k: Tensor, attn_mask: Tensor | None, padding: Tensor | None
    ) -> Tensor | None:
        """Join both masks into one that broadcasts to (N, heads, L, S); boolean if both are."""
        batch, heads, length, source = q.shape[0], self.num_heads, q.shape[2], k.shape[2]
        if attn_mask is not None:
            attn_mask = _like_query("attn_mask", attn_mask, q)
            shape = tuple(attn_mask.shape)
            if shape == (batch * heads, length, source):
                attn_mask = attn_mask.view(batch, heads, length, source)
            elif shape != (length, source):
                raise ShapeError(
                    f"attn_mask must have shape {(length, source)} or "
                    f"{(batch * heads, length, source)}",
                    operator="multi_head_attention",
                    got=str(shape),
                )
        if padding is None:
            return attn_mask
        padding = _like_query("key_padding_mask", padding, q)
        if tuple(padding.shape) != (batch, source):
            raise ShapeError(
                f"key_padding_mask must have shape {(batch, source)}",
                operator="multi_head_attention",
                got=str(tuple(padding.shape)),
            )
        padding = padding.view(batch, 1, 1, source)
        if attn_mask is None:
            return padding
        if attn_mask.is_floating_point() or padding.is_floating_point():
            return _additive(attn_mask, q) + _additive(padding, q)
        return ops.logical_or(attn_mask, padding)


def _like_query(name: str, mask: Tensor, query: Tensor) -> Tensor:
    """Give a floating mask the query's dtype, so that a float32 one serves a model in 16 bits."""
    if mask.is_floating_point():
        return mask.to(query.dtype)
    if mask.dtype.name != "bool":
        raise DTypeError(
            f"{name} must be boolean (True forbids) or floating point (added)",
            operator="multi_head_attention",
            got=repr(mask.dtype),
        )
    return mask


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    """Turn a boolean mask into 0 where allowed and -inf where forbidden; keep a floating one."""
    if mask.is_floating_point():
        return mask
    zeros = ops.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill_(mask, -math.inf)


def _causal_mask(length: int, source: int, device: Any) -> Tensor:
    """Return the boolean (length, source) mask that forbids every later position."""
    return ops.ones((length, source), dtype=bool, device=device).triu(1)
