"""The models of the training rows, for any library with PyTorch's names, and one step of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

VOCABULARY = 65


@dataclass
class Job:
    """A model, its data, and what a step of it is.

    operations: of the matrix products and attention of a step, forward and backward, that the
    losses and gradients need at the least.
    """

    name: str
    model: Callable[[Any], Any]
    optimizer: str
    loss: str
    data: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]]
    operations: float
    bar: float
    share_bar: float = 0.0
    jax: tuple[str, int] = ("", 0)  # the model's name in jax_side.py, and its heads


def build(job: Job, library: Any, weights: Any = None) -> Callable[[], float]:
    """One training step of the job as a function that returns the loss."""
    net = job.model(library)
    if weights is not None:
        net.load_state_dict({key: library.tensor(value) for key, value in weights.items()})
    return train(job, library, net, net)


def train(job: Job, library: Any, net: Any, called: Any) -> Callable[[], float]:
    """Steps of `net`; `called` is what computes it, which a compiler may have made of it."""
    optimizer = getattr(library.optim, job.optimizer)(net.parameters(), lr=1e-3)
    loss = getattr(library.nn.functional, job.loss)
    inputs, targets = (library.tensor(array) for array in job.data(np.random.default_rng(0)))

    def step() -> float:
        optimizer.zero_grad()
        value = loss(called(inputs), targets)
        value.backward()
        optimizer.step()
        return value.item()

    return step


def products(rows: int, *layers: tuple[int, int], first: bool = False) -> float:
    """Operations of linear layers (in, out): forward, gradients of inputs and of weights.

    first: the first layer's input needs no gradient.
    """
    sizes = [n * m for n, m in layers]
    return 6.0 * rows * sum(sizes) - (2.0 * rows * sizes[0] if first else 0.0)


def attended(batch: int, heads: int, length: int, size: int, causal: bool) -> float:
    """Operations of attention, forward and backward: 2 products and 5."""
    return 7 * 2.0 * batch * heads * length * length * size * (0.5 if causal else 1.0)


# ---------------------------------------------------------------- the models


def mlp(library: Any) -> Any:
    """784-512-256-10 with ReLU."""
    nn = library.nn
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def small(library: Any) -> Any:
    """64-64-1 with a sigmoid."""
    nn = library.nn
    return nn.Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 1))


def gpt(library: Any, layers: int, heads: int, width: int, length: int) -> Any:
    """A causal Transformer over characters."""
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


def encoder(library: Any) -> Any:
    """A Transformer encoder of two layers that classifies."""
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


# ---------------------------------------------------------------- their data and sizes


def _digits(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.standard_normal((128, 784)).astype("f4"), rng.integers(0, 10, 128)


def _points(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((32, 64)).astype("f4")
    return x, rng.integers(0, 2, (32, 1)).astype("f4")


def _words(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, 1000, (32, 64)), rng.integers(0, 4, 32)


def _gpt(layers: int, heads: int, width: int, length: int, batch: int, bar: float, share: float):
    def text(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        tokens = rng.integers(0, VOCABULARY, (batch, length + 1))
        return tokens[:, :-1].copy(), tokens[:, 1:].reshape(-1)

    c, rows = width, batch * length
    block = products(rows, (c, 3 * c), (c, c), (c, 4 * c), (4 * c, c))
    block += attended(batch, heads, length, c // heads, causal=True)
    return Job(
        f"GPT {layers} x {width}, T {length}, batch {batch}, AdamW",
        lambda library: gpt(library, layers, heads, width, length),
        "AdamW",
        "cross_entropy",
        text,
        layers * block + products(rows, (c, VOCABULARY)),
        bar,
        share,
        ("gpt", heads),
    )


def small_gpt() -> Job:
    """A Transformer of two layers at T 256, beside the five models of the bars."""
    return _gpt(2, 4, 128, 256, 4, 1.5, 0.0)


def jobs() -> list[Job]:
    """The five models of the bars."""
    layer = products(32 * 64, (128, 384), (128, 128), (128, 512), (512, 128))
    layer += attended(32, 4, 64, 32, causal=False)
    return [
        Job("MLP 784-512-256-10, batch 128, Adam", mlp, "Adam", "cross_entropy", _digits,
            products(128, (784, 512), (512, 256), (256, 10), first=True), 1.8, jax=("mlp", 0)),
        Job("MLP 64-64-1 BCE, batch 32, Adam", small, "Adam", "binary_cross_entropy_with_logits",
            _points, products(32, (64, 64), (64, 1), first=True), 4.0, jax=("small", 0)),
        _gpt(4, 4, 128, 64, 12, 1.6, 0.0),
        _gpt(6, 6, 384, 256, 8, 1.25, 0.65),
        Job("encoder 2 x 128, T 64, batch 32, AdamW", encoder, "AdamW", "cross_entropy", _words,
            2 * layer + products(32, (128, 4)), 1.5, jax=("encoder", 4)),
    ]  # fmt: skip
