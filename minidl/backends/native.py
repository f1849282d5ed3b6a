"""The native layer of the CPU table: `minidl._cpu`, compiled from csrc/cpu.

MINIDL_ISA names the instruction set to use instead of the best that the processor has, and
MINIDL_THREADS the number of threads that one kernel may use.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from minidl.backends import reference
from minidl.backends.table import Layer
from minidl.dtypes import HALF_NUMPY
from minidl.errors import ArgumentError

try:
    import minidl._cpu as _extension  # type: ignore[import-not-found]
except ImportError as error:
    _extension, _import_error = None, str(error)


PROBLEMS: list[ArgumentError] = []  # what is wrong in the environment; raised when it is used
# where the extension, which counts cores and quotas, is not there: Numba's threads
_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


def _prepared() -> Any:
    """The extension as the environment wants it, or None."""
    global _threads
    if _extension is not None:
        _extension.use_bfloat16(np.dtype(ml_dtypes.bfloat16))
    try:
        if (name := os.environ.get("MINIDL_ISA")) and _extension is not None:
            use_isa(name, _extension)
        if text := os.environ.get("MINIDL_THREADS"):
            if not text.isdecimal() or not int(text):
                raise ArgumentError("MINIDL_THREADS must be a positive integer", got=repr(text))
            if _extension is None:
                _threads = int(text)
            else:
                _extension.set_num_threads(int(text))
    except ArgumentError as error:
        PROBLEMS.append(error)
    return _extension


def _why_missing() -> str:
    """The reason that the installation noted, or Python's own."""
    note = os.path.join(os.path.dirname(os.path.dirname(__file__)), "_build.txt")
    try:
        with open(note, encoding="utf-8") as file:
            return file.read().strip() or _import_error
    except FileNotFoundError:
        return "not built: install minidl, or run `python setup.py build_ext --inplace`"


def use_isa(name: str, module: Any = None) -> None:
    """Use the kernels of the instruction set `name`; ArgumentError if the machine lacks it."""
    module = module or cpu
    if not module.use_isa(name):
        names = ", ".join(module.isas())
        raise ArgumentError(f"the instruction set must be one of {names}", got=repr(name))


cpu = _prepared()


_HALF = (
    "add sub mul div maximum where neg abs sqrt rsqrt pow_scalar clip eq ne lt le gt ge exp log "
    "sum amax amin relu relu_backward tanh tanh_backward sigmoid sigmoid_backward silu "
    "silu_backward gelu gelu_backward"
)
# operators of one entry, which takes bfloat16 arrays and rounds once
HALF = frozenset(_HALF.split())
# operators that only move elements, or whose entry has another name
_MOVING = frozenset(["cat", "stack", "clamp", "clamp_scalar"])


_CROSS_ENTROPY = ("cross_entropy", "cross_entropy_backward")


def _is_half(x: Any) -> bool:
    return type(x) is np.ndarray and x.dtype in HALF_NUMPY


def widened(below: Callable) -> Callable:
    """`below` for 16-bit floats: in float32, the result rounded once."""

    def call(*args: Any, **options: Any) -> Any:
        wide = [x.astype(np.float32) if _is_half(x) else x for x in args]
        dtype = next(x.dtype for x in args if _is_half(x))
        out = np.asarray(below(*wide, **options))
        return out.astype(dtype) if out.dtype == np.float32 else out

    return call


def _entry(name: str, below: Callable) -> Callable:
    return cpu.entry(name, (below, widened(below)) if name in HALF else below)


def _cross_entropy_in_place(below: Callable) -> Callable:
    """The two kernels one after the other: the gradient of a chunk is in the cache."""
    forward, backward = (cpu.entry(name, reference.ENTRIES[name]) for name in _CROSS_ENTROPY)

    def entry(
        logits: np.ndarray, target: np.ndarray, weight: Any, ignored: int, smoothing: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        losses, lse, total = forward(logits, target, weight, ignored, smoothing)
        one = np.ones((), logits.dtype)
        logits[...] = backward(one, logits, target, weight, ignored, smoothing, lse)
        return losses, lse, total

    return entry


def layer() -> Layer:
    """The entries that the extension serves, each over the entry of the layer below."""
    if cpu is None:
        return Layer("native", missing=_why_missing())
    over: dict[str, Callable] = {name: partial(_entry, name) for name in cpu.ENTRIES}
    if all(name in over for name in _CROSS_ENTROPY):
        over["cross_entropy_in_place"] = _cross_entropy_in_place
    return Layer("native", over=over, half=HALF | _MOVING)


def describe() -> str:
    """The instruction set in use, those there are and the threads, or why there are no kernels."""
    if cpu is None:
        return f"none: {_why_missing()}"
    return f"{cpu.isa()} (of {', '.join(cpu.isas())}), {cpu.get_num_threads()} threads"


def get_num_threads() -> int:
    """Threads that one kernel may use."""
    return _threads if cpu is None else cpu.get_num_threads()


def set_num_threads(threads: int) -> None:
    """Let one kernel use up to that many threads; results do not depend on it."""
    if type(threads) is not int or threads < 1:
        raise ArgumentError("the number of threads must be positive", got=repr(threads))
    global _threads
    if cpu is None:
        _threads = threads
    else:
        cpu.set_num_threads(threads)


@contextmanager
def limit_threads(threads: int | None) -> Iterator[None]:
    """Let one kernel use at most that many threads in the block; None leaves it as it is."""
    before = get_num_threads()
    if threads is not None:
        set_num_threads(threads)
    try:
        yield
    finally:
        set_num_threads(before)
