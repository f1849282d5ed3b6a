"""The gradient of a look-up: rows added to the rows that were looked up, in their order.

Limit: bytes of the rows (read once, their targets read and written) and of the zeros. Threads
share the columns, so the order of the additions, and with it every bit, is that of one thread.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minidl.backends.numba_kernels.compiled import In2, Index1, Kernel, Out2, split
from minidl.backends.reference.blocks import as_rows, flat


@Kernel
def _add_rows(start: int, stop: int, rows: In2, index: Index1, out: Out2) -> None:
    """out[index[i], start:stop] += rows[i, start:stop]."""
    for i in range(len(index)):
        source, target = rows[i, start:stop], out[index[i], start:stop]
        for j in range(source.size):
            target[j] += source[j]


def embedding_backward(
    g: np.ndarray, index: np.ndarray, num_embeddings: int, padding_idx: int | None
) -> np.ndarray:
    """As specified in reference/embedding.py."""
    width = g.shape[-1]
    out = np.zeros((num_embeddings, width), g.dtype)
    flat_index = flat(index).astype(np.int64, copy=False)
    # pieces of 16 columns at least: a cache line each
    columns = max(1, width // 16)
    kernel, rows = _add_rows[g.dtype], as_rows(g, index.size, width)

    def piece(start: int, stop: int) -> None:
        kernel(start * 16, width if stop == columns else stop * 16, rows, flat_index, out)

    split(piece, columns, g.size)
    if padding_idx is not None:
        out[padding_idx] = 0
    return out


ENTRIES: dict[str, Callable] = {"embedding_backward": embedding_backward}
