"""Random numbers in pieces that keep a GPU busy, of words that another layer may bring.

A graph would replay the numbers of its capture for ever, so nothing here is captured.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from minidl.backends.cupy_gpu.capture import refuse_capture

__all__ = ["_COUNTERS"]

_COUNTERS = 2**22  # per piece: the working arrays take 300 MiB


class _Thread(threading.local):
    """`bits`: the `philox_bits` of another layer that draws in this thread, or None."""

    bits: Callable[[int, int, int], Any] | None = None


_thread = _Thread()


@contextmanager
def words_by(bits: Callable[[int, int, int], Any]) -> Iterator[None]:
    """Within the block the entries of this thread draw their words from `bits`."""
    before, _thread.bits = _thread.bits, bits
    try:
        yield
    finally:
        _thread.bits = before


def _bits(twin: Callable) -> Callable:
    @wraps(twin)
    def philox_bits(n: int, seed: int, offset: int) -> Any:
        if _thread.bits is not None:
            return _thread.bits(n, seed, offset)
        _refuse()
        return twin(n, seed, offset)

    return philox_bits


def _at(twin: Callable) -> Callable:
    @wraps(twin)
    def philox_at(counters: Any, lane: int, seed: int) -> Any:
        _refuse()
        return twin(counters, lane, seed)

    return philox_at


def _refuse() -> None:
    refuse_capture("this draw of random numbers", "draw before it, or with a kernel of csrc/cuda")


OVER = {"philox_bits": _bits, "philox_at": _at}
