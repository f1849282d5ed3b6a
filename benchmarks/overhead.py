"""What an operator costs beside its kernel: a recorded call, a backward node, calls of small size.

Budgets: a recorded operator at most 1.5 us over its kernel, a backward node 2 us over its
operators; an add of 16 floats takes at most torch's time, `linear` 8x64x64 half of it.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.harness import Row
from minidl.autograd import no_grad
from minidl.ops import add, linear, mul
from minidl.tensor import Tensor

CHAIN = 200


def _ones(*shape: int) -> tuple[np.ndarray, Tensor, torch.Tensor]:
    array = np.ones(shape, np.float32)
    return array, Tensor(array.copy()), torch.ones(shape)


def rows() -> Iterator[Row]:
    """Every row; the rival of a difference is the part that it contains."""
    (s, ours, theirs), (_, inputs, input_t) = _ones(16), _ones(8, 64)
    (_, weight, weight_t), (_, bias, bias_t) = _ones(64, 64), _ones(64)
    rivals = {"torch": lambda: torch.add(theirs, theirs), "numpy": lambda: np.add(s, s)}
    yield Row("add 16 floats", lambda: add(ours, ours), rivals, bars={"torch": 1.0})
    yield Row(
        "linear 8x64x64",
        lambda: linear(inputs, weight, bias),
        {"torch": lambda: torch.nn.functional.linear(input_t, weight_t, bias_t)},
        2.0 * 8 * 64 * 64,
        bars={"torch": 2.0},
    )

    (a, y, y_t), (_, plain, plain_t) = _ones(8, 8), _ones(8, 8)
    x, x_t = plain.detach().requires_grad_(), plain_t.clone().requires_grad_()
    kernel = {"np.multiply": lambda: np.multiply(a, a)}
    yield Row("mul 8x8, not recorded", lambda: mul(plain, y), kernel, over=1.5e-6)
    yield Row("mul 8x8, recorded", lambda: mul(x, y), kernel, over=1.5e-6)
    yield Row("mul 8x8, recorded", lambda: mul(x, y), {"torch": lambda: torch.mul(x_t, y_t)})

    def chain() -> Tensor:
        h = x
        for _ in range(CHAIN):
            h = mul(h, y)
        return h

    def backward() -> None:
        chain().backward(y)
        x.grad = None

    def backward_torch() -> None:
        h = x_t
        for _ in range(CHAIN):
            h = torch.mul(h, y_t)
        h.backward(y_t)
        x_t.grad = None

    def parts() -> None:
        """The forward, and the operators of the backward: one multiplication per node."""
        chain()
        with no_grad():
            for _ in range(CHAIN):
                mul(plain, y)

    gc.collect()
    inside = {"its operators": parts}
    yield Row("backward node of mul 8x8", backward, inside, over=2e-6, per=CHAIN)
    yield Row("node, forward and backward", backward, {"torch": backward_torch}, per=CHAIN)
