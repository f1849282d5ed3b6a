"""Random numbers: the specification's streams, one kernel a draw.

While a graph is captured, the kernels get the address of the words that say where the numbers of
the replay start (see `cupy_gpu.capture`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.capture import recording
from minidl.backends.cupy_gpu.random import words_by
from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import KINDS, Family, pointer

_kernels = Family("random")
_THREADS = 256
_WIDE = {np.dtype(np.float32): 4, np.dtype(np.float64): 2}  # dtype -> numbers of one counter


def _draw(
    kernel: str,
    out: Any,
    seed: int,
    offset: int,
    each: int,
    x: Any = None,
    limit: int = 0,
    base: int = 0,
    factor: float = 0.0,
) -> Any:
    """Fill `out`, of which a thread makes `each` elements."""
    if not out.size:
        return out
    graph = recording()
    live = 0 if graph is None else graph.draw(seed, offset)
    if graph is not None:
        pointer(graph.words)
    blocks = -(-out.size // (each * _THREADS))
    stream = live, out.size, seed, offset
    given = pointer(out), pointer(x), *stream, limit, base, float(factor)
    _kernels.start(kernel, blocks, _THREADS, 0, *given)
    return out


def philox_bits(n: int, seed: int, offset: int) -> Any:
    """See the specification."""
    return _draw("philox_bits", cp.empty((n,), np.uint32), seed, offset, 4)


def _filled(name: str) -> Callable[[Callable], Callable]:
    def over(below: Callable) -> Callable:
        def entry(
            shape: tuple[int, ...], dtype: Any, seed: int, offset: int, bits: Any = None
        ) -> Any:
            out = cp.empty(shape, dtype)
            return _draw(f"{name}_{out.dtype}", out, seed, offset, _WIDE[out.dtype])

        return entry

    return over


def _bernoulli(below: Callable) -> Callable:
    def entry(shape: tuple[int, ...], p: Any, seed: int, offset: int, bits: Any = None) -> Any:
        out = cp.empty(shape, np.bool_)
        if not isinstance(p, cp.ndarray):
            return _draw("bernoulli", out, seed, offset, 4, limit=_limit(p))
        if p.dtype not in KINDS:
            p = p.astype(np.float64)
        if p.size != 1:
            p = cp.ascontiguousarray(cp.broadcast_to(p, out.shape))
        kernel = f"bernoulli_of_{KINDS[p.dtype]}"
        return _draw(kernel, out, seed, offset, 4, p, base=int(p.size != 1))

    return entry


def _dropout(below: Callable) -> Callable:
    def entry(x: Any, p: float, seed: int, offset: int) -> Any:
        kind = KINDS.get(x.dtype)
        if kind is None:
            return below(x, p, seed, offset)
        out, x = cp.empty(x.shape, x.dtype), cp.ascontiguousarray(x)
        factor = 1 / (1 - p) if p < 1 else 0.0
        each = 8 if x.itemsize == 2 else 4
        limit = _limit(1 - p)
        return _draw(f"dropout_{kind}", out, seed, offset, each, x, limit, factor=factor)

    return entry


def _randint(below: Callable) -> Callable:
    def entry(low: int, high: int, shape: tuple[int, ...], seed: int, offset: int) -> Any:
        out = cp.empty(shape, np.int64)
        return _draw("randint", out, seed, offset, 2, limit=high - low, base=low)

    return entry


def _with_own_words(below: Callable) -> Callable:
    def entry(*given: Any) -> Any:
        with words_by(philox_bits):
            return below(*given)

    return entry


def _limit(p: float) -> int:
    return round(float(p) * 2**32)


OVER: dict[str, Callable[[Callable], Callable]] = {
    "philox_bits": lambda below: philox_bits,
    "uniform": _filled("uniform"),
    "normal": _filled("normal"),
    "bernoulli": _bernoulli,
    "dropout": _dropout,
    "randint": _randint,
    "permutation": _with_own_words,
    "multinomial": _with_own_words,
}
HALF = frozenset(["dropout"])
