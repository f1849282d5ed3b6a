"""The kernel tables and which of them is active: `use_backend`, `report`, `kernels_for`.

`cpu = reference (NumPy) <- native (csrc/cpu)`, or `reference <- numba` where the native kernels
were not compiled; a layer that is missing leaves the entry of the layer below and a recorded
reason. The table "numba" is there for itself, too, wherever Numba is installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl.backends import cuda, native, numba_cpu, reference
from minidl.backends.arrays import device_of, is_writable, owns_memory
from minidl.backends.native import get_num_threads, set_num_threads
from minidl.backends.table import (
    ARRAY_TYPES,
    CPU,
    PREPARE,
    TABLES,
    Device,
    Kernels,
    Layer,
    Local,
    table_named,
)
from minidl.errors import ArgumentError, DeviceError

__all__ = [
    "ARRAY_TYPES",
    "CPU",
    "Device",
    "Kernels",
    "Layer",
    "available",
    "check_environment",
    "cuda",
    "device_of",
    "get_num_threads",
    "host",
    "is_writable",
    "kernels_for",
    "local",
    "moved",
    "on_device",
    "owns_memory",
    "report",
    "set_num_threads",
    "use_backend",
]

_layers = [Layer("reference", reference.ENTRIES)]
TABLES["reference"] = Kernels("cpu", np, _layers)
_numba = Kernels("cpu", np, [*_layers, numba_cpu.layer()])
if _numba.name == "numba":
    TABLES["numba"] = _numba
if native.cpu is None:
    _layers.append(numba_cpu.layer())
TABLES["default"] = Kernels("cpu", np, [*_layers, native.layer()])
if native.cpu is not None:
    TABLES["native"] = TABLES["default"]
    PREPARE.append(native.cpu.use_allocator)


class _Refusing:
    """In place of a table where the environment is wrong: whoever asks for a kernel is told.

    An import that raised would give the user of a command a traceback instead of one line.
    """

    def __getattr__(self, entry: str) -> Any:
        check_environment()


def check_environment() -> None:
    """Raise what is wrong in MINIDL_BACKEND, MINIDL_ISA or MINIDL_THREADS, if anything is."""
    for problem in native.PROBLEMS:
        raise ArgumentError(problem.rule, got=problem.got)


def _start() -> Any:
    """The table that the environment names."""
    try:
        table = table_named(os.environ.get("MINIDL_BACKEND") or "default")
    except ArgumentError as error:
        native.PROBLEMS.append(error)
    return _Refusing() if native.PROBLEMS else table


TABLES["start"] = _start()


def available() -> list[str]:
    """Names that `use_backend` takes, and `MINIDL_BACKEND` but for those of the GPU's tables."""
    names = [name for name in TABLES if name not in ("default", "start", *cuda.NAMES)]
    return [*names, *cuda.NAMES] if cuda.is_available() else names


local = Local()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the block on another kernel table, in this thread only."""
    state, table = local.state, cuda.table(name) if name in cuda.NAMES else table_named(name)
    slot = table.device
    before = getattr(state, slot)
    setattr(state, slot, table)
    try:
        yield
    finally:
        setattr(state, slot, before)


def kernels_for(array: Any) -> Kernels:
    """The active table of the device that holds `array`."""
    state = local.state
    if isinstance(array, np.ndarray):
        return state.cpu
    if state.cuda is None:
        state.cuda = cuda.table()
    if not isinstance(array, state.cuda.ndarray):
        raise DeviceError("no kernel table for arrays of this type", got=type(array).__name__)
    return state.cuda


def on_device(device: Device) -> Kernels:
    """The active table of a device; DeviceError without one, and for a GPU beside the current."""
    state = local.state
    if device.type == "cpu":
        return state.cpu
    if state.cuda is None:
        state.cuda = cuda.table()
    if device.index is not None and device.index != cuda.current_device():
        raise DeviceError(
            f"tensors are made on the current GPU; call minidl.cuda.set_device({device.index})"
            f" first, or use `with minidl.cuda.device({device.index})`",
            got=str(device),
        )
    return state.cuda


def moved(array: Any, device: Device) -> Any:
    """The elements on a device: the array itself if it is there."""
    if device.type == "cpu":
        return host(array)
    table = on_device(device)
    return array if type(array) is table.ndarray else table.asarray(array)


def host(array: Any) -> np.ndarray:
    """The elements in the CPU's memory: the array itself if it is there; else waits for the GPU."""
    return array if isinstance(array, np.ndarray) else kernels_for(array).host(array)


def report(name: str = "default") -> dict[str, dict[str, Any]]:
    """Per entry: the layer that serves it and why a better one does not."""
    if name == "numba":
        return numba_cpu.explain(_numba)
    return numba_cpu.explain(table_named(name) if name != "default" else local.state.cpu)
