"""Layout and blocking shared by the specification kernels.

A NumPy expression of k ufuncs reads and writes memory k times. The kernels therefore work on
pieces that stay in the second-level cache, with scratch that is allocated once per call.
"""

from collections.abc import Callable, Iterator

import numpy as np

# Elements per piece: 64 KiB of float32, so that four or five operands share 512 KiB of L2.
PIECE = 16384


def flat(x: np.ndarray) -> np.ndarray:
    """`x` as (size,), C-contiguous; a view where the layout allows it, else a copy."""
    return np.ascontiguousarray(x).reshape(-1)


def as_rows(x: np.ndarray, rows: int, width: int) -> np.ndarray:
    """`x` as (rows, width), C-contiguous; a view where the layout allows it, else a copy."""
    return np.ascontiguousarray(x).reshape(rows, width)


def spans(count: int, width: int = 1) -> Iterator[tuple[int, int]]:
    """Cover `count` rows of `width` elements by (start, stop) pieces of about PIECE elements."""
    step = max(1, PIECE // max(1, width))
    for start in range(0, count, step):
        yield start, min(count, start + step)


def pointwise(kernel: Callable[..., None], scratch: int, *inputs: np.ndarray) -> np.ndarray:
    """Run `kernel(out, *inputs, *scratch)` on flat pieces; all inputs share shape and dtype."""
    first = inputs[0]
    out = np.empty(first.shape, first.dtype)
    target = out.reshape(-1)
    sources = [flat(x) for x in inputs]
    spare = np.empty((scratch, min(PIECE, out.size)), first.dtype)
    for start, stop in spans(out.size):
        pieces = [x[start:stop] for x in sources]
        kernel(target[start:stop], *pieces, *spare[:, : stop - start])
    return out


def gemm_ready(x: np.ndarray) -> np.ndarray:
    """`x` if BLAS can read its last two axes where they are, else a contiguous copy."""
    if x.ndim < 2 or x.flags.c_contiguous:
        return np.ascontiguousarray(x)
    (rows, columns), (step, inner), item = x.shape[-2:], x.strides[-2:], x.itemsize
    if inner == item and step >= item * columns and step % item == 0:
        return x
    if step == item and inner >= item * rows and inner % item == 0:
        return x
    return np.ascontiguousarray(x)


def sum_rows(x: np.ndarray) -> np.ndarray:
    """Column sums of a (rows, width) array: products with ones, three times faster than add.

    In blocks, because float32 loses digits over long sums.
    """
    rows, width = x.shape
    if rows <= 2048:
        return np.matmul(np.ones(rows, x.dtype), x)
    whole = rows - rows % 1024
    parts = np.matmul(np.ones(1024, x.dtype), x[:whole].reshape(whole // 1024, 1024, width))
    return sum_rows(parts) + sum_rows(x[whole:])
