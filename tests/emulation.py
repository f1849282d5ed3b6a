"""The kernels of csrc/cuda on the CPU: the table "cuda" over the stand-in for CuPy.

`emulated()` compiles the kernels with g++, loads them with ctypes, and starts them as the
extension would. Every array whose address a launch took is made known, with its bounds.
EMULATOR_SANITIZE names the sanitizers of the build, which then do not watch the threads' accesses
but what -fsanitize= promises; Python has to be started with their library loaded. EMULATOR_LOG
names a folder where each process leaves how often it started which kernel, EMULATOR_LIBRARY another
build of the emulator (tests/cuda_mutants.py).
"""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from minidl.backends.native_cuda import launch
from minidl.backends.table import Kernels
from minidl.testing import standin

CSRC = Path(__file__).parent.parent / "csrc"
if str(CSRC) not in sys.path:
    sys.path.insert(0, str(CSRC))

import build  # noqa: E402

SANITIZE = os.environ.get("EMULATOR_SANITIZE", "")
STARTED: Counter[str] = Counter()  # launches of this process


@atexit.register
def _log() -> None:
    """Leave the counts where tests/cuda_cases.py looks for them."""
    if (folder := os.environ.get("EMULATOR_LOG")) and STARTED:
        file = Path(folder) / f"{os.getpid()}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(STARTED), encoding="utf-8")


@cache
def library(path: Path | None = None) -> ctypes.CDLL:
    """The emulator, compiled if need be, or another build of it."""
    named = path or os.environ.get("EMULATOR_LIBRARY")
    found = ctypes.CDLL(str(named or build.emulator(SANITIZE)))
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

    def __init__(self, order: int = 0, path: Path | None = None) -> None:
        self._library = library(path)
        self._order = order
        self.started: Counter[str] = Counter()

    def most_shared(self) -> int:
        """As on an H100, less what kernels have of their own."""
        return 232448 - 2048

    def load(self) -> None:
        """Nothing is loaded when it is first used."""

    def start(
        self, family: str, kernel: str, blocks: int, threads: int, shared: int, fields: tuple
    ) -> None:
        for first, end in standin.addressed():
            self._library.emulator_array(first, end - first, 1)
        self._launch(kernel, blocks, threads, shared, fields)

    def run(
        self, kernel: str, blocks: int, threads: int, *fields: int | float | np.ndarray
    ) -> None:
        """Start a kernel on NumPy's arrays, C-contiguous ones."""
        for field in fields:
            if isinstance(field, np.ndarray):
                writable = field.flags.writeable
                self._library.emulator_array(field.ctypes.data, field.nbytes, writable)
        given = [f.ctypes.data if isinstance(f, np.ndarray) else f for f in fields]
        self._launch(kernel, blocks, threads, 0, tuple(given))

    def _launch(self, kernel: str, blocks: int, threads: int, shared: int, fields: tuple) -> None:
        found = self._library.emulator_kernel(kernel.encode())
        record = launch.packed(fields)
        data = record.ctypes.data
        said = b"there is no such kernel"
        self._library.emulator_order(self._order)
        if found:
            said = self._library.emulator_launch(
                found, blocks, threads, shared, data, record.nbytes
            )
        self._library.emulator_forget()
        if said:
            raise KernelFailure(f"{kernel}: {said.decode()}")
        self.started[kernel] += 1
        STARTED[kernel] += 1


def linked(objects: list[Path], replaced: str, folder: Path) -> Path:
    """The emulator with other objects in the place of one."""
    kept, library = build.emulator().parent, folder / "emulator.so"
    names = [*build.families(), *(p.stem for p in (build.CUDA / "emulator").glob("*.c*"))]
    all_objects = [*objects, *(kept / f"{name}.o" for name in names if name != replaced)]
    flags = ["-shared", "-Wl,-Bsymbolic"]
    build.run([*build.compiler(), *flags, *map(str, all_objects), "-o", str(library)])
    return library


def with_family(name: str, text: str, folder: Path, kernels: str = "") -> Path:
    """The emulator with another text of a family; `kernels`: the macro that lists its kernels."""
    source, result = folder / f"{name}.cpp", folder / f"{name}.o"
    kernels = kernels or f"{name.upper()}_KERNELS"
    lines = [f'#include "{build.CUDA}/emulator/device.h"', text]
    lines += [f'#include "{build.CUDA}/registry.h"', f"REGISTER({name}, {kernels});"]
    source.write_text("\n".join(lines), encoding="utf-8")
    flags = [*build.EMULATOR_FLAGS, "-w", "-fsanitize=thread", "-c"]
    build.run([*build.compiler(), *flags, str(source), "-o", str(result)])
    return linked([result], name, folder)


@contextmanager
def emulated(order: int = 0, path: Path | None = None) -> Iterator[tuple[Kernels, Emulator]]:
    """Run the block with the GPU's whole table, its kernels on the CPU."""
    machine = Emulator(order, path)
    before = launch.use(machine)
    try:
        with standin.installed() as kernels:
            yield kernels, machine
    finally:
        launch.use(before)
