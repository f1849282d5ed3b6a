"""Whole training steps, eager against eager, from the same weights on the same batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

import minidl
from benchmarks.harness import Row

rng = np.random.default_rng(0)
VOCABULARY = 65


def _mlp(nn: Any) -> Any:
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def _small(nn: Any) -> Any:
    return nn.Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 1))


def _gpt(library: Any, layers: int, heads: int, width: int, length: int) -> Any:
    nn, functional = library.nn, library.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, c = x.shape
            parts = self.qkv(self.norm1(x)).split(c, dim=2)
            q, k, v = (p.view(b, t, heads, c // heads).transpose(1, 2) for p in parts)
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(VOCABULARY, width)
            self.positions = nn.Embedding(length, width)
            self.blocks = nn.Sequential(*[Block() for _ in range(layers)])
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, VOCABULARY, bias=False)

        def forward(self, index: Any) -> Any:
            x = self.tokens(index) + self.positions(library.arange(index.shape[1]))
            return self.head(self.norm(self.blocks(x))).view(-1, VOCABULARY)

    return GPT()


def _encoder(library: Any) -> Any:
    nn = library.nn

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(1000, 128)
            layer = nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(128, 4)

        def forward(self, index: Any) -> Any:
            return self.head(self.encoder(self.tokens(index)).mean(1))

    return Classifier()


def _step(model: Any, optimizer: Any, loss: Callable[..., Any], batch: Any) -> Callable[[], float]:
    def step() -> float:
        optimizer.zero_grad()
        value = loss(model(batch[0]), batch[1])
        value.backward()
        optimizer.step()
        return value.item()

    return step


def _row(name: str, model: Any, optimizer: str, loss: str, batch: Any, bar: float) -> Row:
    torch.manual_seed(0)
    theirs, ours = model(torch), model(minidl)
    state = theirs.state_dict()
    ours.load_state_dict({key: minidl.tensor(value.numpy()) for key, value in state.items()})
    steps = []
    for library, net in ((minidl, ours), (torch, theirs)):
        made = getattr(library.optim, optimizer)(net.parameters(), lr=1e-3)
        data = [library.tensor(array) for array in batch]
        steps.append(_step(net, made, getattr(library.nn.functional, loss), data))
    for _ in range(20):
        a, b = steps[0](), steps[1]()
        if abs(a - b) > 1e-4:
            raise SystemExit(f"{name}: the losses differ: {a} and {b}")
    return Row(name, steps[0], {"torch": steps[1]}, bar=bar)


def rows() -> Iterator[Row]:
    """The five models of the bars."""
    images, digits = rng.standard_normal((128, 784)).astype("f4"), rng.integers(0, 10, 128)
    yield _row("MLP 784-512-256-10, batch 128, Adam", lambda lib: _mlp(lib.nn), "Adam",
               "cross_entropy", (images, digits), 1.8)  # fmt: skip
    points, labels = rng.standard_normal((32, 64)).astype("f4"), rng.integers(0, 2, (32, 1))
    yield _row("MLP 64-64-1 BCE, batch 32, Adam", lambda lib: _small(lib.nn), "Adam",
               "binary_cross_entropy_with_logits", (points, labels.astype("f4")), 4.0)  # fmt: skip
    for layers, heads, width, length, batch, bar in (
        (4, 4, 128, 64, 12, 1.6),
        (6, 6, 384, 256, 8, 1.25),
    ):
        tokens = rng.integers(0, VOCABULARY, (batch, length + 1))
        yield _row(
            f"GPT {layers} x {width}, T {length}, batch {batch}, AdamW",
            lambda lib, sizes=(layers, heads, width, length): _gpt(lib, *sizes),
            "AdamW", "cross_entropy", (tokens[:, :-1].copy(), tokens[:, 1:].reshape(-1)), bar,
        )  # fmt: skip
    words, kinds = rng.integers(0, 1000, (32, 64)), rng.integers(0, 4, 32)
    yield _row("encoder 2 x 128, T 64, batch 32, AdamW", _encoder, "AdamW", "cross_entropy",
               (words, kinds), 1.5)  # fmt: skip
