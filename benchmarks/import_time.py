"""What `import minidl` costs over `import numpy`: medians of fresh interpreters, interleaved.

Run `python benchmarks/import_time.py [--runs N]`. The budget is 60 ms; nothing is asserted here,
because a timing on a busy machine proves nothing.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys

BUDGET_MS = 60.0
TIMED = """
from time import perf_counter
start = perf_counter()
import {module}
print(perf_counter() - start)
"""


def once(module: str) -> float:
    """Milliseconds that a fresh interpreter takes to import a module."""
    command = [sys.executable, "-c", TIMED.format(module=module)]
    # users have byte code: without it the source would be compiled at every start
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return 1000 * float(done.stdout)


def measure(runs: int) -> dict[str, list[float]]:
    """Times of both imports; alternating, so that a drift of the machine hits both alike."""
    modules = ("numpy", "minidl")
    for module in modules:
        once(module)  # writes the byte code and warms the file cache
    times: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(runs):
        for module in modules:
            times[module].append(once(module))
    return times


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=21, help="interpreters per module, at least 15")
    runs = max(15, parser.parse_args().runs)
    times = measure(runs)
    print(f"Python {platform.python_version()}, {platform.machine()}, {runs} interpreters each")
    print(f"{'import':8} {'median ms':>10} {'fastest':>8} {'slowest':>8}")
    for module, values in times.items():
        row = statistics.median(values), min(values), max(values)
        print(f"{module:8} {row[0]:10.1f} {row[1]:8.1f} {row[2]:8.1f}")
    over = statistics.median(times["minidl"]) - statistics.median(times["numpy"])
    print(f"minidl over numpy: {over:.1f} ms (budget {BUDGET_MS:.0f} ms)")


if __name__ == "__main__":
    main()
