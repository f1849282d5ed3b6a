"""A causal Transformer language model in the shape of GPT-2."""

from __future__ import annotations

import math

import minidl.nn.functional as F
import minidl.ops as ops
from minidl import nn
from minidl.autograd import no_grad
from minidl.errors import ArgumentError, ShapeError
from minidl.tensor import Tensor

_GREEDY = 1e-6  # below, sampling is taking the likeliest token


class CausalSelfAttention(nn.Module):
    """Attention of every position to itself and those before it.

    x: (B, T, C) -> same.
    """

    def __init__(self, width: int, heads: int, dropout: float, bias: bool) -> None:
        super().__init__()
        if width % heads:
            raise ArgumentError(
                "width must be a multiple of heads",
                operator="CausalSelfAttention",
                got=f"width={width}, heads={heads}",
            )
        self.heads, self.dropout = heads, dropout
        self.c_attn = nn.Linear(width, 3 * width, bias=bias)
        self.c_proj = nn.Linear(width, width, bias=bias)
        self.resid_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended values after the output map."""
        batch, length, width = x.shape
        qkv = self.c_attn(x).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (B, heads, T, C / heads)
        dropout = self.dropout if self.training else 0.0
        heads = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)
        joined = heads.transpose(1, 2).reshape(batch, length, width)
        return self.resid_dropout(self.c_proj(joined))


class FeedForward(nn.Module):
    """Two linear maps, four times as wide in the middle, with a GELU between.

    x: (..., C) -> same.
    """

    def __init__(self, width: int, dropout: float, bias: bool, gelu: str) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width, bias=bias)
        self.gelu = nn.GELU(approximate=gelu)
        self.c_proj = nn.Linear(4 * width, width, bias=bias)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped values."""
        return self.dropout(self.c_proj(self.gelu(self.c_fc(x))))


class Block(nn.Module):
    """Attention, then the feed-forward part, each normalised before and added to its input.

    x: (B, T, C) -> same.
    """

    def __init__(self, width: int, heads: int, dropout: float, bias: bool, gelu: str) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, bias=bias)
        self.attn = CausalSelfAttention(width, heads, dropout, bias)
        self.ln_2 = nn.LayerNorm(width, bias=bias)
        self.mlp = FeedForward(width, dropout, bias, gelu)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Token and learned position embeddings, blocks, and an output map tied to the tokens'.

    ids: (B, T) int64, T <= context -> logits (B, T, vocab). Weights start at N(0, 0.02), those of
    the maps that write into the residual stream at 0.02 / sqrt(2 * layers). `gelu` is "none"
    (exact) or "tanh". Names of modules are GPT-2's. Source: Radford et al., "Language Models are
    Unsupervised Multitask Learners", 2019.
    """

    def __init__(
        self,
        vocab: int,
        context: int,
        layers: int,
        heads: int,
        width: int,
        dropout: float = 0.0,
        bias: bool = False,
        gelu: str = "none",
    ) -> None:
        super().__init__()
        sizes = {"vocab": vocab, "context": context, "layers": layers, "heads": heads}
        if min(sizes.values()) < 1:
            raise ArgumentError("sizes must be positive", operator="GPT", got=str(sizes))
        self.context = context
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(context, width)
        self.drop = nn.Dropout(dropout)
        self.h = nn.ModuleList(Block(width, heads, dropout, bias, gelu) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width, bias=bias)
        self.lm_head = nn.Linear(width, vocab, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, param in self.named_parameters():
            if param.dim() >= 2:
                residual = name.endswith("c_proj.weight")
                nn.init.normal_(param, 0.0, 0.02 / (math.sqrt(2 * layers) if residual else 1))
            elif name.endswith("bias"):
                nn.init.zeros_(param)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits of the next token at every position."""
        if ids.dim() != 2 or ids.shape[1] > self.context:
            raise ShapeError(
                f"ids must be (batch, length) with length <= {self.context}",
                operator="GPT",
                got=str(tuple(ids.shape)),
            )
        x = self.drop(self.wte(ids) + self.wpe(ops.arange(ids.shape[1], device=ids.device)))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))

    def loss(self, ids: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
        """Return the cross entropy of `targets`: (B, T) int64, in nats."""
        logits = self(ids)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)

    def generate(self, ids: Tensor, length: int, temperature: float = 1.0) -> Tensor:
        """Return `ids`: (B, T) followed by `length` sampled tokens: (B, T + length) int64.

        Every step reads the last `context` tokens again; there is no cache. Temperature 0, or one
        so small that the logits divided by it would overflow, takes the likeliest token.
        """
        if temperature < 0:
            raise ArgumentError(
                "temperature must not be negative", operator="GPT", got=str(temperature)
            )
        if ids.dim() != 2 or not ids.shape[1]:
            raise ShapeError(
                "ids must be (batch, length) with a token to start from",
                operator="GPT",
                got=str(tuple(ids.shape)),
            )
        was_training = self.training
        self.eval()
        with no_grad():
            for _ in range(length):
                logits = self(ids[:, -self.context :])[:, -1]
                if temperature < _GREEDY:
                    token = logits.argmax(-1, keepdim=True)
                else:
                    token = ops.multinomial(F.softmax(logits / temperature, dim=-1), 1)
                ids = ops.cat([ids, token], 1)
        self.train(was_training)
        return ids

    def decay_groups(self, weight_decay: float) -> list[dict]:
        """Parameter groups for an optimiser that decays matrices and no vectors."""
        params = list(self.parameters())
        matrices = [p for p in params if p.dim() >= 2]
        vectors = [p for p in params if p.dim() < 2]
        return [
            {"params": matrices, "weight_decay": weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
