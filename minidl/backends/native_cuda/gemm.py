"""Matrix products where cuBLAS may not be called: CuPy refuses it while a graph is captured."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.capture import refuse_capture
from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import Family, pointer

_kernels = Family("gemm")
_BUSY = 264  # blocks that keep a large GPU busy: two on each of 132 multiprocessors
_PART = 256  # the least that a part of the inner axis is worth
_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def matmul(x: Any, y: Any, out: Any = None) -> Any:
    """`numpy.matmul` of two float32 or two float64 arrays by the kernels of csrc/cuda/gemm.cuh.

    out: overlaps neither operand. Other dtypes raise UnsupportedError.
    """
    if x.dtype != y.dtype or x.dtype not in _DTYPES:
        refuse_capture(f"a product of {x.dtype} and {y.dtype}", "cast to float32 before it")
        return cp.matmul(x, y) if out is None else cp.matmul(x, y, out=out)
    if not x.ndim or not y.ndim:
        raise ValueError("a matrix product needs at least one axis")
    x2 = x[None, :] if x.ndim == 1 else x
    y2 = y[:, None] if y.ndim == 1 else y
    if x2.shape[-1] != y2.shape[-2]:
        raise ValueError("shapes do not fit")
    lead = np.broadcast_shapes(x2.shape[:-2], y2.shape[:-2])
    shape = lead + x.shape[-2:-1] * (x.ndim > 1) + y.shape[-1:] * (y.ndim > 1)
    if out is not None and (out.shape != shape or out.dtype != x.dtype):
        raise ValueError("out does not fit")
    result = cp.empty(shape, x.dtype) if out is None else out
    if not result.size:
        return result
    if not x2.shape[-1]:
        result.fill(0)
        return result
    target = result
    if x.ndim == 1:
        target = cp.expand_dims(target, -1 if y.ndim == 1 else -2)
    if y.ndim == 1:
        target = cp.expand_dims(target, -1)
    _start(x2, y2, target, lead)
    return result


def _start(x: Any, y: Any, target: Any, lead: tuple[int, ...]) -> None:
    batch = math.prod(lead)
    if len(lead) > 3:  # more axes than the kernel has strides for
        x = cp.ascontiguousarray(cp.broadcast_to(x, lead + x.shape[-2:]))
        y = cp.ascontiguousarray(cp.broadcast_to(y, lead + y.shape[-2:]))
        whole = target
        target = cp.empty((batch, *target.shape[-2:]), target.dtype)
        _start(x.reshape(batch, *x.shape[-2:]), y.reshape(batch, *y.shape[-2:]), target, (batch,))
        whole[...] = target.reshape(whole.shape)
        return
    (m, k), n = x.shape[-2:], y.shape[-1]
    large = x.dtype == np.float32 and -(-m // 128) * -(-n // 128) * batch >= _BUSY // 2
    side = 128 if large else 64
    tiles = -(-m // side) * -(-n // side) * batch
    parts = max(1, min(_BUSY // tiles, k // _PART))
    part = -(-k // parts)
    parts = -(-k // part)
    results = target if parts == 1 else cp.empty((parts, *target.shape), target.dtype)

    kernel = f"multiply_{x.dtype}{'_large' if large else ''}"
    _multiply(kernel, x, y, target, results, lead, part, tiles * parts)
    if parts > 1:
        cp.sum(results, axis=0, out=target)


def _multiply(
    kernel: str, x: Any, y: Any, target: Any, results: Any, lead: tuple[int, ...], part: int,
    blocks: int,
) -> None:  # fmt: skip
    """Start the kernel; `results` is `target`, or the parts of it along a first axis."""
    item, apart = x.itemsize, results is not target
    (m, k), n = x.shape[-2:], y.shape[-1]
    sizes = (1,) * (3 - len(lead)) + lead
    one = results[0] if apart else results
    last = [step // item for array in (x, y, one) for step in array.strides[-2:]]
    batch = [step for array in (x, y, one) for step in _batch_strides(array)]
    _kernels.start(
        kernel, blocks, 256, 0, pointer(x), pointer(y), pointer(results), m, n, k, *last,
        sizes[1], sizes[2], *batch, math.prod(sizes), part, results.strides[0] // item * apart,
    )  # fmt: skip


def _batch_strides(array: Any) -> tuple[int, ...]:
    """Steps in elements along the three batch axes, 0 along broadcast ones."""
    own, steps = array.shape[:-2], array.strides[:-2]
    missing = 3 - len(own)
    return (0,) * missing + tuple(
        0 if size == 1 else step // array.itemsize for size, step in zip(own, steps, strict=True)
    )


def load() -> None:
    """Run each kernel once: a graph should find them compiled and loaded."""
    for kernel in ("multiply_float32", "multiply_float32_large", "multiply_float64"):
        dtype = np.float64 if kernel.endswith("64") else np.float32
        x, out = cp.zeros((1, 1), dtype), cp.empty((1, 1), dtype)
        _multiply(kernel, x, x, out, out, (), 1, 1)


# nothing in a table: graphs use it (see `cupy_gpu.capture.OwnKernels`)
OVER: dict[str, Callable[[Callable], Callable]] = {}
HALF: frozenset[str] = frozenset()
