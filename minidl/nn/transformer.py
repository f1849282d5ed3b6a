"""The Transformer encoder: one block, and a stack of blocks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError, UnsupportedError
from minidl.nn.attention import MultiheadAttention
from minidl.nn.containers import ModuleList
from minidl.nn.dropout import Dropout
from minidl.nn.linear import Linear, activation_after
from minidl.nn.module import Module
from minidl.nn.normalization import LayerNorm, norm_of_sum
from minidl.ops.creation import sizes
from minidl.tensor import Tensor

_ACTIVATIONS = {"relu": ops.relu, "gelu": ops.gelu}


class TransformerEncoderLayer(Module):
    """Self-attention, then two linear maps with an activation; residual and LayerNorm around each.

    src: (S, N, E), (N, S, E) with `batch_first`, or (S, E) -> same. `norm_first` normalises before
    each part instead of after it. Source: Vaswani et al., arXiv:1706.03762.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = ops.relu,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        made = {"bias": bias, "device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout=dropout, batch_first=batch_first, **made
        )
        self.linear1 = Linear(d_model, dim_feedforward, **made)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **made)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **made)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **made)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation_named(activation)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Return a tensor of the shape of `src`; the masks are those of MultiheadAttention."""
        x = src
        if self.norm_first:
            x = x + self._attend(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self._feed_forward(self.norm2(x))
        x = norm_of_sum(self.norm1, x, self._attend(x, src_mask, src_key_padding_mask, is_causal))
        return norm_of_sum(self.norm2, x, self._feed_forward(x))

    def _attend(
        self, x: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool
    ) -> Tensor:
        attended, _ = self.self_attn(
            x,
            x,
            x,
            attn_mask=mask,
            key_padding_mask=padding,
            need_weights=False,
            is_causal=is_causal,
        )
        return self.dropout1(attended)

    def _feed_forward(self, x: Tensor) -> Tensor:
        if name := activation_after(self.linear1, self.activation):
            x = self.linear1.activated(x, name)
        else:
            x = self.activation(self.linear1(x))
        return self.dropout2(self.linear2(self.dropout(x)))


class TransformerEncoder(Module):
    """A stack of `num_layers` copies of one block, with an optional norm at the end.

    `enable_nested_tensor` and `mask_check` are accepted and change nothing: padded positions are
    computed like any other.
    """

    def __init__(
        self,
        encoder_layer: Module,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        (num_layers,) = sizes((num_layers,), "TransformerEncoder")
        if num_layers < 0:
            raise ArgumentError(
                "num_layers must not be negative",
                operator="TransformerEncoder",
                got=str(num_layers),
            )
        self.layers = ModuleList(copy.deepcopy(encoder_layer) for _ in range(num_layers))
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Return a tensor of the shape of `src`.

        `is_causal=None` looks whether `mask` is the causal one, which has a faster kernel.
        """
        if is_causal is None:
            is_causal = isinstance(mask, Tensor) and _is_causal(mask)
        output = src
        for layer in self.layers:
            output = layer(
                output,
                src_mask=mask,
                is_causal=is_causal,
                src_key_padding_mask=src_key_padding_mask,
            )
        return output if self.norm is None else self.norm(output)


def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
    """Return the (sz, sz) additive mask with -inf above the diagonal, 0 elsewhere."""
    return ops.full((sz, sz), float("-inf"), device=device, dtype=dtype).triu(1)


class Transformer(Module):
    """PyTorch's encoder and decoder in one; only its function for masks exists here."""

    generate_square_subsequent_mask = staticmethod(generate_square_subsequent_mask)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        raise UnsupportedError(
            "there is no decoder; build the model from TransformerEncoder, with a causal mask for "
            "text generation",
            operator="Transformer",
        )


def _is_causal(mask: Tensor) -> bool:
    if mask.dim() != 2 or mask.shape[0] != mask.shape[1]:
        return False
    causal = generate_square_subsequent_mask(mask.shape[0], mask.device)
    if not mask.is_floating_point():
        causal = causal < 0
    return bool((mask == causal).all())


def _activation_named(activation: Any) -> Callable[..., Any]:
    if callable(activation):
        return activation
    if activation not in _ACTIVATIONS:
        raise ArgumentError(
            f"activation must be one of {sorted(_ACTIVATIONS)} or a function",
            operator="TransformerEncoderLayer",
            got=repr(activation),
        )
    return _ACTIVATIONS[activation]
