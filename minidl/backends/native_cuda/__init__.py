"""The native layer of the GPU's table: the kernels of csrc/cuda, over CuPy's entries.

One file per family, named after its kernel file. Each gives `OVER` (entry -> the entry made from
the one below, which serves what the kernel does not take) and `HALF` (operators whose entry
takes 16-bit floats as they are, computes in float32 and rounds once).
"""

from __future__ import annotations

from minidl.backends.native_cuda import (
    activation,
    embedding,
    launch,
    loss,
    movement,
    norm,
    reduce,
    softmax,
)
from minidl.backends.native_cuda.launch import describe, missing
from minidl.backends.table import Layer

__all__ = ["describe", "layer", "missing"]

_FAMILIES = (
    activation,
    embedding,
    loss,
    movement,
    norm,
    reduce,
    softmax,
)


def layer() -> Layer:
    """The entries that kernels of ours serve, or why there are none."""
    if why := launch.missing():
        return Layer("native", missing=why)
    over = {name: make for family in _FAMILIES for name, make in family.OVER.items()}
    half = frozenset().union(*(family.HALF for family in _FAMILIES))
    return Layer("native", over=over, half=half)
