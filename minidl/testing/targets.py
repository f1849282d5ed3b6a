"""What the checks run on: a kernel table, on the CPU one of its instruction sets.

Everything that the checks draw is a NumPy array. `placed` and `host` are the one place where it
moves to the table's device and back.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl import backends
from minidl.backends import native
from minidl.backends.table import TABLES, Device, Kernels
from minidl.errors import ArgumentError


@dataclass(frozen=True)
class Target:
    """A table by its name, and the instruction set for the native one."""

    backend: str
    isa: str | None = None

    @property
    def label(self) -> str:
        """`native/avx2`; the table's name alone where it has no instruction sets."""
        return self.backend if self.isa is None else f"{self.backend}/{self.isa}"

    @property
    def options(self) -> str:
        """The options of `minidl verify` that choose this target."""
        return f"--backend {self.backend}" + (f" --isa {self.isa}" if self.isa else "")


def targets(names: Sequence[str] = (), isa: str | None = None) -> list[Target]:
    """The tables of these names (default: all), the native one with each instruction set or `isa`.

    ArgumentError for a table or an instruction set that is not here, with the reason.
    """
    there = backends.available()
    for name in names:
        if name not in there:
            raise ArgumentError(
                f"there is no backend {name!r} here{_reason(name)}; there are {', '.join(there)}"
            )
    chosen = list(dict.fromkeys(names)) or there
    isas = native.cpu.isas() if native.cpu is not None and "native" in chosen else []
    if isa is not None:
        if not isas:
            raise ArgumentError("--isa chooses among the instruction sets of the native table")
        if isa not in isas:
            raise ArgumentError(
                f"the instruction set must be one of {', '.join(isas)}", got=repr(isa)
            )
    found = []
    for name in chosen:
        if name == "native":
            found += [Target(name, one) for one in isas if isa in (None, one)]
        else:
            found.append(Target(name))
    return found


def _reason(name: str) -> str:
    """Why the layer of that name is missing, as the default table noted it."""
    for reasons in TABLES["default"].reasons.values():
        for reason in reasons:
            layer, _, why = reason.partition(": ")
            if layer == name:
                return f": {why}"
    if name in backends.cuda.NAMES and (why := backends.cuda.missing()):
        return f": {why}"
    return ""


_device = "cpu"


@contextmanager
def on(target: Target) -> Iterator[None]:
    """Run the block on a target, in this thread; arrays that are `placed` go to its device."""
    global _device
    before, isa = _device, native.cpu.isa() if target.isa else None
    if target.backend in backends.cuda.NAMES:
        backends.cuda.table(target.backend)  # built when it is first asked for
    _device = TABLES[target.backend].device
    if target.isa:
        native.use_isa(target.isa)
    try:
        with backends.use_backend(target.backend):
            yield
    finally:
        _device = before
        if isa is not None:
            native.use_isa(isa)


def placed(array: np.ndarray) -> Any:
    """The array on the device that the checks run on, in the same layout."""
    if _device == "cpu":
        return array
    as_strided = importlib.import_module("cupy.lib.stride_tricks").as_strided

    # the memory between its first and its last element, and the same view of it there
    turned = array[tuple([slice(None, None, -1 if step < 0 else None) for step in array.strides])]
    extent = sum(step * (n - 1) for n, step in zip(array.shape, turned.strides, strict=True))
    count = extent // array.itemsize + 1 if array.size else 0
    held = np.lib.stride_tricks.as_strided(turned, (count,), (array.itemsize,)).copy()
    flat = backends.moved(held, Device(_device))
    view = as_strided(flat, array.shape, turned.strides)
    return view[tuple([slice(None, None, -1 if step < 0 else None) for step in array.strides])]


def host(array: Any) -> np.ndarray:
    """The array that `placed` or a kernel of that device gave, as NumPy's."""
    return backends.host(array)


def device() -> str:
    """Where the checks run: what rows without tensors pass on as `device`."""
    return _device


def flushes() -> bool:
    """Whether float32 numbers below the smallest normal one are 0 there.

    CuPy has its kernels compiled so (-ftz=true); float64 keeps them.
    """
    return _device != "cpu"


def kernels() -> Kernels:
    """The table that the checks run on."""
    return backends.kernels_for(placed(np.zeros(0)))
