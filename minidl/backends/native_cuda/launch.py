"""Starting the kernels of csrc/cuda: by the extension, or compiled at run time by NVRTC.

A kernel takes one struct of 8-byte fields, which are given here as integers (addresses, sizes) and
floats. `minidl._cuda`, compiled by nvcc at install, starts it in a microsecond; without that, CuPy
compiles the same source for the GPU at hand when a family is first used. Nothing here waits for the
GPU, and no kernel allocates: outputs and work space are CuPy arrays that the caller made.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from minidl.backends.cupy_gpu.xp import cp
from minidl.errors import DeviceError

try:
    import minidl._cuda as _extension  # type: ignore[import-not-found]
except ImportError as error:
    _extension, _import_error = None, str(error)

_PACKAGE = Path(__file__).parent.parent.parent
# bytes of shared memory that kernels with dynamic memory have of their own, at most
_OWN_SHARED = 2048
_USUAL_SHARED = 48 * 1024 - _OWN_SHARED  # dynamic memory that need not be asked for
_NO_TEXT = "not built: install minidl, or run `python setup.py build_ext --inplace`"
BUSY = 132 * 8  # blocks that keep a large GPU busy

# the suffix of a kernel for arrays of this dtype
KINDS = {
    np.dtype(np.float32): "float32",
    np.dtype(np.float64): "float64",
    np.dtype(np.float16): "float16",
    np.dtype(ml_dtypes.bfloat16): "bfloat16",
}


class Machine(Protocol):
    """Who runs kernels."""

    def start(
        self, family: str, kernel: str, blocks: int, threads: int, shared: int, fields: tuple
    ) -> None:
        """Start `blocks` blocks of `threads` threads with `shared` bytes of dynamic memory."""

    def most_shared(self) -> int:
        """The most bytes of dynamic memory that a block may have."""
        ...

    def load(self) -> None:
        """Load every kernel on the current GPU, as must be done before a graph is captured."""


class OnGPU:
    """What the two that start kernels on a GPU have in common."""

    def __init__(self) -> None:
        self._shared: dict[int, int] = {}

    def most_shared(self) -> int:
        """What the current GPU allows, less what kernels have of their own."""
        place = cp.cuda.runtime.getDevice()
        if place not in self._shared:
            properties = cp.cuda.runtime.getDeviceProperties(place)
            self._shared[place] = properties["sharedMemPerBlockOptin"] - _OWN_SHARED
        return self._shared[place]


class Compiled(OnGPU):
    """The extension."""

    def __init__(self, extension: Any) -> None:
        super().__init__()
        self._launch = extension.launch
        self._find = extension.find
        self._handles: dict[str, int] = {}
        self._load = extension.load
        self._loaded: set[int] = set()

    def load(self) -> None:
        """Load every kernel of the extension on the current GPU, once."""
        if (place := cp.cuda.runtime.getDevice()) not in self._loaded:
            self._load()
            self._loaded.add(place)

    def start(
        self, family: str, kernel: str, blocks: int, threads: int, shared: int, fields: tuple
    ) -> None:
        """Start a kernel in the current stream."""
        handle = self._handles.get(kernel)
        if handle is None:
            handle = self._handles[kernel] = self._find(kernel)
        self._launch(handle, blocks, threads, shared, cp.cuda.get_current_stream().ptr, *fields)


class Runtime(OnGPU):
    """NVRTC, through CuPy, which keeps what it compiled on disk."""

    def __init__(self) -> None:
        super().__init__()
        self._modules: dict[tuple[int, str], Any] = {}
        self._kernels: dict[tuple[int, str], Any] = {}
        self._large: set[tuple[int, str]] = set()

    def start(
        self, family: str, kernel: str, blocks: int, threads: int, shared: int, fields: tuple
    ) -> None:
        """Start a kernel in the current stream; the first one of a family is compiled first."""
        place = cp.cuda.runtime.getDevice()
        function = self._kernels.get((place, kernel))
        if function is None:
            function = self._load(place, family, kernel)
        if shared > _USUAL_SHARED and (place, kernel) not in self._large:
            # all that there is, and once: another thread may be about to start it with more
            function.max_dynamic_shared_size_bytes = self.most_shared()
            self._large.add((place, kernel))
        function((blocks,), (threads,), (packed(fields),), shared_mem=shared)

    def load(self) -> None:
        """Compile every family for the current GPU; CuPy keeps what it compiled on disk."""
        place = cp.cuda.runtime.getDevice()
        for file in sorted((_PACKAGE / "_kernels").glob("*.cu")):
            self._module(place, file.stem).compile()

    def _module(self, place: int, family: str) -> Any:
        module = self._modules.get((place, family))
        if module is None:
            module = cp.RawModule(code=source(family), options=OPTIONS)
            self._modules[place, family] = module
        return module

    def _load(self, place: int, family: str, kernel: str) -> Any:
        function = self._module(place, family).get_function(kernel)
        self._kernels[place, kernel] = function
        return function


OPTIONS = ("-std=c++17",)


def packed(fields: tuple) -> np.ndarray:
    """The struct of these fields as an array of one element, which CuPy passes by value."""
    codes = "".join(["d" if type(field) is float else "Q" for field in fields])
    wrapped = [field if type(field) is float else field & 0xFFFFFFFFFFFFFFFF for field in fields]
    data = struct.pack(f"<{codes}", *wrapped)
    return np.frombuffer(data, np.dtype([("field", "<u8", (len(fields),))]))


def source(family: str) -> str:
    """The text of a family, as the build left it beside the package."""
    return (_PACKAGE / "_kernels" / f"{family}.cu").read_text(encoding="utf-8")


_machine: Machine | None = None


def missing() -> str | None:
    """Why no kernel of ours runs here, in one line; None if they do. Chooses the machine."""
    global _machine
    if _machine is not None:
        return None
    if not hasattr(cp, "RawModule"):
        return "the stand-in for CuPy runs no kernels"
    why = _import_error if _extension is None else _unfit(_extension.runtime_version)
    if not why:
        _machine = Compiled(_extension)
    elif not (_PACKAGE / "_kernels").is_dir():
        return _NO_TEXT if _extension is None else why
    else:
        _machine = Runtime()
    return None


def _unfit(version: int) -> str | None:
    """Why the extension, made with this version of CUDA, cannot run on the GPUs here."""
    runtime = cp.cuda.runtime
    driver = runtime.driverGetVersion()
    if driver // 1000 < version // 1000:
        return f"minidl._cuda needs a driver for CUDA {version // 1000}; this one is {driver}"
    for place in range(runtime.getDeviceCount()):
        found = runtime.getDeviceProperties(place)
        if found["major"] < 8:
            return f"minidl._cuda needs GPUs of 8.0; cuda:{place} is {found['major']}.x"
    return None


def describe() -> str:
    """How the kernels come to a GPU, in one line, whether there is a GPU or not."""
    if _extension is not None:
        major, minor = divmod(_extension.runtime_version // 10, 100)
        count = len(_extension.kernels())
        return f"minidl._cuda: {count} kernels, compiled by nvcc {major}.{minor}"
    if not (_PACKAGE / "_kernels").is_dir():
        return f"none: {_NO_TEXT}"
    return f"compiled by NVRTC when they are first used ({_why_no_extension()})"


def _why_no_extension() -> str:
    """What the installation noted, or Python's own reason."""
    try:
        note = (_PACKAGE / "_build_cuda.txt").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        note = ""
    return note or _import_error


