"""Fresh words for the replays of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp
from minidl.backends.native_cuda.launch import Family, pointer

MOST = 448  # words that one launch carries
_kernels = Family("words")


def put_words(target: Any, words: list[int]) -> None:
    """Write the words into the first elements of `target`, (n,) uint64, in the current stream."""
    for first in range(0, len(words), MOST):
        place = pointer(target)
        part = words[first : first + MOST]
        rest = [0] * (MOST - len(part))
        _kernels.start("put_words", 1, MOST, 0, place + 8 * first, len(part), *part, *rest)


def load() -> None:
    """Run the kernel once: a graph should find it compiled and loaded."""
    put_words(cp.empty((1,), np.uint64), [0])


# nothing in a table: graphs use it (see `cupy_gpu.capture.OwnKernels`)
OVER: dict[str, Callable[[Callable], Callable]] = {}
HALF: frozenset[str] = frozenset()
