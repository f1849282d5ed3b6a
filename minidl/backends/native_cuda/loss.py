"""Cross entropy of classes, its gradient, both in place; binary cross entropy of logits.

Of 16-bit inputs, losses, log-sum-exp and total are float32: the operator rounds what it reduced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.host import refuse
from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import BUSY, KINDS, Family, pointer, rows_plan
from minidl.backends.reference.loss import NoClass

_kernels = Family("loss")
# so many targets one block adds up as fast as two launches would
_ROWS_OF_ONE_BLOCK = 1 << 16
_MOST_BLOCKS = 1 << 22  # of elements: their threads are counted in 32 bits


def _wide(dtype: np.dtype) -> np.dtype:
    """What a kernel on this dtype computes in."""
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _as(x: Any, dtype: Any) -> Any:
    """The array in this dtype, C-contiguous; itself if it is."""
    return cp.ascontiguousarray(x.astype(dtype, copy=False))


# ---------------------------------------------------------------- classes


class _Classes:
    """The operands of a cross entropy, as kernels take them."""

    def __init__(
        self, logits: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
    ) -> None:
        self.kind, self.wide = KINDS[logits.dtype], _wide(logits.dtype)
        self.logits = cp.ascontiguousarray(logits)
        self.target = _as(target, np.int64)
        self.weight = None if weight is None else _as(weight, logits.dtype)
        self.ignored, self.smoothing = int(ignore_index), float(label_smoothing)
        self.weights_sum = None
        if self.weight is not None and self.smoothing:
            self.weights_sum = cp.sum(self.weight.astype(self.wide, copy=False))

    def start(self, name: str, keep: bool, g: Any, lse: Any, losses: Any, out: Any) -> None:
        """Start a kernel with a team of threads for each row."""
        rows, classes = self.logits.shape
        blocks, threads, group, shared = rows_plan(rows, classes, self.logits.itemsize)
        shared = shared if keep else 0
        given = g is not None
        _kernels.start(
            f"{name}_{self.kind}",
            blocks,
            threads,
            shared,
            pointer(self.logits),
            pointer(self.target),
            pointer(self.weight),
            pointer(self.weights_sum),
            pointer(g),
            pointer(lse) if given else 0,
            pointer(losses),
            0 if given else pointer(lse),
            pointer(out),
            rows,
            classes,
            self.ignored,
            1 if given and g.size > 1 else 0,
            group,
            shared,
            self.smoothing,
            self.smoothing / classes,
        )

    def total(self) -> Any:
        """The weights of the targets that count, added up; refuses other targets."""
        rows, classes = self.logits.shape
        blocks = 1 if rows <= _ROWS_OF_ONE_BLOCK else min(BUSY, -(-rows // 4096))
        total, bad = cp.empty((), self.wide), cp.empty(blocks, np.bool_)
        parts = cp.empty(blocks, np.float64) if blocks > 1 else None
        sizes = rows, classes, self.ignored, blocks
        places = pointer(self.target), pointer(self.weight), pointer(parts), pointer(total)
        name = f"cross_entropy_total_{self.kind}"
        _kernels.start(name, blocks, 512, 0, *places, pointer(bad), *sizes)
        if parts is not None:
            name = f"cross_entropy_total_of_blocks_{KINDS[self.wide]}"
            places = 0, 0, pointer(parts), pointer(total)
            _kernels.start(name, 1, 512, 0, *places, 0, *sizes)
        refuse(bad, NoClass(classes, self.ignored))
        return total


def _cross_entropy(below: Callable) -> Callable:
    def entry(
        logits: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
    ) -> tuple[Any, Any, Any]:
        if not logits.size:
            logits = logits.astype(_wide(logits.dtype), copy=False)
        if logits.dtype not in KINDS or not logits.size:
            return below(logits, target, weight, ignore_index, label_smoothing)
        call = _Classes(logits, target, weight, ignore_index, label_smoothing)
        losses, lse = (cp.empty(len(logits), call.wide) for _ in range(2))
        call.start("cross_entropy", call.smoothing != 0, None, lse, losses, None)
        return losses, lse, call.total()

    return entry


def _cross_entropy_backward(below: Callable) -> Callable:
    def entry(
        g: Any,
        logits: Any,
        target: Any,
        weight: Any,
        ignore_index: int,
        label_smoothing: float,
        lse: Any,
    ) -> Any:
        if logits.dtype not in KINDS:
            return below(g, logits, target, weight, ignore_index, label_smoothing, lse)
        dx = cp.empty(logits.shape, logits.dtype)
        if dx.size:
            call = _Classes(logits, target, weight, ignore_index, label_smoothing)
            g, lse = _as(g, call.wide), _as(lse, call.wide)
            call.start("cross_entropy_backward", False, g, lse, None, dx)
        return dx

    return entry


def _cross_entropy_in_place(below: Callable) -> Callable:
    def entry(
        logits: Any, target: Any, weight: Any, ignore_index: int, label_smoothing: float
    ) -> tuple[Any, Any, Any]:
        if not logits.size:
            logits = logits.astype(_wide(logits.dtype), copy=False)
        if logits.dtype not in KINDS or not logits.size:
            return below(logits, target, weight, ignore_index, label_smoothing)
        call = _Classes(logits, target, weight, ignore_index, label_smoothing)
        losses, lse = (cp.empty(len(logits), call.wide) for _ in range(2))
        call.start("cross_entropy_in_place", True, None, lse, losses, None)
        if not logits.flags.c_contiguous:
            logits[...] = call.logits
        return losses, lse, call.total()

    return entry


# ---------------------------------------------------------------- binary


def _repeated(x: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, int]:
    """An operand that broadcasts to `shape`, and after how many elements it repeats."""
    if x is None:
        return None, 0
    if all(not step or n == 1 for step, n in zip(x.strides, x.shape, strict=True)):
        x = x[(0,) * x.ndim]  # one number for all
    own = x.shape
    while own and own[0] == 1:
        own = own[1:]
    if own != shape[len(shape) - len(own) :]:
        x = cp.broadcast_to(x, shape)
    return _as(x, dtype), x.size


def _start_binary(name: str, x: Any, target: Any, g: Any, weight: Any, positive: Any) -> Any:
    backward = g is not None
    out = cp.empty(x.shape, x.dtype if backward else _wide(x.dtype))
    if not out.size:
        return out
    kind, shape = KINDS[x.dtype], x.shape
    factors = [_repeated(factor, shape, x.dtype) for factor in (weight, positive, g)]
    x, target = (cp.ascontiguousarray(operand) for operand in (x, target))
    places = [pointer(array) for array, _ in factors]
    periods = [period for _, period in factors]
    blocks = min(_MOST_BLOCKS, -(-out.size // (256 * (16 // x.itemsize))))
    given = pointer(x), pointer(target), *places, pointer(out), out.size, *periods
    _kernels.start(f"{name}_{kind}", blocks, 256, 0, *given)
    return out


def _binary_cross_entropy(below: Callable) -> Callable:
    def entry(x: Any, target: Any, weight: Any, pos_weight: Any) -> Any:
        if x.dtype not in KINDS or target.dtype != x.dtype:
            return below(x, target, weight, pos_weight)
        return _start_binary("binary_cross_entropy", x, target, None, weight, pos_weight)

    return entry


def _binary_cross_entropy_backward(below: Callable) -> Callable:
    def entry(g: Any, x: Any, target: Any, weight: Any, pos_weight: Any) -> Any:
        if x.dtype not in KINDS or target.dtype != x.dtype:
            return below(g, x, target, weight, pos_weight)
        return _start_binary("binary_cross_entropy_backward", x, target, g, weight, pos_weight)

    return entry


OVER: dict[str, Callable[[Callable], Callable]] = {
    "cross_entropy": _cross_entropy,
    "cross_entropy_backward": _cross_entropy_backward,
    "cross_entropy_in_place": _cross_entropy_in_place,
    "binary_cross_entropy_with_logits": _binary_cross_entropy,
    "binary_cross_entropy_with_logits_backward": _binary_cross_entropy_backward,
}
HALF = frozenset(OVER)
