"""The Numba table beside the NumPy table: kernels and training steps, in turns.

    python benchmarks/numba_table.py [--threads 1] [--rounds 15] [--only TEXT]

Both tables run the same calls on the same arrays, in rounds whose order changes; the ratio of a
round is NumPy's time over Numba's, and the median ratio and its 95 % interval are printed with the
bar. BLAS has the same number of threads under both. Nothing is asserted: a bar that is missed even
at the upper end of the interval is marked, and counted in the last line.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROWS, WIDTH = 4096, 768
TABLES = ("reference", "numba")


class Row(NamedTuple):
    """A call that each table makes, and the ratio that Numba should reach."""

    name: str
    bar: float
    calls: dict[str, Callable[[], Any]]


def kernel_rows() -> Iterator[Row]:
    """Every entry that Numba serves, on arrays of 12 MB, and attention with its gradient."""
    import numpy as np

    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    x, g, y = (normal(ROWS, WIDTH) for _ in range(3))
    w, b, soft = normal(WIDTH), normal(WIDTH), np.abs(normal(ROWS, WIDTH))
    mean, rstd = normal(ROWS), np.abs(normal(ROWS))
    yield _row("softmax", x, -1)
    yield _row("softmax_backward", g, soft, -1)
    yield _row("log_softmax", x, -1)
    yield _row("log_softmax_backward", g, -soft, -1)
    yield _row("logsumexp", x, (1,), False)
    yield _row("layer_norm", x, 1, w, b, 1e-5)
    yield _row("layer_norm_backward", g, x, 1, w, mean, rstd)
    yield _row("add_layer_norm", x, y, 1, w, b, 1e-5)
    yield _row("rms_norm", x, 1, w, 1e-5)
    yield _row("rms_norm_backward", g, x, 1, w, rstd)
    for approximate in ("none", "tanh"):
        yield _row("gelu", x, approximate)
        yield _row("gelu_backward", g, x, approximate)
    yield _row("silu", x)
    yield _row("silu_backward", g, x)
    yield _row("dropout", x, 0.1, 1, 0)
    yield _row("philox_bits", x.size, 1, 0)
    yield _row("uniform", x.shape, np.float32, 1, 0)
    yield _row("bernoulli", x.shape, 0.3, 1, 0)
    logits, target = normal(1024, 8192), rng.integers(0, 8192, 1024)
    lse = np.log(np.exp(logits).sum(1))
    yield _row("cross_entropy", logits, target, None, -100, 0.0)
    yield _row("cross_entropy_backward", normal(1024), logits, target, None, -100, 0.0, lse)
    index = rng.integers(0, 32000, 4096)
    yield _row("embedding_backward", normal(4096, 256), index, 32000, None)
    weight, bias = normal(1024, 256), normal(1024)
    yield _row("linear", normal(1024, 256), weight, bias, "gelu", bar=1.0)
    yield _row("matmul", normal(1024, 256), normal(256, 1024), bar=0.95)
    yield from _optimizer_rows(normal)
    for shape in ((4, 8, 256, 64), (1, 12, 1024, 64), (12, 4, 64, 32)):
        for causal in (False, True):
            yield _attention(normal, shape, causal)


def _row(entry: str, *args: Any, bar: float = 2.0, name: str = "", **options: Any) -> Row:
    from minidl.backends.table import TABLES as tables

    attribute = next((f" {a}" for a in args if isinstance(a, str)), "")
    calls = {t: _entered(getattr(tables[t], entry), *args, **options) for t in TABLES}
    return Row(name or entry + attribute, bar, calls)


def _entered(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[[], Any]:
    from minidl.backends import local

    return lambda: local.state.run(function, *args, **options)


def _optimizer_rows(normal: Callable[..., Any]) -> Iterator[Row]:
    """7.4 million parameters in 21 arrays."""
    import numpy as np

    shapes = [(1024, 1024)] * 7 + [(1024,)] * 14
    p, g, m = ([normal(*shape) for shape in shapes] for _ in range(3))
    v = [np.abs(normal(*shape)) for shape in shapes]
    flags = {"weight_decay": 0.01, "maximize": False}
    yield _row(
        "sgd_step", p, g, m, [False] * len(p),
        lr=1e-4, momentum=0.9, dampening=0.0, nesterov=False, **flags,
    )  # fmt: skip
    yield _row(
        "adam_step", p, g, m, v, [None] * len(p), [9] * len(p),
        lr=1e-4, beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False, decoupled=True, **flags,
    )  # fmt: skip
    yield _row("grad_norm", g, 2.0)


def _attention(normal: Callable[..., Any], shape: tuple[int, ...], causal: bool) -> Row:
    from minidl.backends.table import TABLES as tables

    g, q, k, v = (normal(*shape) for _ in range(4))
    scale = shape[-1] ** -0.5

    def both(table: Any) -> Any:
        out, lse = table.attention(q, k, v, None, causal, scale)
        return table.attention_backward(g, q, k, v, None, causal, scale, out, lse)

    name = f"attention + backward {shape} {'causal' if causal else 'full'}"
    return Row(name, 3.0, {t: _entered(both, tables[t]) for t in TABLES})


def step_rows() -> Iterator[Row]:
    """Whole training steps."""
    import minidl
    from benchmarks import models

    for job, bar in ((models.small_gpt(), 1.5), (models.jobs()[0], 0.95)):
        yield Row(job.name, bar, {t: _step(t, models.build(job, minidl)) for t in TABLES})


def _step(table: str, step: Callable[[], Any]) -> Callable[[], Any]:
    from minidl.backends import use_backend

    def run() -> Any:
        with use_backend(table):
            return step()

    return run


def measure(
    row: Row, rounds: int, threads: int, window: float = 0.02
) -> tuple[dict[str, float], Any]:
    """Median seconds of both tables, and the ratio with its interval.

    BLAS has threads that poll for 0.1 s after a product; a window begins when they sleep.
    """
    import statistics

    from benchmarks.harness import per_call, rest, summary

    counts = {}
    for table, call in row.calls.items():
        call()  # compiles
        counts[table] = max(1, int(window / max(1e-7, per_call(call, 1))))
    times: dict[str, list[float]] = {table: [] for table in row.calls}
    for n in range(rounds):
        for table in TABLES if n % 2 else reversed(TABLES):
            rest("numpy", threads)
            times[table].append(per_call(row.calls[table], counts[table]))
    quotients = [a / b for a, b in zip(times["reference"], times["numba"], strict=True)]
    return {t: statistics.median(times[t]) for t in TABLES}, summary(quotients)


def main() -> int:
    """Run the rows that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    args = parser.parse_args()
    os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)  # read when NumPy is imported
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import minidl
    from minidl import backends

    if "numba" not in backends.available():
        print(backends.numba_cpu.layer().missing)
        return 1
    minidl.set_num_threads(args.threads)
    print(f"{args.threads} threads, {args.rounds} rounds; ratio = NumPy / Numba [95 %]")
    missed, count = [], 0
    for rows in (kernel_rows, step_rows):
        for row in rows():
            if args.only not in row.name:
                continue
            seconds, ratio = measure(row, args.rounds, args.threads)
            count += 1
            under = ratio.high < row.bar
            missed += [row.name] * under
            times = " ".join(f"{1e3 * seconds[t]:9.3f} ms" for t in TABLES)
            interval = f"{ratio.median:5.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
            print(
                f"{row.name:46} {times}  {interval:20} bar {row.bar} {'MISSED' * under}", flush=True
            )
    print(f"{count} rows, {len(missed)} below their bar: {', '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
