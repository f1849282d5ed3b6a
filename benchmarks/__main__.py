"""`python -m benchmarks SUITE`: our times beside the rivals', the limits, and bars.

    python -m benchmarks gemm attention fused optim overhead train [--threads 1] [--rounds 15]
        [--only TEXT] [--compile] [--jax PYTHON] [--save | --check] [--json FILE] [--picture FILE]
    python -m benchmarks memory pool
    python -m benchmarks gpu_kernels --help

Needs the extra `bench`. Rivals and we run with the same number of threads. JAX is a rival where it
is installed, or under the interpreter that --jax names: another environment leaves torch's alone.
--save keeps the ratios
under benchmarks/results, --check compares with those that are kept; --picture draws the rows under
the limits of the machine (roofline). `memory` is the peak of a training step by one process per
library, `pool` the thread pool beside OpenMP's where another process wants the processor,
`gpu_kernels` the kernels of a GPU, with options of its own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

SUITES = ("gemm", "attention", "fused", "optim", "overhead", "train")
OTHERS = ("memory", "pool")  # no rows: they measure in their own way


def main() -> int:
    """Run the suites that are named."""
    if sys.argv[1:2] == ["gpu_kernels"]:
        from benchmarks import gpu_kernels

        return gpu_kernels.main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suites", nargs="+", choices=SUITES + OTHERS, metavar="SUITE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--compile", action="store_true", help="train: torch.compile as a rival")
    parser.add_argument("--jax", metavar="PYTHON", help="an interpreter that has JAX")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path, help="write what was measured")
    parser.add_argument("--picture", type=Path, help="draw the rows under the limits: PNG or SVG")
    args = parser.parse_args()
    if args.save and args.rounds < 15:
        parser.error("ratios are kept from 15 rounds or more")
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(args.threads)  # read when NumPy and torch are imported
    from benchmarks import remote

    timed = any(suite in SUITES for suite in args.suites)
    jax, said = remote.found(args.jax, args.threads) if timed else (None, "")

    import torch

    import minidl
    from benchmarks import harness

    torch.set_num_threads(args.threads)
    minidl.set_num_threads(args.threads)
    settings = harness.Settings(rounds=args.rounds, threads=args.threads, jax=jax)
    failed, written = False, []
    for suite in args.suites:
        module = importlib.import_module(f"benchmarks.{suite}")
        if suite in OTHERS:
            written.append(module.run(args.only, args.threads))
            continue
        if not written:
            describe(minidl, harness, args.threads)
            print(f"jax {said}")
        options = {}
        if suite == "train":
            options = {"only": args.only, "compiled": args.compile, "jax": jax}
        results = []
        print(f"\n{suite}, {args.threads} threads")
        for row in module.rows(**options):
            if args.only in row.name:
                results.append(harness.measure(row, settings))
                print(harness.line(results[-1]), flush=True)
        written.append(harness.record(suite, results, settings))
        if args.save:
            harness.RESULTS.mkdir(exist_ok=True)
            text = json.dumps(written[-1], indent=1) + "\n"
            harness.path_of(suite, args.threads).write_text(text, encoding="utf-8")
        if args.check:
            worse = harness.fallen(suite, results, settings)
            print("\n".join(worse) or "nothing fell")
            failed |= bool(worse)
        missed = [result.name for result in results if result.missed]
        print(f"{len(results)} rows, {len(missed)} below their bar: {', '.join(missed) or 'none'}")
        compared = [result for result in results if "jax" in result.ratios]
        behind = [result.name for result in compared if result.ratios["jax"].high < 1]
        if compared:
            names = ", ".join(behind) or "none"
            print(f"jax is ahead in {len(behind)} of {len(compared)} rows: {names}")
    if args.json:
        args.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    if args.picture:
        from benchmarks import roofline

        roofline.draw([record for record in written if "limits" in record], args.picture)
    return int(failed)


def describe(minidl: Any, harness: Any, threads: int) -> None:
    """Print on what the rows are measured."""
    print(f"{minidl.backends.native.describe()}; peak {harness.peak() / 1e9:.0f} Gflop/s a core")
    for kind, rates in list(harness.limits(threads).items())[1:]:
        parts = [f"{size >> 10} KB {rate / 1e9:.0f}" for size, rate in rates.items()]
        print(f"{kind}, GB/s by working set: {', '.join(parts)}")
    print("ratio = best eager rival / ours [95 %], or +time where ours has the rival inside")


if __name__ == "__main__":
    sys.exit(main())
