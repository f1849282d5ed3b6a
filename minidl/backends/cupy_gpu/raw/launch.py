"""Kernels from CUDA source: compiled at the first use, started with one record of arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.backends.cupy_gpu.xp import cp

THREADS = 256


class Source:
    """CUDA source with several kernels that take one struct by value.

    `arguments` is the NumPy dtype with the layout of that struct: fields of 8 bytes first, so that
    both have the same offsets.
    """

    def __init__(self, text: str, arguments: Any, options: tuple[str, ...] = ()) -> None:
        self.text, self.options = text, options
        self.arguments = np.dtype(arguments)
        self._kernels: dict[str, Any] = {}

    def record(self) -> np.ndarray:
        """A fresh struct of zeros, as an array of one element: CuPy passes these by value."""
        return np.zeros(1, self.arguments)

    def start(self, name: str, blocks: int, record: np.ndarray) -> None:
        """Start `blocks` blocks of THREADS threads of the kernel `name` in the current stream."""
        if not blocks:
            return
        kernel = self._kernels.get(name)
        if kernel is None:
            kernel = self._kernels[name] = cp.RawKernel(self.text, name, self.options)
        kernel((blocks,), (THREADS,), (record,))
