"""Copies to C order, and conversions between dtypes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import KINDS, Family, pointer

_kernels = Family("movement")
_MOST_AXES = 8
_SIDES = {1: 128, 2: 64, 4: 32, 8: 16}  # of a tile, by the size of an element
# bool has its own name, and bytes of 0 and 1; other integers are left to CuPy
_FROM = KINDS | {
    np.dtype(np.bool_): "bool",
    np.dtype(np.uint8): "bool",
    np.dtype(np.int32): "int32",
    np.dtype(np.int64): "int64",
}

Axes = list[tuple[int, int]]  # (size, stride in elements) of each axis


def _merged(x: Any) -> Axes | None:
    """The axes of an array that has elements, neighbours merged, those of size 1 left out.

    None: strides are no multiples of the element, or more axes are left than a kernel takes.
    """
    axes: Axes = []
    for size, stride in zip(x.shape, x.strides, strict=True):
        if size == 1:
            continue
        if stride % x.itemsize:
            return None
        stride //= x.itemsize
        if axes and axes[-1][1] == size * stride:
            axes[-1] = axes[-1][0] * size, stride
        else:
            axes.append((size, stride))
    return axes if len(axes) <= _MOST_AXES else None


def _padded(values: list[int], fill: int) -> list[int]:
    return values + [fill] * (_MOST_AXES - len(values))


def _gather(x: Any, out: Any, axes: Axes) -> None:
    """Copy with a thread per element, of up to 16 bytes if the last axis is contiguous."""
    itemsize, place = x.itemsize, pointer(x)
    while itemsize < 16 and axes[-1][1] == 1:
        *others, (size, _) = axes
        whole = size % 2 == 0 and not any(stride % 2 for _, stride in others)
        if not whole or (place | pointer(out)) % (2 * itemsize):
            break
        itemsize *= 2
        axes = [(n, stride // 2) for n, stride in others] + [(size // 2, 1)]
    count = math.prod(size for size, _ in axes)
    sizes = _padded([size for size, _ in axes], 1)
    strides = _padded([stride for _, stride in axes], 0)
    given = place, pointer(out), count, len(axes), *sizes, *strides
    _kernels.start(f"gather_{itemsize}", min(-(-count // 256), 1 << 30), 256, 0, *given)


def _transpose(x: Any, out: Any, axes: Axes) -> None:
    """Copy by tiles; an axis that is not the last one has stride 1."""
    pitches = [math.prod(size for size, _ in axes[i + 1 :]) for i in range(len(axes))]
    down = max(i for i, (size, stride) in enumerate(axes) if stride == 1 and size >= 8)
    batch = [i for i in range(len(axes) - 1) if i != down]
    rows, (columns, step) = axes[down][0], axes[-1]
    side = _SIDES[x.itemsize]
    blocks = -(-rows // side) * -(-columns // side) * math.prod(axes[i][0] for i in batch)
    given = pointer(x), pointer(out), rows, columns, step, pitches[down], len(batch)
    given += *_padded([axes[i][0] for i in batch], 1), *_padded([axes[i][1] for i in batch], 0)
    given += tuple(_padded([pitches[i] for i in batch], 0))
    kernel = f"transpose_{x.itemsize}"
    _kernels.start(kernel, blocks, 128 if x.itemsize == 8 else 256, 0, *given)


def _copied(x: Any) -> Any:
    """x with elements of its own, in C order; None if the kernels do not take it."""
    if x.itemsize not in _SIDES:
        return None
    out = cp.empty(x.shape, x.dtype)
    if not x.size:
        return out
    axes = _merged(x)
    if axes is None:
        return None
    if not axes or (len(axes) == 1 and axes[0][1] == 1):
        aligned = not pointer(x) % 16
        if aligned or x.itemsize == 1:
            threads = x.nbytes // 16 if aligned else x.nbytes
            given = pointer(x), pointer(out), x.nbytes
            _kernels.start("copy_bytes", max(1, -(-threads // 1024)), 256, 0, *given)
        else:
            _gather(x, out, axes or [(1, 1)])
    elif axes[-1][1] != 1 and axes[-1][0] >= 8 and any(n >= 8 and s == 1 for n, s in axes):
        _transpose(x, out, axes)
    else:
        _gather(x, out, axes)
    return out


def contiguous(x: Any) -> Any:
    """x if it is in C order, otherwise a copy that is: for the families of kernels."""
    if x.flags.c_contiguous:
        return x
    out = _copied(x)
    return cp.ascontiguousarray(x) if out is None else out


def _copy(below: Callable) -> Callable:
    def entry(x: Any) -> Any:
        out = _copied(x)
        return below(x) if out is None else out

    return entry


def _ascontiguousarray(below: Callable) -> Callable:
    def entry(x: Any, *more: Any, **options: Any) -> Any:
        if more or options or not isinstance(x, cp.ndarray) or x.flags.c_contiguous:
            return below(x, *more, **options)
        out = _copied(x)
        return below(x) if out is None else out

    return entry


def dense_order(x: Any) -> list[int]:
    """The axes from the largest stride to the smallest."""
    return sorted(range(x.ndim), key=lambda axis: -x.strides[axis])


def _cast(below: Callable) -> Callable:
    def entry(x: Any, dtype: Any) -> Any:
        dtype = np.dtype(dtype)
        source, target = _FROM.get(x.dtype), KINDS.get(dtype)
        if source is None or target is None:
            return below(x, dtype)
        order = None
        if not x.flags.c_contiguous:
            order = dense_order(x)
            moved = x.transpose(*order)
            if moved.flags.c_contiguous:
                x = moved
            else:
                x, order = contiguous(x), None
        if source == target:
            out = _copied(x)
            if out is None:
                return below(x, dtype)
        else:
            out = cp.empty(x.shape, dtype)
            if out.size:
                size = 16 // max(x.itemsize, dtype.itemsize)
                blocks = -(-x.size // (1024 * size))
                given = pointer(x), pointer(out), x.size
                _kernels.start(f"cast_{source}_{target}", blocks, 256, 0, *given)
        return out if order is None else out.transpose(*[order.index(a) for a in range(x.ndim)])

    return entry


OVER: dict[str, Callable[[Callable], Callable]] = {
    "cast": _cast,
    "copy": _copy,
    "ascontiguousarray": _ascontiguousarray,
}
HALF: frozenset[str] = frozenset()
