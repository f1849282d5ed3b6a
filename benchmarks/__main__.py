"""`python -m benchmarks SUITE`: our times beside the rivals', the limits, and bars.

    python -m benchmarks gemm attention fused optim train [--threads 1] [--rounds 15]
        [--only TEXT] [--save | --check] [--json FILE]

Needs the extra `bench`. Rivals and we run with the same number of threads. --save keeps the ratios
under benchmarks/results, --check compares with those that are kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

SUITES = ("gemm", "attention", "fused", "optim", "train")


def main() -> int:
    """Run the suites that are named."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="+", choices=SUITES, metavar="SUITE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--json", type=Path, help="write what was measured")
    args = parser.parse_args()
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(args.threads)  # read when NumPy and torch are imported

    import torch

    import minidl
    from benchmarks import harness

    torch.set_num_threads(args.threads)
    minidl.set_num_threads(args.threads)
    settings = harness.Settings(rounds=args.rounds, threads=args.threads)
    if args.threads > 1:
        settings.pause = 0.15  # OpenBLAS's threads poll for about 0.1 s after a product
    print(f"{minidl.backends.native.describe()}; peak {harness.peak() / 1e9:.0f} Gflop/s a core,")
    print(f"read bandwidth {harness.bandwidth() / 1e9:.0f} GB/s; ratio = best rival / ours [95 %]")
    failed, written = False, []
    for suite in args.suites:
        results = []
        print(f"\n{suite}, {args.threads} threads")
        for row in importlib.import_module(f"benchmarks.{suite}").rows():
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
    if args.json:
        args.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
