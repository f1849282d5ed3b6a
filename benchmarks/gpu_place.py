"""Where the rows of `benchmarks.gpu_kernels` run: a GPU with its clock and limits, or the emulator.

`GPU` draws data, starts calls between two events of the GPU, and measures what large copies, reads
and writes reach. `Dry` is the same on the stand-in and the emulator of the tests.
"""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from benchmarks.gpu_rows import BFLOAT16
from minidl import backends, cuda
from minidl.backends.table import TABLES, Kernels

ROOT = Path(__file__).parents[1]
LIMITS = r"""
extern "C" __global__ void limit_spin(long long nanoseconds) {
    long long start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - start < nanoseconds);
}
// n: 16-byte words, a multiple of four times the threads of the grid
extern "C" __global__ void limit_copy(const uint4* from, uint4* to, long long n) {
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += 4 * step) {
        const uint4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
        to[i] = a, to[i + step] = b, to[i + 2 * step] = c, to[i + 3 * step] = d;
    }
}
extern "C" __global__ void limit_read(const uint4* from, uint4* to, long long n) {
    const long long step = (long long)gridDim.x * blockDim.x;
    unsigned bits = 0;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += 4 * step)
        for (int part = 0; part < 4; ++part) {
            const uint4 a = from[i + part * step];
            bits |= a.x ^ a.y ^ a.z ^ a.w;
        }
    if (bits == 0) to[0] = uint4{1, 1, 1, 1};  // never, and the compiler does not know
}
extern "C" __global__ void limit_write(const uint4* from, uint4* to, long long n) {
    const long long step = (long long)gridDim.x * blockDim.x;
    const unsigned mine = blockIdx.x * 2654435761u + threadIdx.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += 4 * step)
        for (int part = 0; part < 4; ++part)
            to[i + part * step] = uint4{mine, mine + 1, mine + 2, mine + 3};
}
"""


class GPU:
    """Data, clocks and limits of the GPU."""

    dry = False

    def __init__(self) -> None:
        self.cupy = import_module("cupy")
        self.tables = {"minidl": cuda.table("cuda"), "cupy": cuda.table("cupy")}
        self.name = cuda.get_device_name()
        self.cache = cuda.get_device_properties().L2_cache_size
        module = self.cupy.RawModule(code=LIMITS, options=("-std=c++17",))
        self._kernel = {
            name: module.get_function(f"limit_{name}") for name in ("spin", "copy", "read", "write")
        }
        self._drawn = 0

    # data

    def seeded(self, offset: int) -> None:
        """Draw the numbers from there on."""
        self._drawn = offset

    def _counters(self, words: int) -> int:
        before, self._drawn = self._drawn, self._drawn + words // 4 + 1
        return before

    def normal(self, shape: tuple[int, ...], dtype: np.dtype | None = None) -> Any:
        """See gpu_rows.Source; drawn by CuPy's table."""
        k = self.tables["cupy"]
        count = int(np.prod(shape))
        x = k.normal(shape, np.dtype(np.float32), 1, self._counters(count + 1))
        return x if dtype in (None, np.dtype(np.float32)) else k.cast(x, dtype)

    def integers(self, high: int, shape: tuple[int, ...]) -> Any:
        """See gpu_rows.Source."""
        count = int(np.prod(shape))
        return self.tables["cupy"].randint(0, high, shape, 1, self._counters(2 * count))

    def filled(self, shape: tuple[int, ...], value: float) -> Any:
        """See gpu_rows.Source."""
        return self.tables["cupy"].full(shape, value, np.dtype(np.float32))

    def tensor(self, torch: Any, x: Any) -> Any:
        """The same memory as a tensor of PyTorch."""
        if x.dtype != BFLOAT16:
            return torch.as_tensor(x, device="cuda")
        return torch.as_tensor(x.view(np.int16), device="cuda").view(torch.bfloat16)

    def put(self, target: Any, source: Any) -> None:
        """Copy values."""
        target[...] = source

    # time

    def wait(self) -> None:
        """Until the GPU has done everything; raises what it refused."""
        cuda.synchronize()

    def window(self, call: Callable[[], Any], calls: int, ahead: float) -> tuple[float, float]:
        """(seconds on the GPU, seconds to start it) of a call, behind `ahead` seconds of spin."""
        start, stop = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        self._kernel["spin"]((1,), (1,), (np.int64(ahead * 1e9),))
        start.record()
        before = perf_counter()
        for _ in range(calls):
            call()
        host = perf_counter() - before
        stop.record()
        stop.synchronize()
        return self.cupy.cuda.get_elapsed_time(start, stop) * 1e-3 / calls, host / calls

    def free(self) -> None:
        """Give back the memory of the last row."""
        gc.collect()
        cuda.empty_cache()
        if "torch" in sys.modules:
            sys.modules["torch"].cuda.empty_cache()

    def limits(self) -> dict[str, float]:
        """Bytes a second of large copies (read and written counted), reads and writes."""
        blocks, threads = 132 * 8, 512
        words = 4 * blocks * threads * 32  # 1.1 GB
        x = self.normal((4 * words,)).view(np.uint32)
        y = self.cupy.empty_like(x)

        def rate(call: Callable[[], Any], size: int) -> float:
            self.window(call, 3, 0)
            times = [self.window(call, 3, 1e-4)[0] for _ in range(9)]
            return size / statistics.median(times)

        def started(name: str) -> Callable[[], Any]:
            given = (x, y, np.int64(words))
            return lambda: self._kernel[name]((blocks,), (threads,), given)

        found = {
            "memcpy": rate(lambda: y.data.copy_from_device_async(x.data, x.nbytes), 2 * x.nbytes),
            "copy kernel": rate(started("copy"), 2 * x.nbytes),
            "read": rate(started("read"), x.nbytes),
            "write": rate(started("write"), x.nbytes),
        }
        return {"copy": max(found["memcpy"], found["copy kernel"]), **found}

    def facts(self) -> dict[str, Any]:
        """The driver, and the versions that only a GPU has."""
        runtime = self.cupy.cuda.runtime
        driver = runtime.driverGetVersion()
        return {"driver": _driver(), "cuda": driver, "runtime": runtime.runtimeGetVersion()}


