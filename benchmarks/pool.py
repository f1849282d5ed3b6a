"""The thread pool beside OpenMP's: 16 tasks of 5 us, alone and while another process competes.

Both run the same tasks in one program that is compiled for the measurement (needs a C++ compiler).
A task counts rather than looks at the clock, so that time without the processor is not taken for
work. The competitor is a loop in a process of its own, bound to the last processor.
"""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

CPU = Path(__file__).parents[1] / "csrc" / "cpu"
TASKS, MICROSECONDS = 16, 5.0
BARS = {"mean": 0.8, "p99": 500.0}  # of libgomp's mean; microseconds

PROGRAM = r"""
#include <chrono>
#include <cstdint>
#include "parallel.h"

static void count(long turns) {
    std::uint64_t x = 1;
    for (long i = 0; i < turns; i++) {
        x = x * 6364136223846793005u + 1;
        asm volatile("" : "+r"(x));
    }
}
static double now() {
    using namespace std::chrono;
    return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}
extern "C" double time_turns(long turns) {
    const double start = now();
    count(turns);
    return now() - start;
}
extern "C" void threads(int n) { set_thread_count(n); }
// One time per call of `tasks` tasks: 0 on our pool, 1 and 2 with OpenMP, 3 serial.
extern "C" void measure(int how, int n, int tasks, long turns, int calls, double* times) {
    for (int call = 0; call < calls; call++) {
        const double start = now();
        if (how == 0) {
            parallel_for(tasks, [&](std::ptrdiff_t) { count(turns); });
        } else if (how == 1) {
#pragma omp parallel for num_threads(n) schedule(static)
            for (int task = 0; task < tasks; task++) count(turns);
        } else if (how == 2) {
#pragma omp parallel for num_threads(n) schedule(dynamic)
            for (int task = 0; task < tasks; task++) count(turns);
        } else {
            for (int task = 0; task < tasks; task++) count(turns);
        }
        times[call] = now() - start;
    }
}
"""
KINDS = ("minidl", "libgomp static", "libgomp dynamic", "serial")


def _built(folder: str) -> ctypes.CDLL:
    """The program as a library."""
    source, target = Path(folder, "pool.cpp"), Path(folder, "pool.so")
    source.write_text(PROGRAM, encoding="utf-8")
    flags = ["-std=c++17", "-O2", "-fopenmp", "-pthread", "-shared", "-fPIC", f"-I{CPU}"]
    compiler = os.environ.get("CXX", "g++")
    files = [str(source), str(CPU / "parallel.cpp"), "-o", str(target)]
    subprocess.run([compiler, *flags, *files], check=True)
    library = ctypes.CDLL(str(target))
    library.time_turns.restype = ctypes.c_double
    library.time_turns.argtypes = [ctypes.c_long]
    library.measure.argtypes = [ctypes.c_int] * 3 + [ctypes.c_long, ctypes.c_int, ctypes.c_void_p]
    return library


@contextmanager
def competitor() -> Iterator[None]:
    """A process that wants the last processor for as long as the block runs."""
    last = max(os.sched_getaffinity(0))
    code = f"import os; os.sched_setaffinity(0, {{{last}}})\nprint(flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield
        finally:
            process.kill()


def _times(library: Any, turns: int, tasks: int, threads: int, calls: int, rounds: int) -> Any:
    """Kind -> microseconds of every call; in turns, so that all meet the same moments."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    times = (ctypes.c_double * calls)()
    for _ in range(rounds):
        for how, kind in enumerate(KINDS):
            sleep(0.02)  # until the threads of the one before sleep
            library.measure(how, threads, tasks, turns, calls, ctypes.addressof(times))
            found[kind] += list(times)
    return found


def _print(title: str, found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    rows = {}
    print(title)
    for kind, times in found.items():
        p99 = statistics.quantiles(times, n=100)[98]
        figures = {"median": statistics.median(times), "mean": statistics.fmean(times), "p99": p99}
        rows[kind] = figures | {"worst": max(times)}
        print(f"  {kind:16} " + "  ".join(f"{k} {v:9.2f}" for k, v in rows[kind].items()))
    return rows


def run(only: str, threads: int) -> dict[str, Any]:
    """Measure and print; `only` and one thread mean nothing here."""
    threads = max(2, threads)
    with tempfile.TemporaryDirectory() as folder:
        library = _built(folder)
        library.threads(threads)
        turns = int(MICROSECONDS * 100_000 / min(library.time_turns(100_000) for _ in range(20)))
        print(f"\npool, {threads} threads, microseconds; {TASKS} tasks of {MICROSECONDS:.0f}")
        quiet = _print("nothing else runs", _times(library, turns, TASKS, threads, 50, 15))
        nothing = _times(library, 0, threads, threads, 50, 15)
        empty = _print("tasks of nothing: fork and join", nothing)
        with competitor():
            busy = _times(library, turns, TASKS, threads, 50, 15)
        contended = _print("another process on one processor", busy)
    ratio = contended["minidl"]["mean"] / contended["libgomp static"]["mean"]
    p99 = contended["minidl"]["p99"]
    missed = [name for name, value in (("mean", ratio), ("p99", p99)) if value > BARS[name]]
    note = f"  MISSED {', '.join(missed)}" if missed else ""
    bars = f"mean {ratio:.2f} of libgomp static (bar {BARS['mean']}), p99 {p99:.0f} us"
    print(f"{bars} (bar {BARS['p99']:.0f}){note}")
    figures = {"quiet": quiet, "empty": empty, "contended": contended}
    return {"suite": "pool", "threads": threads, **figures, "ratio": ratio, "missed": missed}
