"""Matrix products: squares, odd and Transformer shapes, transposed operands, batches, few rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

import minidl
from benchmarks.harness import Row

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
    return Row(name, lambda: x @ y, rivals, work, size, bar=0.97, written=written)


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
