"""The kernel table over CuPy arrays: `Kernels("cuda", module(), [layer()])`.

The entries are the specification's own, run on CuPy (`twins`), with the replacements of the files
here: one per file of the specification, of the same name.
"""

from __future__ import annotations

from minidl.backends.cupy_gpu import (
    activation,
    arithmetic,
    attention,
    blocks,
    broadcast,
    embedding,
    extrema,
    host as host_file,
    linalg,
    optim,
    random,
    reduce,
    special,
    twins,
)
from minidl.backends.cupy_gpu.host import host, raise_refused
from minidl.backends.cupy_gpu.xp import forget, module
from minidl.backends.table import Layer

__all__ = ["forget", "host", "layer", "module", "raise_refused"]

_REPLACEMENTS = (
    activation,
    attention,
    blocks,
    broadcast,
    embedding,
    extrema,
    host_file,
    linalg,
    optim,
    random,
    reduce,
    special,
)


def layer() -> Layer:
    """Every entry of the specification on CuPy arrays; loads CuPy."""
    module()
    return Layer("cupy", arithmetic.ENTRIES | twins.entries(_REPLACEMENTS))
