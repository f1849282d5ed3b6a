"""How kernels are compiled and spread over threads.

A kernel is a plain Python function whose annotations say its types. `kernel[dtype]` compiles it
for one dtype when it is first asked for, from a signature, so no shape, stride or read-only flag
makes a second compilation; the machine code is kept in Numba's cache: beside the source where that
can be written, else in the user's cache folder, else nowhere.

Numba's own parallel loops are not used. Its OpenMP layer kills a child that was forked after a
parallel loop, its workqueue layer aborts the process where two threads enter one, and a parallel
version of a kernel is a second compilation that takes three times as long. Kernels release the
interpreter's lock instead, and `split` hands pieces of the rows to threads of our own: one job at
a time; a caller that finds them taken does all pieces itself, with the same bits.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

import numpy as np

from minidl.backends.native import get_num_threads
from minidl.backends.numba_cpu import CannotCompile, line
from minidl.backends.numba_kernels import elementary, tiles

# What the annotations of kernels name: C-contiguous arrays of the kernel's dtype by their number
# of axes, read or written, and arrays of other types.
In1 = In2 = In3 = In4 = Out1 = Out2 = Out3 = Wide1 = Index1 = Flags4 = Words1 = np.ndarray
_ARRAYS = {
    "In1": ("", 1, False),
    "In2": ("", 2, False),
    "In3": ("", 3, False),
    "In4": ("", 4, False),
    "Out1": ("", 1, True),
    "Out2": ("", 2, True),
    "Out3": ("", 3, True),
    "Wide1": ("float64", 1, True),
    "Index1": ("int64", 1, False),
    "Flags4": ("bool_", 4, False),
    "Words1": ("uint32", 1, True),
}
_SCALARS = {"int": "int64", "float": "float64", "bool": "boolean"}

# Sums may be regrouped into vectors, and products contracted with them; NaN, infinities and signed
# zeros stay what they are.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}}
_helpers: list[Callable] = []  # functions of kernels, not yet registered with Numba
KERNELS: list[Kernel] = []  # all of the families that are imported
_compiling = threading.RLock()


def helper(function: Callable) -> Callable:
    """Mark a function that kernels call: it is compiled as a part of them."""
    _helpers.append(function)
    return function


helper(elementary.largest)


class Kernel:
    """A function over rows start <= i < stop, compiled per dtype: `kernel[x.dtype](0, n, ...)`."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.compiled: dict[Any, Any] = {}
        KERNELS.append(self)

    def __getitem__(self, dtype: np.dtype) -> Callable:
        found = self.compiled.get(dtype)
        return found if found is not None else self._compile(dtype)

    def _compile(self, dtype: np.dtype) -> Callable:
        with _compiling:
            if dtype not in self.compiled:
                try:
                    self.compiled[dtype] = self._compiled(dtype)
                except Exception as error:
                    raise CannotCompile(line(error)) from error
        return self.compiled[dtype]

    def _compiled(self, dtype: np.dtype) -> Callable:
        import numba

        _install()
        names = [name for key, name in self.function.__annotations__.items() if key != "return"]
        own = numba.from_dtype(dtype)
        signature = numba.types.void(*(_numba_type(name, own) for name in names))
        try:
            compiled = numba.njit(cache=True, nogil=True, **_OPTIONS)(self.function)
            with suppress(AttributeError, ImportError, TypeError):  # parts of Numba without a name
                _mark_sources(compiled, self.function)
        except RuntimeError:  # no folder to keep machine code in
            compiled = numba.njit(nogil=True, **_OPTIONS)(self.function)
        compiled.compile(signature)
        compiled.disable_compile()
        return compiled


def _numba_type(name: str, own: Any) -> Any:
    from numba import types

    if name in _SCALARS:
        return getattr(types, _SCALARS[name])
    element, axes, written = _ARRAYS[name]
    element = getattr(types, element) if element else own
    return types.Array(element, axes, "C", readonly=not written)


def _install() -> None:
    from numba.extending import register_jitable

    elementary.install()
    tiles.install()
    while _helpers:
        register_jitable(forceinline=True, **_OPTIONS)(_helpers.pop())


def _mark_sources(compiled: Any, function: Callable) -> None:
    """Make what is kept depend on the files that kernels share, too; Numba looks at one only."""
    from numba.core.caching import IndexDataCacheFile

    files = (function.__code__.co_filename, elementary.__file__, tiles.__file__, __file__)
    stamp = tuple((os.path.getmtime(f), os.path.getsize(f)) for f in files)
    kept = compiled._cache
    name = kept._impl.filename_base
    kept._cache_file = IndexDataCacheFile(kept._cache_path, name, stamp)


# ---------------------------------------------------------------- threads

# Elements that a thread must have to be worth its wake-up, for work of about 1 ns per element. On a
# virtual machine of two cores a second thread of Python took 20 us to be told and 50 to 150 us to
# wake: softmax of half a million float32 (0.3 ms) was the first to gain.
GRAIN = 1 << 18


class _Pool:
    """Threads of our own, started when first needed; they do one job at a time."""

    def __init__(self) -> None:
        self.taken = threading.Lock()
        self.size = 0
        self.executor: ThreadPoolExecutor | None = None

    def submit(self, threads: int, *call: Any) -> Any:
        if self.executor is None or self.size < threads:
            if self.executor is not None:
                self.executor.shutdown()
            self.executor = ThreadPoolExecutor(threads, thread_name_prefix="minidl-numba")
            self.size = threads
        return self.executor.submit(contextvars.copy_context().run, *call)


_pool = _Pool()


def _forked() -> None:
    """A child has none of the threads, nor what they held."""
    global _pool, _compiling
    _pool, _compiling = _Pool(), threading.RLock()


os.register_at_fork(after_in_child=_forked)


def together(calls: Sequence[tuple[Any, ...]]) -> None:
    """Make the calls (function, *args), the first on this thread and the others beside it.

    One after the other where another thread has the pool.
    """
    pool = _pool
    if len(calls) < 2 or not pool.taken.acquire(blocking=False):
        for function, *args in calls:
            function(*args)
        return
    try:
        futures = []
        try:
            for call in calls[1:]:
                futures.append(pool.submit(len(calls) - 1, *call))
        except RuntimeError:  # the interpreter is ending and starts no threads
            pass
        try:
            for function, *args in (calls[0], *calls[len(futures) + 1 :]):
                function(*args)
        finally:
            wait(futures)
        for future in futures:
            future.result()
    finally:
        pool.taken.release()


def workers(count: int, work: float) -> int:
    """Threads for `work` (in elements of 1 ns) that falls into `count` pieces."""
    if work < 2 * GRAIN:
        return 1
    return max(1, min(get_num_threads(), count, int(work // GRAIN)))


def split(kernel: Callable, count: int, work: float, *args: Any) -> None:
    """kernel(start, stop, *args) over pieces that cover range(count)."""
    threads = workers(count, work)
    if threads == 1:
        kernel(0, count, *args)
        return
    edges = [count * i // threads for i in range(threads + 1)]
    together([(kernel, edges[i], edges[i + 1], *args) for i in range(threads)])
