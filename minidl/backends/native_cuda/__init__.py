"""The native layer of the GPU's table: the kernels of csrc/cuda, over CuPy's entries.

One file per family, named after its kernel file. Each gives `OVER` (entry -> the entry made from
the one below, which serves what the kernel does not take) and `HALF` (operators whose entry
takes 16-bit floats as they are, computes in float32 and rounds once).
"""

from __future__ import annotations

from typing import Any

from minidl.backends.cupy_gpu import capture
from minidl.backends.native_cuda import (
    activation,
    embedding,
    gemm,
    launch,
    loss,
    movement,
    norm,
    optim,
    random,
    reduce,
    softmax,
    words,
)
from minidl.backends.native_cuda.launch import describe, missing
from minidl.backends.table import Layer

__all__ = ["describe", "layer", "missing"]

_FAMILIES = (
    activation,
    embedding,
    gemm,
    loss,
    movement,
    norm,
    optim,
    random,
    reduce,
    softmax,
    words,
)


class _ForGraphs:
    """What graphs use of the kernels beside the entries."""

    def load(self) -> None:
        """Load all kernels; run those that nothing but a graph uses."""
        launch.load()
        gemm.load()
        words.load()

    def put_words(self, target: Any, values: list[int]) -> None:
        """See `cupy_gpu.capture.OwnKernels`."""
        words.put_words(target, values)

    def matmul(self, x: Any, y: Any, out: Any = None) -> Any:
        """See `cupy_gpu.capture.OwnKernels`."""
        return gemm.matmul(x, y, out)


def layer() -> Layer:
    """The entries that kernels of ours serve, or why there are none."""
    if why := launch.missing():
        capture.register_kernels(None)
        return Layer("native", missing=why)
    capture.register_kernels(_ForGraphs())
    over = {name: make for family in _FAMILIES for name, make in family.OVER.items()}
    half = frozenset().union(*(family.HALF for family in _FAMILIES))
    return Layer("native", over=over, half=half)
