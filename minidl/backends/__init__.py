"""The kernel tables and which of them is active: `use_backend`, `report`, `kernels_for`.

`cpu = reference (NumPy) <- native (csrc/cpu)`; a layer that is missing leaves the entry of the
layer below and a recorded reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from minidl.backends import cuda, native, reference
from minidl.backends.native import get_num_threads, set_num_threads
from minidl.backends.table import CPU, PREPARE, TABLES, Device, Kernels, Layer, Local, table_named
from minidl.errors import ArgumentError, DeviceError

__all__ = [
    "CPU",
    "Device",
    "Kernels",
    "Layer",
    "available",
    "check_environment",
    "cuda",
    "get_num_threads",
    "kernels_for",
    "local",
    "report",
    "set_num_threads",
    "use_backend",
]

_layers = [Layer("reference", reference.ENTRIES)]
TABLES["reference"] = Kernels("cpu", np, _layers)
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
    """Names that `use_backend` and `MINIDL_BACKEND` take."""
    return [name for name in TABLES if name not in ("default", "start")]


local = Local()


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the block on another kernel table, in this thread only."""
    state, table = local.state, table_named(name)
    before, state.cpu = state.cpu, table
    try:
        yield
    finally:
        state.cpu = before


def kernels_for(array: Any) -> Kernels:
    """The active table of the device that holds `array`."""
    if isinstance(array, np.ndarray):
        return local.state.cpu
    raise DeviceError("no kernel table for arrays of this type", got=type(array).__name__)


def report(name: str = "default") -> dict[str, dict[str, Any]]:
    """Per entry: the layer that serves it and why a better one does not."""
    table = table_named(name) if name != "default" else local.state.cpu
    return {
        entry: {"layer": layer, "reasons": table.reasons.get(entry, [])}
        for entry, layer in table.sources.items()
    }
