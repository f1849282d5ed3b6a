"""What `import minidl` costs over `import numpy`: medians of fresh interpreters, interleaved.

    python benchmarks/import_time.py [--runs N]

The budget is 60 ms. Nothing is asserted: on a busy machine the wall clock says little, and the
processor time beside it tells how busy it was.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile

BUDGET_MS = 60.0
MODULES = ("numpy", "minidl")
TIMED = """
from time import perf_counter, process_time
wall, cpu = perf_counter(), process_time()
import {module}
print(perf_counter() - wall, process_time() - cpu)
"""


def once(module: str, cache: str) -> tuple[float, float]:
    """Wall-clock and processor milliseconds that a fresh interpreter takes to import a module."""
    command = [sys.executable, "-c", TIMED.format(module=module)]
    # Both are measured with their byte code on disk, as an installed package has it, even where
    # the environment forbids writing it.
    env = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    wall, cpu = map(float, done.stdout.split())
    return 1000 * wall, 1000 * cpu


def measure(runs: int) -> dict[str, list[tuple[float, float]]]:
    """Times of both imports; alternating, so that a drift of the machine hits both alike."""
    times: dict[str, list[tuple[float, float]]] = {module: [] for module in MODULES}
    with tempfile.TemporaryDirectory() as cache:
        for module in MODULES:
            once(module, cache)  # writes the byte code and warms the file cache
        for _ in range(runs):
            for module in MODULES:
                times[module].append(once(module, cache))
    return times


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=21, help="interpreters per module, at least 15")
    runs = max(15, parser.parse_args().runs)
    times = measure(runs)
    print(f"Python {platform.python_version()}, {platform.machine()}, {runs} interpreters each")
    print(f"{'import, ms':12} {'numpy':>8} {'minidl':>8} {'over':>8}")
    for column, clock in enumerate(("wall", "processor")):
        for name, pick in (("median", statistics.median), ("fastest", min), ("slowest", max)):
            numpy, minidl = (pick(t[column] for t in times[m]) for m in MODULES)
            over = "" if name == "slowest" else f"{minidl - numpy:8.1f}"
            print(f"{clock[:4]} {name:7} {numpy:8.1f} {minidl:8.1f} {over}")
    over = statistics.median(t[0] for t in times["minidl"])
    over -= statistics.median(t[0] for t in times["numpy"])
    print(f"minidl over numpy: {over:.1f} ms, median wall clock (budget {BUDGET_MS:.0f} ms)")


if __name__ == "__main__":
    main()