class Dry(GPU):
    """The same without a GPU: the emulator and the stand-in of the tests, and a clock."""

    dry = True

    def __init__(self, tables: dict[str, Kernels]) -> None:
        self.tables = tables
        self.name = "none: the emulator"
        self.cache = 1
        self._drawn = 0

    def tensor(self, torch: Any, x: Any) -> Any:
        """A copy as a tensor of PyTorch."""
        values = np.array(backends.host(x))
        if x.dtype != BFLOAT16:
            return torch.from_numpy(values)
        return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)

    def wait(self) -> None:
        """Everything is done when it is asked for; what was refused is raised."""
        self.tables["cupy"].host(self.filled((), 0.0))

    def window(self, call: Callable[[], Any], calls: int, ahead: float) -> tuple[float, float]:
        """See GPU."""
        start = perf_counter()
        for _ in range(calls):
            call()
        return (perf_counter() - start) / calls, 0.0

    def free(self) -> None:
        """Nothing is kept."""

    def limits(self) -> dict[str, float]:
        """Of this processor, so that there is a number."""
        x = np.random.default_rng(0).random(1 << 20)
        x.copy()
        start = perf_counter()
        x.copy()
        return {"copy": 2 * x.nbytes / (perf_counter() - start)}

    def facts(self) -> dict[str, Any]:
        """Nothing to tell."""
        return {}


def _driver() -> str:
    try:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(asked, capture_output=True, text=True).stdout.split("\n")[0]
    except OSError:
        return ""


@contextmanager
def emulator() -> Iterator[None]:
    """Run the block on the stand-in for CuPy and the kernels on the CPU, as the tests do."""
    sys.path.append(str(ROOT / "tests"))
    with import_module("emulation").emulated():
        yield


@contextmanager
def place(dry: bool, bounded: bool = False) -> Iterator[GPU]:
    """Where the rows run; `bounded`: without CuPy's pool, which hands out parts of allocations."""
    if not dry:
        if why := cuda.missing():
            raise SystemExit(f"benchmarks.gpu_kernels needs a GPU, or --dry: {why}")
        lab = GPU()
        if bounded:
            lab.cupy.cuda.set_allocator(None)
        yield lab
        return
    with emulator():
        yield Dry({"minidl": TABLES["cuda"], "cupy": TABLES["cupy"]})
