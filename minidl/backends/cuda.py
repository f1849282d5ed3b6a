"""GPUs beside operators, in the names of torch.cuda: devices, streams, events, memory, graphs.

CuPy does the work underneath; it is imported when the first question needs it, so that without a
GPU `device = "cuda" if cuda.is_available() else "cpu"` costs a look at what is installed.
"""

from __future__ import annotations

import importlib
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.backends import cupy_gpu, native_cuda
from minidl.backends.cupy_gpu import capture
from minidl.backends.cupy_gpu.capture import register_generator as register_generator
from minidl.backends.cupy_gpu.graphs import (
    CUDAGraph as CUDAGraph,
    graph as graph,
    graph_pool_handle as graph_pool_handle,
    is_current_stream_capturing as is_current_stream_capturing,
    make_graphed_callables as make_graphed_callables,
    private_pools,
)
from minidl.backends.cupy_gpu.presence import missing as missing, present
from minidl.backends.cupy_gpu.streams import (
    Event as Event,
    Stream as Stream,
    current_stream as current_stream,
    default_stream as default_stream,
    device as device,
    device_index,
    set_stream as set_stream,
    stream as stream,
)
from minidl.backends.table import TABLES, Kernels
from minidl.errors import ArgumentError

_lock = threading.Lock()


# ---------------------------------------------------------------- is there one


def is_available() -> bool:
    """Whether tensors can live on a GPU."""
    return missing() is None


def device_count() -> int:
    """How many GPUs there are for tensors."""
    return present().cuda.runtime.getDeviceCount() if is_available() else 0


NAMES = ("cupy", "cuda")  # of the tables: CuPy alone, and our kernels over it


def table(name: str = "cuda") -> Kernels:
    """A kernel table of the GPU, built when one is first asked for; DeviceError without a GPU."""
    with _lock:
        if name not in TABLES:
            cupy = present()
            build_tables()
            _watch_memory(cupy)
    return TABLES[name]


def build_tables() -> None:
    """Build the tables of the GPU over the array module that is called CuPy now."""
    layers = [cupy_gpu.layer()]
    TABLES["cupy"] = Kernels("cuda", cupy_gpu.module(), layers)
    TABLES["cuda"] = Kernels("cuda", cupy_gpu.module(), [*layers, native_cuda.layer()])


def describe() -> list[str] | str:
    """One line for each GPU, or why there is none."""
    if why := missing():
        return f"none: {why}"
    lines = []
    for index in range(device_count()):
        found = get_device_properties(index)
        memory = f"{found.total_memory / 2**30:.0f} GiB"
        lines.append(f"cuda:{index} {found.name}, {memory}, {found.major}.{found.minor}")
    return lines


# ---------------------------------------------------------------- devices


def current_device() -> int:
    """Index of the GPU that "cuda" without an index means in this thread."""
    return device_index(None)


def set_device(device: Any) -> None:
    """Make a GPU the current one of this thread: an index, "cuda:1" or a `minidl.device`."""
    present().cuda.Device(device_index(device)).use()


@dataclass(frozen=True)
class DeviceProperties:
    """What a GPU is: bytes of memory, multiprocessors, compute capability major.minor."""

    name: str
    major: int
    minor: int
    total_memory: int
    multi_processor_count: int
    warp_size: int
    L2_cache_size: int
    shared_memory_per_block: int


def get_device_properties(device: Any = None) -> DeviceProperties:
    """Name, memory and size of a GPU, by default the current one."""
    found = present().cuda.runtime.getDeviceProperties(device_index(device))
    return DeviceProperties(
        found["name"].decode(),
        found["major"],
        found["minor"],
        found["totalGlobalMem"],
        found["multiProcessorCount"],
        found["warpSize"],
        found["l2CacheSize"],
        found["sharedMemPerBlock"],
    )


def get_device_name(device: Any = None) -> str:
    """Name of a GPU, by default the current one."""
    return get_device_properties(device).name


def get_device_capability(device: Any = None) -> tuple[int, int]:
    """Compute capability (major, minor) of a GPU, by default the current one."""
    found = get_device_properties(device)
    return found.major, found.minor


def synchronize(device: Any = None) -> None:
    """Wait for all work on a GPU; raises what checks of values found in it.

    Operators do not wait for the GPU to check values (labels in range, for example); they note
    the check, and the next read of a value or this function raises the error.
    """
    capture.refuse_capture("waiting for the GPU", "leave it out of the graph's block")
    present().cuda.Device(device_index(device)).synchronize()
    cupy_gpu.raise_refused()


# ---------------------------------------------------------------- memory

