"""The Transformer: blocks of encoder and decoder, stacks of them, and both together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import minidl.ops as ops
from minidl.errors import ArgumentError, ShapeError
from minidl.nn import init
from minidl.nn.attention import MultiheadAttention
from minidl.nn.containers import ModuleList
from minidl.nn.dropout import Dropout
from minidl.nn.linear import Linear, activation_after
from minidl.nn.module import Module
from minidl.nn.normalization import LayerNorm, norm_of_sum
from minidl.ops.creation import sizes
from minidl.tensor import Tensor

_ACTIVATIONS = {"relu": ops.relu, "gelu": ops.gelu}


class _Block(Module):
    """The two steps of which every block is made: attention, and a linear map, twice."""

    linear1: Linear
    linear2: Linear
    dropout: Dropout
    activation: Callable[..., Any]

    def _attend(
        self,
        attention: Module,
        query: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        padding: Tensor | None,
        is_causal: bool,
    ) -> Tensor:
        attended, _ = attention(
            query,
            memory,
            memory,
            attn_mask=mask,
            key_padding_mask=padding,
            need_weights=False,
            is_causal=is_causal,
        )
        return attended

    def _feed_forward(self, x: Tensor) -> Tensor:
        if name := activation_after(self.linear1, self.activation):
            x = self.linear1.activated(x, name)
        else:
            x = self.activation(self.linear1(x))
        return self.linear2(self.dropout(x))


class TransformerEncoderLayer(_Block):
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
        self.activation = _activation_named(activation, "TransformerEncoderLayer")

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
            x = x + self._self_attend(self.norm1(x), src_mask, src_key_padding_mask, is_causal)
            return x + self.dropout2(self._feed_forward(self.norm2(x)))
        attended = self._self_attend(x, src_mask, src_key_padding_mask, is_causal)
        x = norm_of_sum(self.norm1, x, attended)
        return norm_of_sum(self.norm2, x, self.dropout2(self._feed_forward(x)))

    def _self_attend(
        self, x: Tensor, mask: Tensor | None, padding: Tensor | None, is_causal: bool
    ) -> Tensor:
        return self.dropout1(self._attend(self.self_attn, x, x, mask, padding, is_causal))


class TransformerDecoderLayer(_Block):
    """Self-attention, attention to the encoder's output, then two linear maps.

    tgt: (T, N, E), (N, T, E) with `batch_first`, or (T, E) -> same; memory: likewise with length S.
    Residual and LayerNorm stand around each part, `norm_first` normalises before instead of after.
    Source: Vaswani et al., arXiv:1706.03762.
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
        attention = {"dropout": dropout, "batch_first": batch_first, **made}
        self.self_attn = MultiheadAttention(d_model, nhead, **attention)
        self.multihead_attn = MultiheadAttention(d_model, nhead, **attention)
        self.linear1 = Linear(d_model, dim_feedforward, **made)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, **made)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, **made)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, **made)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, **made)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation_named(activation, "TransformerDecoderLayer")

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return a tensor of the shape of `tgt`; the masks are those of MultiheadAttention."""
        own = (tgt_mask, tgt_key_padding_mask, tgt_is_causal)
        other = (memory_mask, memory_key_padding_mask, memory_is_causal)

        def self_attend(x: Tensor) -> Tensor:
            return self.dropout1(self._attend(self.self_attn, x, x, *own))

        def cross_attend(x: Tensor) -> Tensor:
            return self.dropout2(self._attend(self.multihead_attn, x, memory, *other))

        x = tgt
        if self.norm_first:
            x = x + self_attend(self.norm1(x))
            x = x + cross_attend(self.norm2(x))
            return x + self.dropout3(self._feed_forward(self.norm3(x)))
        x = norm_of_sum(self.norm1, x, self_attend(x))
        x = norm_of_sum(self.norm2, x, cross_attend(x))
        return norm_of_sum(self.norm3, x, self.dropout3(self._feed_forward(x)))


def _copies(layer: Module, num_layers: int, name: str) -> ModuleList:
    (num_layers,) = sizes((num_layers,), name)
    if num_layers < 0:
        raise ArgumentError("num_layers must not be negative", operator=name, got=str(num_layers))
    return ModuleList(copy.deepcopy(layer) for _ in range(num_layers))


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
        self.layers = _copies(encoder_layer, num_layers, "TransformerEncoder")
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


class TransformerDecoder(Module):
    """A stack of `num_layers` copies of one decoder block, with an optional norm at the end."""

    def __init__(self, decoder_layer: Module, num_layers: int, norm: Module | None = None) -> None:
        super().__init__()
        self.layers = _copies(decoder_layer, num_layers, "TransformerDecoder")
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return a tensor of the shape of `tgt`; `memory` is what the encoder gave.

        `tgt_is_causal=None` looks whether `tgt_mask` is the causal one, which has a faster kernel.
        """
        if tgt_is_causal is None:
            tgt_is_causal = isinstance(tgt_mask, Tensor) and _is_causal(tgt_mask)
        output = tgt
        for layer in self.layers:
            output = layer(
                output,
                memory,
                tgt_mask=tgt_mask,
                memory_mask=memory_mask,
                tgt_key_padding_mask=tgt_key_padding_mask,
                memory_key_padding_mask=memory_key_padding_mask,
                tgt_is_causal=tgt_is_causal,
                memory_is_causal=memory_is_causal,
            )
        return output if self.norm is None else self.norm(output)


