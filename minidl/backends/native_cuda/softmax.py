"""Softmax, its logarithm and their gradients along any axis; log-sum-exp of rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import KINDS, Family, pointer, rows_plan

_kernels = Family("softmax")


def _along(name: str) -> Callable[[Callable], Callable]:
    """An entry from the one below it: `entry(x, axis)` or, of gradients, `entry(g, out, axis)`."""

    def over(below: Callable) -> Callable:
        def entry(*given: Any) -> Any:
            *arrays, axis = given
            first = arrays[-1]
            kind = KINDS.get(first.dtype)
            if kind is None or any(array.dtype != first.dtype for array in arrays):
                return below(*given)
            out = cp.empty(first.shape, first.dtype)
            if not out.size:
                return out
            arrays = [cp.ascontiguousarray(array) for array in arrays]
            g, x = (None, *arrays) if len(arrays) == 1 else arrays
            axis = axis % first.ndim if first.ndim else 0
            width = first.shape[axis] if first.ndim else 1
            inner = math.prod(first.shape[axis + 1 :])
            rows = out.size // width
            places = pointer(x), pointer(g), pointer(out), rows, width
            if inner == 1:
                blocks, threads, group, shared = rows_plan(rows, width, x.itemsize)
                kernel = f"{name}_{kind}"
                _kernels.start(kernel, blocks, threads, shared, *places, group, shared, 1)
            else:
                stem, backward = name.removesuffix("_backward"), name.endswith("_backward")
                kernel = f"{stem}_columns{'_backward' if backward else ''}_{kind}"
                _kernels.start(kernel, -(-rows // 256), 256, 0, *places, 0, 0, inner)
            return out

        return entry

    return over


def _logsumexp(below: Callable) -> Callable:
    def entry(x: Any, axis: tuple[int, ...], keepdim: bool) -> Any:
        kind = KINDS.get(x.dtype)
        axes = sorted({a % x.ndim for a in axis}) if x.ndim else []
        kept = [a for a in range(x.ndim) if a not in axes]
        if kind is None or not x.size:
            return below(x, axis, keepdim)
        moved = cp.ascontiguousarray(x.transpose(*kept, *axes))
        rows = math.prod(x.shape[a] for a in kept)
        width = x.size // rows
        shape = [1 if a in axes else n for a, n in enumerate(x.shape) if keepdim or a in kept]
        out = cp.empty(tuple(shape), x.dtype)
        blocks, threads, group, shared = rows_plan(rows, width, x.itemsize)
        places = pointer(moved), 0, pointer(out), rows, width, group, shared, 1
        _kernels.start(f"logsumexp_{kind}", blocks, threads, shared, *places)
        return out

    return entry


OVER: dict[str, Callable[[Callable], Callable]] = {
    "softmax": _along("softmax"),
    "log_softmax": _along("log_softmax"),
    "softmax_backward": _along("softmax_backward"),
    "log_softmax_backward": _along("log_softmax_backward"),
    "logsumexp": _logsumexp,
}
HALF = frozenset(OVER)