_peak: dict[int, int] = {}


def _watch_memory(cupy: Any) -> None:
    """Note the most memory in use, where memory is asked for; CuPy's pool keeps no peak.

    An allocator that the program itself gave CuPy is left in its place.
    """
    pool = cupy.get_default_memory_pool()
    if cupy.cuda.get_allocator() != pool.malloc:
        return
    malloc, used, get_device = pool.malloc, pool.used_bytes, cupy.cuda.runtime.getDevice

    def watched(size: int) -> Any:
        memory = malloc(size)
        now, where = used(), get_device()
        if now > _peak.get(where, 0):
            _peak[where] = now
        return memory

    cupy.cuda.set_allocator(watched)


def _in_use(cupy: Any, index: int) -> int:
    with cupy.cuda.Device(index):
        pools = [cupy.get_default_memory_pool(), *private_pools]
        return sum(pool.used_bytes() for pool in pools)


def memory_allocated(device: Any = None) -> int:
    """Bytes that arrays hold on a GPU: CuPy's pool and those of graphs, in units of 512 bytes."""
    return _in_use(present(), device_index(device))


def max_memory_allocated(device: Any = None) -> int:
    """The most bytes that arrays held at once, without those of graphs, and at least what they
    hold now; since the program began or `reset_peak_memory_stats`.

    Counted from the first tensor on a GPU. A program that gave CuPy an allocator of its own gets
    what is in use now.
    """
    index = device_index(device)
    return max(_peak.get(index, 0), _in_use(present(), index))


def reset_peak_memory_stats(device: Any = None) -> None:
    """Start `max_memory_allocated` anew."""
    _peak.pop(device_index(device), None)


def memory_reserved(device: Any = None) -> int:
    """Bytes that the pools took from a GPU, in use or kept for the next arrays."""
    cupy = present()
    with cupy.cuda.Device(device_index(device)):
        pools = [cupy.get_default_memory_pool(), *private_pools]
        return sum(pool.total_bytes() for pool in pools)


def empty_cache() -> None:
    """Give the memory of the current GPU back that no array holds; nothing without a GPU."""
    if is_available():
        present().get_default_memory_pool().free_all_blocks()


def mem_get_info(device: Any = None) -> tuple[int, int]:
    """(free, total) bytes of a GPU, whoever uses them."""
    return present().cuda.Device(device_index(device)).mem_info


def memory_stats(device: Any = None) -> dict[str, int]:
    """What is known of the memory, under torch's names; CuPy counts less than torch does."""
    return {
        "allocated_bytes.all.current": memory_allocated(device),
        "allocated_bytes.all.peak": max_memory_allocated(device),
        "reserved_bytes.all.current": memory_reserved(device),
    }


# ---------------------------------------------------------------- random numbers


def manual_seed(seed: int) -> None:
    """Seed the generator that serves the current GPU; without one nothing happens.

    One generator draws for all devices here, so with a GPU this is `minidl.manual_seed(seed)`:
    it starts the numbers of the CPU anew, too, where PyTorch would leave them.
    """
    if is_available():
        capture.default_generator().manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the generators of all GPUs: one serves them all, see `manual_seed`."""
    manual_seed(seed)


# ---------------------------------------------------------------- pinned memory


def pinned_copy(array: np.ndarray) -> np.ndarray:
    """A copy of `array` in page-locked memory, from which copies to a GPU run beside other work.

    Shape and dtype are the array's; the copy is C-contiguous. DeviceError without a GPU.
    """
    present()
    if not array.size:
        return array.copy()
    out = importlib.import_module("cupyx").empty_pinned(array.shape, array.dtype)
    out[...] = array
    return out


def is_pinned(array: np.ndarray) -> bool:
    """Whether the elements of a NumPy array lie in page-locked memory; False without a GPU."""
    if not array.size or not is_available():
        return False
    return bool(present().cuda.pinned_memory.is_memory_pinned(array.ctypes.data))


# ---------------------------------------------------------------- what CuPy cannot tell


def memory_summary(device: Any = None, abbreviated: bool = False) -> str:
    """The numbers of `memory_stats` as text, one a line."""
    return "\n".join(f"{name}: {value}" for name, value in memory_stats(device).items())


def set_per_process_memory_fraction(fraction: float, device: Any = None) -> None:
    """Refuse arrays that would take more than this part of a GPU's memory."""
    if not 0 <= fraction <= 1:
        raise ArgumentError("fraction must lie in [0, 1]", got=repr(fraction))
    cupy = present()
    with cupy.cuda.Device(device_index(device)):
        cupy.get_default_memory_pool().set_limit(fraction=fraction)