def use(machine: Machine | None) -> Machine | None:
    """Start kernels on this machine from now on; the one before. None: choose anew."""
    global _machine
    before, _machine = _machine, machine
    return before


def load() -> None:
    """Load every kernel on the current GPU: nothing may be loaded while a graph is captured."""
    machine: Any = _machine
    machine.load()


class Family:
    """The kernels of one file of csrc/cuda."""

    def __init__(self, name: str) -> None:
        self.name = name

    def start(self, kernel: str, blocks: int, threads: int, shared: int, *fields: Any) -> None:
        """Start `kernel` in the current stream; an address may be None, of nothing."""
        if not blocks:
            return
        if blocks >= 2**31:
            raise DeviceError(f"{kernel} would need {blocks} blocks; a GPU takes 2^31 - 1")
        machine: Any = _machine
        given = tuple([0 if field is None else field for field in fields])
        machine.start(self.name, kernel, blocks, threads, shared, given)


def pointer(x: Any) -> int:
    """The address of an array's first element; 0 for None."""
    return 0 if x is None else x.data.ptr


def rows_plan(rows: int, width: int, itemsize: int, kept: int = 1) -> tuple[int, int, int, int]:
    """How to work on rows: (blocks, threads, threads per row, bytes of shared memory).

    A warp takes a row of up to 1,024 elements, a block of 128 to 512 threads a longer one; `kept`
    rows of the same width stay in shared memory, or no bytes of it where they do not fit.
    """
    if width <= 1024:
        group, threads = 32, 256
    else:
        group = threads = 128 if width <= 4096 else 256 if width <= 16384 else 512
    teams = threads // group
    return -(-rows // teams), threads, group, kept_memory(teams * kept, width, itemsize)


def kept_memory(rows: int, width: int, itemsize: int) -> int:
    """Bytes of shared memory for so many rows of one block; 0 where they do not fit."""
    shared = rows * (-(-width * itemsize // 16) * 16)
    return shared if shared <= _most_shared() else 0


def _most_shared() -> int:
    machine: Any = _machine
    return machine.most_shared()
