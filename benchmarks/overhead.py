"""What an operator costs beside its kernel: a recorded call, a backward node, an eager add.

    python benchmarks/overhead.py [--json]

Budgets (architecture): a recorded operator <= 1.5 us over its kernel, a backward node <= 2 us plus
its operators, eager add of 16 floats <= torch's time (torch only if it is installed). The rows are
timed in turns in one process; each figure is the median of the rounds, its spread the quartiles.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import statistics
from collections.abc import Callable
from time import perf_counter_ns

import numpy as np

from minidl.autograd import no_grad
from minidl.ops import add, linear, mul
from minidl.tensor import Tensor

ROUNDS, CALLS, CHAIN = 41, 2000, 200


def once(function: Callable[[], object], calls: int) -> float:
    """Microseconds per call."""
    start = perf_counter_ns()
    for _ in range(calls):
        function()
    return (perf_counter_ns() - start) / calls / 1e3


def rows() -> dict[str, tuple[Callable[[], object], int]]:
    """Name -> (function, calls per round)."""
    a, b = np.ones((8, 8), np.float32), np.ones((8, 8), np.float32)
    x, y = Tensor(a).requires_grad_(), Tensor(b)
    plain, g = Tensor(a.copy()), Tensor(np.ones((8, 8), np.float32))
    s, t = Tensor(np.ones(16, np.float32)), Tensor(np.ones(16, np.float32))
    inputs, weight, bias = (
        Tensor(np.ones(shape, np.float32)) for shape in ((8, 64), (64, 64), (64,))
    )

    def chain() -> Tensor:
        h = x
        for _ in range(CHAIN):
            h = mul(h, y)
        return h

    def chain_backward() -> None:
        chain().backward(g)
        x.grad = None

    def kernels() -> None:
        for _ in range(CHAIN):
            np.multiply(a, b)

    def operators() -> None:
        with no_grad():
            for _ in range(CHAIN):
                mul(plain, y)

    found: dict[str, tuple[Callable[[], object], int]] = {
        "np.multiply 8x8": (lambda: np.multiply(a, b), CALLS),
        "mul 8x8, not recorded": (lambda: mul(plain, y), CALLS),
        "mul 8x8, recorded": (lambda: mul(x, y), CALLS),
        "add 16 floats": (lambda: add(s, t), CALLS),
        "linear 8x64x64": (lambda: linear(inputs, weight, bias), CALLS // 4),
        "chain of kernels": (kernels, 8),
        "chain of operators": (operators, 8),
        "chain, recorded": (chain, 8),
        "chain, recorded and backward": (chain_backward, 8),
    }
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        u, v = torch.ones(16), torch.ones(16)
        ti, tw, tb = torch.ones(8, 64), torch.ones(64, 64), torch.ones(64)
        found["torch add 16 floats"] = (lambda: torch.add(u, v), CALLS)
        found["torch linear 8x64x64"] = (
            lambda: torch.nn.functional.linear(ti, tw, tb),
            CALLS // 4,
        )
    return found


def measure(rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Microseconds per call of every row, one list entry per round."""
    table = rows()
    times: dict[str, list[float]] = {name: [] for name in table}
    for function, _ in table.values():
        function()
    gc.disable()
    for _ in range(rounds):
        for name, (function, calls) in table.items():
            times[name].append(once(function, calls))
        gc.collect()
    gc.enable()
    return times


def main() -> None:
    """Print the rows and the figures that have a budget."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    times = measure(arguments.rounds)

    def difference(row: str, *others: str, per: int = 1) -> float:
        """Median over the rounds of row minus the sum of others, taken in the same round."""
        pairs = zip(times[row], *(times[o] for o in others), strict=True)
        return statistics.median((r - sum(o)) / per for r, *o in pairs)

    # a chain's backward runs one multiplication per node (the other input needs no gradient)
    figures = {
        "recorded operator over its kernel, us (<= 1.5)": difference(
            "mul 8x8, recorded", "np.multiply 8x8"
        ),
        "unrecorded operator over its kernel, us": difference(
            "mul 8x8, not recorded", "np.multiply 8x8"
        ),
        "backward node without its operators, us (<= 2)": difference(
            "chain, recorded and backward", "chain, recorded", "chain of operators", per=CHAIN
        ),
    }
    if "torch add 16 floats" in times:
        ratios = zip(times["torch add 16 floats"], times["add 16 floats"], strict=True)
        figures["eager add of 16 floats, torch's time / ours (>= 1)"] = statistics.median(
            t / o for t, o in ratios
        )
    if arguments.json:
        print(json.dumps({"rows": times, "figures": figures}))
        return
    for name, values in times.items():
        low, middle, high = statistics.quantiles(values, n=4)
        print(f"{name:34} {middle:9.3f} us   (quartiles {low:.3f} to {high:.3f})")
    for name, value in figures.items():
        print(f"{name:56} {value:8.2f}")


if __name__ == "__main__":
    main()