def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
    """Return the (sz, sz) additive mask with -inf above the diagonal, 0 elsewhere."""
    return ops.full((sz, sz), float("-inf"), device=device, dtype=dtype).triu(1)


class Transformer(Module):
    """Encoder and decoder: `src` is read, and `tgt` is continued from it.

    src: (S, N, E), tgt: (T, N, E) -> (T, N, E); (N, S, E) and so on with `batch_first`; both may
    lack the batch axis. `custom_encoder` and `custom_decoder` replace the stacks. Source:
    Vaswani et al., arXiv:1706.03762.
    """

    generate_square_subsequent_mask = staticmethod(generate_square_subsequent_mask)

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = ops.relu,
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        made = {"bias": bias, "device": device, "dtype": dtype}
        block = (d_model, nhead, dim_feedforward, dropout, activation)
        block += (layer_norm_eps, batch_first, norm_first)
        if custom_encoder is not None:
            self.encoder = custom_encoder
        else:
            self.encoder = TransformerEncoder(
                TransformerEncoderLayer(*block, **made),
                num_encoder_layers,
                LayerNorm(d_model, layer_norm_eps, **made),
            )
        if custom_decoder is not None:
            self.decoder = custom_decoder
        else:
            self.decoder = TransformerDecoder(
                TransformerDecoderLayer(*block, **made),
                num_decoder_layers,
                LayerNorm(d_model, layer_norm_eps, **made),
            )
        self._reset_parameters()
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def _reset_parameters(self) -> None:
        """Draw all matrices Xavier-uniform."""
        for param in self.parameters():
            if param.dim() > 1:
                init.xavier_uniform_(param)

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Return the decoder's output, of the shape of `tgt`."""
        batch = 0 if self.batch_first else 1
        shapes = (tuple(src.shape), tuple(tgt.shape))
        if src.dim() == 3 and tgt.dim() == 3 and shapes[0][batch] != shapes[1][batch]:
            rule = f"src and tgt must agree in axis {batch}, the batch"
        elif shapes[0][-1:] != (self.d_model,) or shapes[1][-1:] != (self.d_model,):
            rule = f"last axes must be {self.d_model}"
        else:
            rule = ""
        if rule:
            raise ShapeError(rule, operator="Transformer", got=f"src {shapes[0]}, tgt {shapes[1]}")
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder(
            tgt,
            memory,
            tgt_mask=tgt_mask,
            memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask,
            tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )


def _is_causal(mask: Tensor) -> bool:
    if mask.dim() != 2 or mask.shape[0] != mask.shape[1]:
        return False
    causal = generate_square_subsequent_mask(mask.shape[0], mask.device)
    if not mask.is_floating_point():
        causal = causal < 0
    return bool((mask == causal).all())


def _activation_named(activation: Any, name: str) -> Callable[..., Any]:
    if callable(activation):
        return activation
    if activation not in _ACTIVATIONS:
        raise ArgumentError(
            f"activation must be one of {sorted(_ACTIVATIONS)} or a function",
            operator=name,
            got=repr(activation),
        )
    return _ACTIVATIONS[activation]
