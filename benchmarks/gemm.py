"""Matrix products: squares, odd and Transformer shapes, transposed operands, batches, few rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional

import minidl
from benchmarks.harness import Row
from minidl.backends import local

rng = np.random.default_rng(0)


def _square(n: int) -> Row:
    """A square, whose bars depend on what it is limited by: calls, or operations."""
    row = _row(f"{n}^3", n, n, n)
    if n >= 256:
        row.bar, row.share_bar = 1.05, 0.88
    if n <= 64:
        row.bars = {"torch": 1.3, "numpy": 1.1 if n <= 32 else 0.97}
    return row


def _row(name: str, m: int, n: int, k: int, layout: str = "NN", batch: int = 0) -> Row:
    lead = (batch,) if batch else ()
    shapes = [(k, m) if layout[0] == "T" else (m, k), (n, k) if layout[1] == "T" else (k, n)]
    a, b = (rng.standard_normal((*lead, *shape)).astype(np.float32) for shape in shapes)
    a = a.swapaxes(-1, -2) if layout[0] == "T" else a
    b = b.swapaxes(-1, -2) if layout[1] == "T" else b
    x, y = minidl.from_dlpack(a), minidl.from_dlpack(b)
    u, v = torch.from_numpy(a), torch.from_numpy(b)
    rivals = {"torch": lambda: u @ v, "numpy": lambda: a @ b}
    work = 2.0 * max(1, batch) * m * n * k
    size = 4.0 * max(1, batch) * (m * n + m * k + k * n)
    written = m * n / (m * n + m * k + k * n)
    jax = ("matmul", *((*lead, *shape) for shape in shapes), layout)
    return Row(name, lambda: x @ y, rivals, work, size, bar=0.97, written=written, jax=jax)


ACTIVATIONS = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
}


def _layer(m: int, n: int, k: int, bar: float) -> Row:
    """A layer for few rows, as in inference: its weight is the same from call to call."""
    ours, theirs = minidl.nn.Linear(k, n), torch.nn.Linear(k, n)
    array = rng.standard_normal((m, k)).astype(np.float32)
    x, u = minidl.from_dlpack(array), torch.from_numpy(array)
    weight, bias = ours.weight.detach(), ours.bias.detach()
    w, b = theirs.weight.detach(), theirs.bias.detach()
    linear = minidl.nn.functional.linear
    return Row(
        f"linear {m}x{n}x{k}",
        lambda: linear(x, weight, bias),
        {"torch": lambda: functional.linear(u, w, b)},
        2.0 * m * n * k, 4.0 * (m * k + n * k + m * n), bar=bar,
        written=m * n / (m * k + n * k + m * n),
    )  # fmt: skip


def _linear(m: int, n: int, k: int, activation: str, keep: bool) -> Row:
    """A linear map with its activation, whose input is kept for a gradient or not."""
    shapes = ((m, k), (n, k), (n,))
    x, weight, bias = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    u, v, w = (torch.from_numpy(array) for array in (x, weight, bias))
    table: Any = local.state.cpu
    ours, theirs = table.linear, ACTIVATIONS[activation]
    size = 4.0 * (m * k + n * k + m * n * (2 if keep else 1))
    return Row(
        f"linear+{activation} {m}x{n}x{k}{' kept' if keep else ''}",
        lambda: ours(x, weight, bias, activation, keep),
        {"torch": lambda: theirs(functional.linear(u, v, w))},
        2.0 * m * n * k, size, bar=1.05, written=0.5,
    )  # fmt: skip


def rows() -> Iterator[Row]:
    """Every row, smallest first."""
    for n in (16, 32, 64, 128, 256, 512, 1024, 2048):
        yield _square(n)
    for layout in ("NT", "TN", "TT"):
        for n in (64, 256, 1024):
            yield _row(f"{n}^3 {layout}", n, n, n, layout)
    for n in (17, 33, 63, 65, 100, 127, 200, 257, 500, 777):
        yield _row(f"{n}^3", n, n, n)
    for m, n, k in (
        (768, 128, 128), (768, 512, 128), (768, 128, 512), (2048, 1536, 384), (2048, 384, 1536),
        (128, 512, 784), (128, 256, 512), (128, 10, 256), (512, 784, 128), (32, 64, 64),
    ):  # fmt: skip
        yield _row(f"{m}x{n}x{k} NT", m, n, k, "NT")
    for m in (1, 2, 4, 8):
        yield _row(f"{m}x2048x2048 NT", m, 2048, 2048, "NT")
        yield _row(f"{m}x2048x2048", m, 2048, 2048)
    yield _row("64 x 64^3", 64, 64, 64, batch=64)
    yield _row("48 x 256x64x256", 256, 64, 256, batch=48)
    for activation in ACTIVATIONS:
        yield _linear(512, 2048, 512, activation, False)
        yield _linear(768, 512, 128, activation, activation != "relu")
    yield _linear(128, 512, 784, "relu", False)
    yield _layer(8, 64, 64, 2.0)
    for m in (1, 2, 4, 8, 16):
        yield _layer(m, 768, 768, 1.0)
    yield _layer(8, 2048, 2048, 1.0)
