"""Fused operators, elementwise functions, reductions: forward, and with backward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.nn import functional as theirs

import minidl
from benchmarks.harness import Row
from minidl.nn import functional as ours
from minidl.ops.norm import add_layer_norm

rng = np.random.default_rng(0)
ROWS, WIDTH = 4096, 768


def _both(*shape: int, grad: bool = False, dtype: str = "float32") -> tuple[Any, Any]:
    array = rng.standard_normal(shape).astype(np.float32)
    pair = (minidl.tensor(array).to(getattr(minidl, dtype)), torch.tensor(array))
    pair = pair[0], pair[1].to(getattr(torch, dtype))
    return pair[0].requires_grad_(grad), pair[1].requires_grad_(grad)


def _backward(function: Callable[..., Any], inputs: list[Any]) -> Callable[[], None]:
    def run() -> None:
        out = function(*inputs)
        (out if out.ndim == 0 else out.sum()).backward()
        for x in inputs:
            x.grad = None

    return run


def _row(
    name: str,
    call: Callable[..., Any],
    shapes: list[tuple[int, ...]],
    bar: float,
    dtype: str = "float32",
) -> Row:
    """call(functional, *inputs), forward only."""
    pairs = [_both(*shape, dtype=dtype) for shape in shapes]
    x, y = [p[0] for p in pairs], [p[1] for p in pairs]
    size = 2.0 * x[0].element_size() * float(np.prod(shapes[0]))
    jax = ("function", name, shapes, dtype, False)
    rivals = {"torch": lambda: call(theirs, *y)}
    return Row(name, lambda: call(ours, *x), rivals, 0, size, bar, jax=jax)


def _trained(
    name: str,
    call: Callable[..., Any],
    shapes: list[tuple[int, ...]],
    bar: float,
    size: float = 0.0,
    written: float = 2 / 5,
) -> Row:
    """With backward: unless `size` says otherwise 3 reads (of the input twice) and 2 writes."""
    pairs = [_both(*shape, grad=True) for shape in shapes]
    mine = _backward(lambda *x: call(ours, *x), [p[0] for p in pairs])
    rival = _backward(lambda *x: call(theirs, *x), [p[1] for p in pairs])
    jax = ("function", name, shapes, "float32", True)
    size = size or 5 * 4.0 * float(np.prod(shapes[0]))
    rivals = {"torch": rival}
    return Row(f"{name} + backward", mine, rivals, 0, size, bar, written=written, jax=jax)


def _of_sum(f: Any, x: Any, y: Any, w: Any, b: Any) -> Any:
    if f is ours:
        return add_layer_norm(x, y, (WIDTH,), w, b)
    return f.layer_norm(x + y, (WIDTH,), w, b)


def rows() -> Iterator[Row]:
    """Every row."""
    x, w = (ROWS, WIDTH), (WIDTH,)
    fused: list[tuple[str, Callable[..., Any], list[tuple[int, ...]], float, float]] = [
        ("softmax", lambda f, x: f.softmax(x, -1), [x], 0.97, 1.3),
        ("log_softmax", lambda f, x: f.log_softmax(x, -1), [x], 0.97, 0.97),
        ("layer_norm", lambda f, x, w, b: f.layer_norm(x, (WIDTH,), w, b), [x, w, w], 0.97, 1.3),
        ("residual + layer_norm", _of_sum, [x, x, w, w], 0.97, 1.3),
        ("rms_norm", lambda f, x, w: f.rms_norm(x, (WIDTH,), w), [x, w], 0.97, 1.3),
        ("gelu tanh", lambda f, x: f.gelu(x, approximate="tanh"), [x], 4.0, 4.0),
        ("gelu erf", lambda f, x: f.gelu(x), [x], 0.97, 1.5),
        ("silu", lambda f, x: f.silu(x), [x], 0.97, 0.97),
    ]
    for name, call, shapes, bar, backward_bar in fused:
        yield _row(name, call, shapes, bar)
        yield _trained(name, call, shapes, backward_bar)
    yield _row("dropout", lambda f, x: f.dropout(x, 0.1), [x], 0.97)
    yield _trained("dropout", lambda f, x: f.dropout(x, 0.1), [x], 0.97)
    target = rng.integers(0, 8192, 1024)
    classes = {ours: minidl.tensor(target), theirs: torch.tensor(target)}
    yield _trained(
        "cross_entropy 1024x8192",
        lambda f, x: f.cross_entropy(x, classes[f]),
        [(1024, 8192)],
        5.0,
        size=2 * 4.0 * 1024 * 8192,
        written=1 / 2,
    )
    index = rng.integers(0, 32000, 4096)
    looked_up = {ours: minidl.tensor(index), theirs: torch.tensor(index)}
    yield _trained(
        "embedding 4096 of 32000x256",
        lambda f, w: f.embedding(looked_up[f], w),
        [(32000, 256)],
        3.0,
        size=4.0 * 256 * (4 * 4096 + 32000),  # 3 reads and a write of rows, and the gradient
        written=(4096 + 32000) / (4 * 4096 + 32000),
    )
    yield _embedding_backward(index)
    yield from _elements()


def _embedding_backward(index: Any) -> Row:
    """The gradient of a look-up alone, dense as it is by default."""
    mine, rival = _both(32000, 256, grad=True)
    g, theirs_g = _both(len(index), 256)
    out = ours.embedding(minidl.tensor(index), mine)
    other = theirs.embedding(torch.tensor(index), rival)
    return Row(
        "embedding backward alone",
        lambda: minidl.autograd.grad(out, mine, g, retain_graph=True),
        {"torch": lambda: torch.autograd.grad(other, rival, theirs_g, retain_graph=True)},
        bytes=4.0 * (32000 + len(index)) * 256,
        written=32000 / (32000 + len(index)),
        bar=3.0,
    )


# name: call(module, x (n, m), y (n, m), row (m), column (n, 1))
ELEMENTS: dict[str, Callable[..., Any]] = {
    "add": lambda m, x, y, r, c: x + y,
    "sub": lambda m, x, y, r, c: x - y,
    "mul": lambda m, x, y, r, c: x * y,
    "div": lambda m, x, y, r, c: x / y,
    "mul by a number": lambda m, x, y, r, c: x * 2.0,
    "add of a row": lambda m, x, y, r, c: x + r,
    "mul by a column": lambda m, x, y, r, c: x * c,
    "neg": lambda m, x, y, r, c: -x,
    "abs": lambda m, x, y, r, c: x.abs(),
    "maximum": lambda m, x, y, r, c: m.maximum(x, y),
    "square": lambda m, x, y, r, c: m.square(x),
    "cube": lambda m, x, y, r, c: x**3,
    "sqrt": lambda m, x, y, r, c: x.abs().sqrt(),
    "rsqrt": lambda m, x, y, r, c: x.rsqrt(),
    "clamp": lambda m, x, y, r, c: x.clamp(-1.0, 1.0),
    "greater": lambda m, x, y, r, c: x > y,
    "equal to a number": lambda m, x, y, r, c: x == 0.0,
    "where": lambda m, x, y, r, c: m.where(x > 0, x, y),
    "masked_fill": lambda m, x, y, r, c: x.masked_fill(x > 0, -1e9),
    "relu": lambda m, x, y, r, c: x.relu(),
    "exp": lambda m, x, y, r, c: x.exp(),
    "log": lambda m, x, y, r, c: x.log(),
    "tanh": lambda m, x, y, r, c: x.tanh(),
    "sigmoid": lambda m, x, y, r, c: x.sigmoid(),
    "cast": lambda m, x, y, r, c: x.to(m.bfloat16 if x.dtype == m.float32 else m.float32),
    "cat": lambda m, x, y, r, c: m.cat([x, y], 1),
    "copy of a transpose": lambda m, x, y, r, c: x.t().contiguous(),
}
# the same, whose result is small
REDUCTIONS: dict[str, Callable[..., Any]] = {
    "sum": lambda m, x, y, r, c: x.sum(),
    "sum over rows": lambda m, x, y, r, c: x.sum(0),
    "sum of rows": lambda m, x, y, r, c: x.sum(1),
    "mean of rows": lambda m, x, y, r, c: x.mean(-1),
    "var of rows": lambda m, x, y, r, c: x.var(-1),
    "amax": lambda m, x, y, r, c: x.amax(),
    "amax over rows": lambda m, x, y, r, c: x.amax(0),
    "amax of rows": lambda m, x, y, r, c: x.amax(1),
}
SIZES = {
    "float32": ((128, 128), (1024, 1024), (4096, 4096)),
    "bfloat16": ((128, 256), (1024, 2048), (4096, 8192)),
}


def _elements() -> Iterator[Row]:
    """Elementwise functions, broadcasting and reductions from 64 KB to 64 MB."""
    for dtype, sizes in SIZES.items():
        for name, call in (ELEMENTS | REDUCTIONS).items():
            for n, m in sizes:
                label = f"{name} {n}x{m}" if dtype == "float32" else f"{name} {dtype} {n}x{m}"
                row = _row(label, _by_library(call), [(n, m), (n, m), (m,), (n, 1)], 0.97, dtype)
                if name in REDUCTIONS:
                    row.bytes, row.written = row.bytes / 2, 0.0
                yield row


def _by_library(call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda f, *tensors: call(minidl if f is ours else torch, *tensors)
