"""Scaled dot-product attention, forward and with backward."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as theirs

import minidl
from benchmarks.harness import Row
from minidl.nn import functional as ours

rng = np.random.default_rng(0)


def _call(attention: Any, inputs: list[Any], causal: bool, backward: bool) -> Any:
    def run() -> None:
        out = attention(*inputs, is_causal=causal)
        if backward:
            out.sum().backward()
            for x in inputs:
                x.grad = None

    return run


def _row(b: int, h: int, t: int, d: int, causal: bool, backward: bool, bar: float) -> Row:
    arrays = [rng.standard_normal((b, h, t, d)).astype(np.float32) for _ in range(3)]
    x = [minidl.tensor(a).requires_grad_(backward) for a in arrays]
    y = [torch.tensor(a).requires_grad_(backward) for a in arrays]
    work = 4.0 * b * h * t * t * d * (3.5 if backward else 1.0) * (0.5 if causal else 1.0)
    name = f"({b},{h},{t},{d}) {'causal' if causal else 'full'}{' + backward' if backward else ''}"
    rivals = {"torch": _call(theirs.scaled_dot_product_attention, y, causal, backward)}
    mine = _call(ours.scaled_dot_product_attention, x, causal, backward)
    # q, k, v, the result; with backward all are read again, the result twice, and 3 are written
    arrays_moved = 12 if backward else 4
    return Row(
        name,
        mine,
        rivals,
        work,
        4.0 * arrays_moved * b * h * t * d,
        bar=bar,
        written=4 / 12 if backward else 1 / 4,
        share_bar=0.6 if d == 64 else 0.0,
        jax=("attention", b, h, t, t, d, causal, backward),
    )


def _decoding(b: int, h: int, queries: int, keys: int, d: int) -> Row:
    shapes = ((b, h, n, d) for n in (queries, keys, keys))
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    x, y = [minidl.tensor(a) for a in arrays], [torch.tensor(a) for a in arrays]
    return Row(
        f"({b},{h},{queries} of {keys},{d})",
        _call(ours.scaled_dot_product_attention, x, False, False),
        {"torch": _call(theirs.scaled_dot_product_attention, y, False, False)},
        operations=4.0 * b * h * queries * keys * d,
        bytes=8.0 * b * h * keys * d,
        written=0.0,
        bar=1.0,
        share_bar=0.8,
        jax=("attention", b, h, queries, keys, d, False, False),
    )


def rows() -> Iterator[Row]:
    """The shapes of the bars, and those of decoding, whose limit is to read the keys and values."""
    for shape, causal_bar, backward_bar in (
        ((4, 8, 256, 64), 1.6, 1.9),
        ((1, 12, 1024, 64), 1.6, 1.4),
        ((12, 4, 64, 32), 0.0, 2.0),
        ((8, 6, 256, 64), 1.6, 0.0),
    ):
        yield _row(*shape, causal=False, backward=False, bar=1.1)
        yield _row(*shape, causal=True, backward=False, bar=causal_bar)
        yield _row(*shape, causal=False, backward=True, bar=0.0)
        yield _row(*shape, causal=True, backward=True, bar=backward_bar)
    for queries in (1, 4, 8):
        yield _decoding(4, 12, queries, 8192, 64)
