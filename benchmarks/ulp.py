"""The largest errors of exp, log, tanh and erf over all 2^32 float32 numbers.

    python -m benchmarks.ulp [exp log tanh erf] [--isa NAME] [--every N]

Errors are in units of the last place of the result, against float64. --every N looks at one of N
neighbouring numbers. All numbers take some minutes on two cores.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

import minidl
from minidl.backends import local, native

CHUNK = 1 << 20


def erf(x: np.ndarray) -> np.ndarray:
    """erf in float64: by its series near 0, by the C library where it is neither that nor 1."""
    size = np.abs(x)
    out = np.where(size < 1e-4, x * (2 / math.sqrt(math.pi)) * (1 - x * x / 3), np.sign(x))
    middle = (size >= 1e-4) & (size < 5)
    if middle.any():
        out[middle] = np.fromiter(map(math.erf, x[middle].tolist()), np.float64)
    out[np.isnan(x)] = np.nan
    return out


FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "erf": erf,
}


def worst(name: str, every: int, start: int) -> tuple[float, float]:
    """The largest error over the numbers whose bits are start, start + every ..., and its place."""
    bits = np.arange(start, start + CHUNK * every, every, dtype=np.uint64).astype(np.uint32)
    x = bits.view(np.float32)
    got = local.state.run(getattr(local.state.cpu, name), x)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](x.astype(np.float64))
        rounded = want.astype(np.float32)
        exponent = np.maximum(rounded.view(np.uint32) >> 23 & 0xFF, 1).astype(np.uint64)
        unit = (exponent + np.uint64(1023 - 127 - 23) << np.uint64(52)).view(np.float64)
        error = np.abs(got - want) / unit
    special = ~np.isfinite(rounded) | ~np.isfinite(got)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    error[special] = np.where(same[special], 0.0, np.inf)
    at = int(error.argmax())
    return float(error[at]), float(x[at])


def main() -> None:
    """Print the largest error of every function that is named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ulp", description=__doc__)
    parser.add_argument("functions", nargs="*", metavar="FUNCTION")
    parser.add_argument("--isa", help="the instruction set to run")
    parser.add_argument("--every", type=int, default=1)
    args = parser.parse_args()
    if args.isa:
        native.use_isa(args.isa)
    minidl.set_num_threads(1)
    print(native.describe())
    starts = range(0, 1 << 32, CHUNK * args.every)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for name in args.functions or FUNCTIONS:
            error, x = max(pool.map(partial(worst, name, args.every), starts))
            print(f"{name:6} {error:.3f} at {x!r} ({np.float32(x).view(np.uint32):#010x})")


if __name__ == "__main__":
    main()
