"""The kernels of csrc/cuda on the CPU: the table "cuda" over the stand-in for CuPy.

`emulated()` compiles the kernels with g++, loads them with ctypes, and starts them as the
extension would. Every array whose address a launch took is made known, with its bounds.
"""

from __future__ import annotations

import ctypes
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from minidl.backends.native_cuda import launch
from minidl.backends.table import Kernels
from minidl.testing import standin

CSRC = Path(__file__).parent.parent / "csrc"
if str(CSRC) not in sys.path:
    sys.path.insert(0, str(CSRC))

import build  # noqa: E402


@cache
def library(sanitize: str = "") -> ctypes.CDLL:
    """The emulator, compiled if need be."""
    found = ctypes.CDLL(str(build.emulator(sanitize)))
    found.emulator_kernel.restype = ctypes.c_void_p
    found.emulator_launch.restype = ctypes.c_char_p
    found.emulator_launch.argtypes = [ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    found.emulator_launch.argtypes += [ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t]
    found.emulator_array.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    found.emulator_order.argtypes = [ctypes.c_uint64]
    return found


class KernelFailure(AssertionError):
    """The emulator refused what a kernel did."""


class Emulator:
    """Runs kernels on the CPU; `order` 0: threads in order, 1: backwards, else shuffled."""

    def __init__(self, order: int = 0, sanitize: str = "") -> None:
        self._library = library(sanitize)
        self._library.emulator_order(order)
        self.started: Counter[str] = Counter()

    def most_shared(self) -> int:
        """As on an H100, less what kernels have of their own."""
        return 232448 - 2048

    def start(
        self, family: str, kernel: str, blocks: int, threads: int, shared: int, fields: tuple
    ) -> None:
        found = self._library.emulator_kernel(kernel.encode())
        if not found:
            raise KernelFailure(f"there is no kernel {kernel}")
        for start, stop in standin.addressed():
            self._library.emulator_array(start, stop - start, 1)
        record = launch.packed(fields)
        data = record.ctypes.data
        said = self._library.emulator_launch(found, blocks, threads, shared, data, record.nbytes)
        self._library.emulator_forget()
        if said:
            raise KernelFailure(said.decode())
        self.started[kernel] += 1


@contextmanager
def emulated(order: int = 0, sanitize: str = "") -> Iterator[tuple[Kernels, Emulator]]:
    """Run the block with the GPU's whole table, its kernels on the CPU."""
    machine = Emulator(order, sanitize)
    before = launch.use(machine)
    try:
        with standin.installed() as kernels:
            yield kernels, machine
    finally:
        launch.use(before)
